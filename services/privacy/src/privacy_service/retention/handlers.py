"""A retention run: it asks which anchors are past their time, reads the replies, and lets erase what it found.

`begin` → every system replies, page by page → keys that no event names and nobody holds → `give_up`: requests of the kind
retention, which run as any other saga → the end. A dry run is the same without the requests. A run that only looks at keys
(`look_again`) asks about those that systems have released, and about those that were held at the last look.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID, uuid4

from event_contracts.privacy import ExpiredFound, HoldingsDescribed, KeyReleased
from event_contracts.vault_api import AgedKey
from evidence_log import handlers as evidence
from evidence_log.leaves import Decision
from privacy_service.holds.domain import KeyRef
from privacy_service.participants import note_out_of_scope, participants, systems_holding
from privacy_service.requests.handlers import open_retentions
from privacy_service.retention import candidates_store as found_store
from privacy_service.retention import store
from privacy_service.retention.candidates_store import Found, KeyToLook
from privacy_service.retention.domain import EXPORT, QUARANTINE, Question, next_cursor, rules_of, scans_of
from privacy_service.retention.store import Run, Scan
from privacy_service.retention.vault_keys import KEYS_A_PAGE
from privacy_service.settings import settings_of
from servicekit import Kit, Received, Record, Staff, Tx
from servicekit.core.errors import KeyReused, NotFound
from servicekit.core.faults import declare, faultpoint

declare("retention.looked")
PEOPLE_AT_ONCE: Final = 100
# A revocation names at most 2,000 anchors.
NAMES_A_REQUEST: Final = 1000
BATCH: Final = 500
_LONGEST_BACKOFF: Final = 8
JOB: Final = "retention"
# When a key is checked again: one about which not all systems have replied, and one that is still held.
UNANSWERED_LOOK: Final = timedelta(days=1)
HELD_LOOK: Final = timedelta(days=30)
LOOK_RUNS_AT_ONCE: Final = 8
# How long runs that only look at keys are kept after their end; every daily run deletes so many.
LOOKS_KEPT: Final = timedelta(days=30)
LOOKS_DELETED_AT_ONCE: Final = 10_000


@dataclass(frozen=True, slots=True)
class Shown:
    """A run with its counts by class, and the systems that it waits for."""

    run: Run
    counts: Sequence[Record]
    waiting_for: Sequence[Record]


async def start_run(kit: Kit, by: Staff, run_id: UUID, dry_run: bool) -> Run:
    """Begins a run, or finds the one that was begun under this id. Raises `KeyReused` when it is of the other sort."""

    async def work(tx: Tx) -> Run:
        await store.lock_head(tx)
        run = await store.read_run(tx, run_id)
        if run is None:
            run = await _begin(kit, tx, run_id, dry_run, by.staff_id)
            await evidence.append(
                tx,
                [
                    Decision(
                        request_id=run_id,
                        what="retention_dry_run" if dry_run else "retention_run",
                        by="staff",
                        at=kit.clock.now(),
                        actor_id=by.staff_id,
                        role=by.role,
                    )
                ],
            )
        if run.dry_run != dry_run:
            raise KeyReused
        return run

    return await kit.run_tx("start_retention", work)


async def begin_if_due(kit: Kit) -> None:
    """The daily run. One that is still under way for somebody's silence ends with their names: this one asks them again."""

    async def work(tx: Tx) -> None:
        await store.lock_head(tx)
        now = kit.clock.now()
        since = now - timedelta(seconds=settings_of(kit).retention_every_seconds)
        if await store.is_due(tx, since):
            await store.end_unanswered(tx, since, now, _all_wanted(kit))
            await store.delete_looks(tx, now - LOOKS_KEPT, LOOKS_DELETED_AT_ONCE)
            await _begin(kit, tx, uuid4(), False, None)

    await kit.run_tx("begin_retention", work)


async def _begin(kit: Kit, tx: Tx, run_id: UUID, dry_run: bool, opener_id: UUID | None) -> Run:
    now = kit.clock.now()
    await store.insert_run(tx, run_id, dry_run, opener_id, now)
    unnamed = timedelta(seconds=settings_of(kit).unnamed_key_seconds)
    await store.insert_scans(tx, run_id, scans_of(kit.policy, now, unnamed))
    rules = rules_of(kit.policy, participants(kit.policy), now)
    await _ask(
        kit,
        tx,
        [Question(uuid4(), run_id, rule.data_class, rule.closed_before, rule.is_unused) for rule in rules],
    )
    return Run(run_id, dry_run, now, None)


async def _ask(kit: Kit, tx: Tx, questions: Sequence[Question]) -> None:
    if questions:
        now = kit.clock.now()
        await store.insert_questions(tx, questions, now, now + _pause(kit, 1))
        await tx.emit(*(question.command for question in questions))


def _pause(kit: Kit, attempts: int) -> timedelta:
    """The pause after a question was sent `attempts` times."""
    longer = min(1 << min(attempts - 1, 10), _LONGEST_BACKOFF)
    return timedelta(seconds=settings_of(kit).command_retry_seconds * longer)


async def ask_again(kit: Kit) -> bool:
    """Send questions again to which not all systems have replied. True if there may be more."""

    async def work(tx: Tx) -> bool:
        now = kit.clock.now()
        due = await store.lock_due_questions(tx, now, BATCH)
        if due:
            await store.ask_again(tx, [(each.question_id, now + _pause(kit, asked + 1)) for each, asked in due])
            await tx.emit(*(question.command for question, _ in due))
        return len(due) == BATCH

    return await kit.run_tx("ask_retention_again", work)


async def on_expired_found(kit: Kit, tx: Tx, received: Sequence[Received[ExpiredFound]]) -> None:
    """Pages of what is past its time. A page that was not all there is makes the next question.

    Of a class with an owner only the owner knows when an anchor closed, so only its items count.
    """
    questions = await store.lock_questions(tx, {each.event.request_id for each in received})
    replies: dict[tuple[UUID, str], ExpiredFound] = {}
    for each in received:
        question = questions.get(each.event.request_id)
        if not kit.policy.holds(each.event.system, each.event.data_class):
            # A system that does not hold a class cannot have it erased.
            note_out_of_scope(each.event.system, "expired", 1)
        elif question is not None and question.data_class == each.event.data_class:
            replies.setdefault((each.event.request_id, each.event.system), each.event)
    fresh = await store.save_pages(tx, list(replies.values()))
    found = [
        (question.run_id, item.subject_id, item.data_class, item.anchor, question.closed_before)
        for place, reply in replies.items()
        if place in fresh
        and (question := questions[reply.request_id]).closed_before is not None
        and kit.policy.owner(reply.data_class) in (None, reply.system)
        for item in reply.items
        if item.data_class == question.data_class and item.closed_at < question.closed_before
    ]
    await found_store.insert_expired(tx, found)
    for question in await _end_answered(kit, tx, questions):
        said = (await store.read_replies(tx, [question.question_id]))[question.question_id]
        after = next_cursor([place for place in said.values() if place is not None], question.after)
        if after is not None:
            following = Question(
                uuid4(), question.run_id, question.data_class, question.closed_before, question.is_unused, after
            )
            await _ask(kit, tx, [following])


async def on_described(kit: Kit, tx: Tx, received: Sequence[Received[HoldingsDescribed]]) -> None:
    """What is held of people with a key that no event has named. Answers to the sagas' questions change nothing here."""
    questions = await store.lock_questions(tx, {each.event.request_id for each in received})
    replies = []
    for each in received:
        question = questions.get(each.event.request_id)
        if question is not None and question.subject_id == each.event.subject_id:
            items = tuple(i for i in each.event.items if kit.policy.holds(each.event.system, i.data_class))
            note_out_of_scope(each.event.system, "described", len(each.event.items) - len(items))
            replies.append(each.event.model_copy(update={"items": items}))
    if not replies:
        return
    now = kit.clock.now()
    await found_store.clear_suspects(tx, replies, now, now + HELD_LOOK)
    await store.save_parts(tx, replies)
    done = await _end_answered(kit, tx, questions)
    await found_store.convict(tx, [question.question_id for question in done])


async def _end_answered(kit: Kit, tx: Tx, questions: dict[UUID, Question]) -> list[Question]:
    """End the questions to which all systems have replied that hold what they ask about. Returns those."""
    said = await store.read_replies(tx, questions)
    done = [q for each, q in questions.items() if _wanted(kit, q.data_class) <= said.get(each, {}).keys()]
    await store.end_questions(tx, [question.question_id for question in done])
    return done


def _wanted(kit: Kit, data_class: str | None) -> frozenset[str]:
    """The systems that must reply to a question about a class; None: about a person."""
    return frozenset(participants(kit.policy) if data_class is None else systems_holding(kit.policy, data_class))


async def on_released(kit: Kit, tx: Tx, received: Sequence[Received[KeyReleased]]) -> None:
    """A system deleted what it held under a key: everybody is asked, and the key goes when nobody holds a row under it.

    Only what an event of this system has named counts. That event may be read after the release: then there is a day for
    it. No table knows of quarantines and exports, so no release of one counts. A release that is read again after the key
    is gone changes nothing.
    """
    released = []
    for event in (each.event for each in received):
        if event.data_class in (QUARANTINE, EXPORT) or event.system not in systems_holding(
            kit.policy, event.data_class
        ):
            note_out_of_scope(event.system, "released", 1)
        else:
            released.append(event)
    gone = await tx.revoked([event.key_id for event in released])
    keys = list(
        {
            KeyToLook(event.key_id, event.subject_id, event.data_class, event.anchor, event.system): None
            for event in released
            if event.key_id not in gone
        }
    )
    if not keys:
        return
    now, named = kit.clock.now(), await found_store.named_by_releaser(tx, keys)
    await found_store.note_looks(tx, [key for key in keys if key in named], now)
    await found_store.note_looks(tx, [key for key in keys if key not in named], now + UNANSWERED_LOOK)
    tx.wake(kit.wakes[JOB])


async def look_again(kit: Kit) -> bool:
    """Ask about keys that are due to be checked. True if there may be more.

    While systems are silent only so many of these runs are begun; the rest waits for them.
    """
    now = kit.clock.now()
    if not await found_store.has_looks(kit.db, now):
        return False

    async def work(tx: Tx) -> bool:
        await store.lock_head(tx)
        if await store.looks_under_way(tx) >= LOOK_RUNS_AT_ONCE:
            return False
        keys = await found_store.take_looks(tx, now, now + UNANSWERED_LOOK, BATCH)
        named = await found_store.named_by_releaser(tx, keys)
        await found_store.drop_looks(tx, [key for key in keys if key.released_by and key not in named])
        counting = [key for key in keys if not key.released_by or key in named]
        if counting:
            run_id = uuid4()
            await store.insert_run(tx, run_id, False, None, now, only_looks=True)
            await _ask_about(kit, tx, run_id, counting)
        return len(keys) == BATCH

    has_more = await kit.run_tx("look_again", work)
    faultpoint("retention.looked")
    return has_more


async def look_at_keys(kit: Kit, scan: Scan, keys: Sequence[AgedKey]) -> None:
    """Ask all systems about people with a key on this page of the vault's keys that no event has named. Then move the scan on."""

    async def work(tx: Tx) -> None:
        to = (keys[-1].created_at, keys[-1].key_id) if keys else None
        if not await store.move_scan(tx, scan, to, is_done=len(keys) < KEYS_A_PAGE):
            return
        unnamed = await found_store.unnamed(tx, keys)
        mine = [key for key in keys if key.key_id in unnamed and (scan.data_class or key.data_class != QUARANTINE)]
        if not scan.dry_run:
            looks = [KeyToLook(key.key_id, key.subject, key.data_class, key.anchor) for key in mine]
            await found_store.note_looks(tx, looks, kit.clock.now() + UNANSWERED_LOOK)
        # Of these no participant's table knows; their keys are all there is.
        ours = [key for key in mine if key.data_class in (QUARANTINE, EXPORT)]
        await found_store.insert_found(tx, [(scan.run_id, key.subject, key.data_class, key.anchor) for key in ours])
        await _ask_about(kit, tx, scan.run_id, [key for key in mine if key not in ours])

    await kit.run_tx("look_at_keys", work)


async def _ask_about(kit: Kit, tx: Tx, run_id: UUID, keys: Iterable[AgedKey | KeyToLook]) -> None:
    by_subject: dict[UUID, list[AgedKey | KeyToLook]] = defaultdict(list)
    for key in keys:
        by_subject[key.subject].append(key)
    questions = {subject: Question(uuid4(), run_id, subject_id=subject) for subject in by_subject}
    await _ask(kit, tx, list(questions.values()))
    await found_store.insert_suspects(
        tx,
        [
            (questions[subject].question_id, key.data_class, key.anchor)
            for subject, theirs in by_subject.items()
            for key in theirs
        ],
    )


async def give_up(kit: Kit, run_id: UUID) -> bool:
    """Open requests for what was found of some people. The run ends when all systems have replied and nothing is left.

    A system that does not reply to the first question delays only what it alone knows. True if there may
    be more. A dry run counts only.
    """

    async def work(tx: Tx) -> bool:
        await store.lock_head(tx)
        locked = await store.lock_run(tx, run_id)
        if locked is None:
            return False
        run, is_answered = locked
        now = kit.clock.now()
        found = await found_store.take_found(tx, run_id, now, PEOPLE_AT_ONCE)
        if not found:
            if is_answered:
                await store.end_run(tx, run_id, now)
            return False
        await found_store.add_counts(tx, run_id, list(_counts(found, run.dry_run)))
        if not run.dry_run:
            for names in _requests(found):
                await open_retentions(kit, tx, names)
        return True

    return await kit.run_tx("give_up", work)


def _counts(found: Sequence[Found], dry_run: bool) -> Iterable[tuple[str, int, int, int, int]]:
    by_class: dict[str, list[Found]] = defaultdict(list)
    for each in found:
        by_class[each.data_class].append(each)
    for data_class, of_class in by_class.items():
        held = sum(each.held and not each.under_way for each in of_class)
        under_way = sum(each.under_way for each in of_class)
        opened = 0 if dry_run else len(of_class) - held - under_way
        yield data_class, len(of_class), held, under_way, opened


def _requests(found: Sequence[Found]) -> Iterable[dict[UUID, Sequence[KeyRef]]]:
    """By person, what may go; several requests for whom one could not name it all."""
    names: dict[UUID, list[KeyRef]] = defaultdict(list)
    for each in found:
        if not each.held and not each.under_way:
            names[each.subject_id].append(KeyRef(each.data_class, each.anchor))
    while names:
        yield {subject: theirs[:NAMES_A_REQUEST] for subject, theirs in names.items()}
        rest = {subject: theirs[NAMES_A_REQUEST:] for subject, theirs in names.items()}
        names = defaultdict(list, {subject: theirs for subject, theirs in rest.items() if theirs})


def _all_wanted(kit: Kit) -> list[tuple[str | None, str]]:
    """The systems that must reply: (class, system), and (None, system) for questions about a person."""
    classes: list[str | None] = [None, *kit.policy.classes]
    return [(each, system) for each in classes for system in sorted(_wanted(kit, each))]


async def show_run(kit: Kit, run_id: UUID) -> Shown:
    """Raises `NotFound`."""
    run = await store.read_run(kit.db, run_id)
    if run is None:
        raise NotFound
    silent = await store.read_silent(kit.db, [run_id], _all_wanted(kit))
    return Shown(run, await found_store.read_counts(kit.db, run_id), silent)
