"""Following the vault's list of revocations for life, as a participant and as a holder of keys.

See docs/protocols.md#the-list-of-revocations and docs/protocols.md#fence-wait-out-sweep.

The position stands in this system's own database, so that a database restored from before an erasure is behind the list,
and erases again before anything is served.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

from event_contracts.vault_api import Entry, RevocationPage
from servicekit.core.clock import Backoff, pause_until
from servicekit.core.errors import KitError, TooMany, Unavailable
from servicekit.core.faults import declare, faultpoint
from servicekit.core.health import Health, Progress
from servicekit.core.logs import get_log
from servicekit.core.metrics import ERASED_ROWS, REVOCATIONS_APPLIED
from servicekit.core.revocation_list import first_break
from servicekit.db.postgres import Database, Tx
from servicekit.db.writers import wait_out
from servicekit.kit import Kit
from servicekit.participant.holdings import Erasure, Holding

log = get_log("revocations")
BEHIND: Final = "behind_revocations"
PAGE: Final = 500
WAIT_SECONDS: Final = 3.0
# While work is under way that was begun with keys that are gone, its end is looked for this often and told this often.
LOOK_SECONDS: Final = 0.02
TELL_SECONDS: Final = 0.5
FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 5.0

declare("revocations.fenced", "revocations.swept", "revocations.applied")


class ListDiffers(KitError):
    """The vault's list of revocations is not the one that this database has applied: it ends earlier, or has other entries.
    This service does not serve until the right vault is there."""

    code = "revocations_differ"
    status = 503


@dataclass(frozen=True, slots=True)
class Position:
    """The last entry that was applied: its number and hash, in the list of that vault."""

    incarnation: str
    number: int
    hash: str


async def read_position(source: Database | Tx, *, lock: bool = False) -> Position:
    row = await source.fetchrow(
        "-- read_position\nSELECT incarnation, number, hash FROM kit.revocation_position"
        + (" FOR UPDATE" if lock else "")
    )
    assert row is not None
    return Position(row["incarnation"], row["number"], row["hash"])


def erasures_of(entries: Iterable[Entry]) -> list[Erasure]:
    """What these entries say goes: one for each request and person. What is only held stays."""
    found: dict[tuple[UUID, UUID], Erasure] = {}
    for entry in entries:
        keys = () if entry.action == "hold" else tuple(entry.key_ids)
        if not keys and not entry.is_final:
            continue
        name = entry.request_id, entry.subject
        known = found.get(name, Erasure(*name, (), is_final=False))
        merged = dict.fromkeys((*known.key_ids, *keys))
        found[name] = replace(known, key_ids=tuple(merged), is_final=known.is_final or entry.is_final)
    return list(found.values())


async def sweep(tx: Tx, holdings: Sequence[Holding], erasures: Sequence[Erasure]) -> int:
    """Erases from all holdings and adds to what is known of each request. Returns how many rows changed or went."""
    total = 0
    for wave in _waves(erasures):
        rows = dict.fromkeys((erasure.subject for erasure in wave), 0)
        for holding in holdings:
            for subject, count in (await holding.erase(tx, wave)).items():
                rows[subject] += count
        changed = [erasure for erasure in wave if rows[erasure.subject]]
        if changed:
            await tx.execute(
                """-- sweep
                INSERT INTO kit.erased_rows AS e (request_id, subject_id, rows)
                SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bigint[])
                ON CONFLICT (request_id, subject_id) DO UPDATE SET rows = e.rows + excluded.rows""",
                [erasure.request_id for erasure in changed],
                [erasure.subject for erasure in changed],
                [rows[erasure.subject] for erasure in changed],
            )
        total += sum(rows.values())
    if total:
        ERASED_ROWS.inc(total)
    return total


def _waves(erasures: Sequence[Erasure]) -> list[list[Erasure]]:
    """In each wave a person stands once, so that a row is counted for one request."""
    waves: list[list[Erasure]] = []
    seen: dict[UUID, int] = {}
    for erasure in erasures:
        place = seen.get(erasure.subject, 0)
        seen[erasure.subject] = place + 1
        if place == len(waves):
            waves.append([])
        waves[place].append(erasure)
    return waves


async def apply_entries(tx: Tx, holdings: Sequence[Holding], incarnation: str, entries: Sequence[Entry]) -> Position:
    """Applies what of the entries this database lacks, and moves its position. Returns where it is then.

    Nothing is done when the entries begin behind a gap: the database was set back meanwhile. Raises `ListDiffers`.
    """
    position = await read_position(tx, lock=True)
    lacking = [entry for entry in entries if entry.number > position.number]
    if not lacking or lacking[0].number > position.number + 1:
        return position
    if first_break(lacking, position.number, position.hash) is not None:
        raise ListDiffers
    await write_fences(tx, lacking)
    await sweep(tx, holdings, erasures_of(lacking))
    last = lacking[-1]
    await tx.execute(
        "-- apply_entries\nUPDATE kit.revocation_position SET incarnation = $1, number = $2, hash = $3",
        incarnation,
        last.number,
        last.hash,
    )
    REVOCATIONS_APPLIED.inc(len(lacking))
    faultpoint("revocations.swept")
    return Position(incarnation, last.number, last.hash)


async def write_fences(tx: Tx, entries: Sequence[Entry]) -> None:
    """Once this is committed, new writers leave out what the entries revoke. May be repeated."""
    named = [(key_id, e.subject, e.number) for e in entries if e.action != "hold" for key_id in e.key_ids]
    final = {entry.subject: entry.number for entry in reversed(entries) if entry.is_final}
    await _note_keys(tx, named)
    await _note_subjects(tx, final)


async def _note_keys(tx: Tx, named: Sequence[tuple[UUID, UUID, int]]) -> None:
    if named:
        await tx.execute(
            """-- note_keys
            INSERT INTO kit.revoked_keys (key_id, subject_id, number)
            SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) ON CONFLICT DO NOTHING""",
            [key_id for key_id, _, _ in named],
            [subject for _, subject, _ in named],
            [number for _, _, number in named],
        )
        await tx.execute(
            "-- note_keys: released\nDELETE FROM kit.released_keys WHERE key_id = ANY($1::uuid[])",
            [key_id for key_id, _, _ in named],
        )


async def _note_subjects(tx: Tx, final: dict[UUID, int]) -> None:
    if final:
        await tx.execute(
            """-- note_subjects
            INSERT INTO kit.revoked_subjects (subject_id, number)
            SELECT * FROM unnest($1::uuid[], $2::bigint[]) ON CONFLICT DO NOTHING""",
            list(final),
            list(final.values()),
        )


class Follower:
    """Reads the list for one process, applies it to the system's database, and says when work with revoked keys has ended.

    Several processes of a system follow at once: each drops its own leases, the first one to lock the position erases.
    `is_alone`: nobody commands this system to sweep again, so it waits for older writers before it sweeps at all.
    """

    def __init__(self, kit: Kit, holdings: Sequence[Holding], health: Health, *, is_alone: bool = False) -> None:
        self._kit = kit
        self._is_alone = is_alone
        self._holdings = holdings
        self._health = health
        self._at: Position | None = None
        self._incarnation = ""
        self._is_compared = False
        self._head = 0
        self._done = 0
        self._ending: deque[tuple[int, int]] = deque()  # (mark of the work, number), the oldest first
        health.facts["revocations"] = lambda: self._at.number if self._at is not None else 0
        self._shut()

    async def run(self, stopping: asyncio.Event, progress: Progress) -> None:
        """Follows until `stopping`. Whatever fails is tried again; what cannot be applied keeps the gate shut."""
        pause = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while not stopping.is_set():
            try:
                advanced = await _unless(stopping, self.turn())
            except (Unavailable, TooMany) as error:
                self._is_compared = False
                log.warning("not_followed", error=error, pause=pause.seconds)
            except Exception as error:  # noqa: BLE001 - whatever it is, an erasure that is not applied must not be served
                self._is_compared = False
                self._shut()
                log.error("revocations_not_applied", error=error, pause=pause.seconds)
            else:
                pause.reset()
                progress.beat(lag=self._lag(), advanced=advanced)
                continue
            progress.beat(lag=self._lag())
            await pause_until(stopping, pause.next())

    async def turn(self) -> bool:
        """Asks for the next page and applies it; says whether there was one. Raises `ListDiffers`, `Unavailable`."""
        at = await self._place()
        compares = not self._is_compared
        await self._see_work_end()
        wait = 0.0 if compares or self._ending else WAIT_SECONDS
        after = at.number - 1 if compares and at.number else at.number
        page = await self._kit.vault.revocations(after, wait, self._done, PAGE)
        if page.head < at.number:
            raise ListDiffers
        entries = self._compare(page, at) if compares else list(page.entries)
        if entries and first_break(entries, at.number, at.hash) is not None:
            raise ListDiffers
        if page.incarnation != self._incarnation and not compares:
            # Another vault, or a restored one: its list is compared before it is believed.
            self._is_compared = False
            return False
        self._incarnation = page.incarnation
        if compares:
            self._head = page.head
            self._is_compared = True
            if page.head > at.number:
                self._shut()
        await self._apply(page.incarnation, at, entries)
        return bool(entries)

    async def _place(self) -> Position:
        """Where this process is. A database that is further back was restored: from there on all is applied again."""
        stored = await read_position(self._kit.db)
        if self._at is None:
            self._done = stored.number  # it holds no key yet
        elif stored.number >= self._at.number:
            return self._at
        else:
            log.warning("database_set_back", since=self._at.number, to=stored.number)
        self._shut()
        self._is_compared = False
        self._at = stored
        return stored

    def _compare(self, page: RevocationPage, at: Position) -> list[Entry]:
        """The entries that are new, once the one at our position is the one that we applied."""
        if at.number == 0:
            return list(page.entries)
        if not page.entries or (page.entries[0].number, page.entries[0].hash) != (at.number, at.hash):
            raise ListDiffers
        return page.entries[1:]

    async def _apply(self, incarnation: str, at: Position, entries: Sequence[Entry]) -> None:
        last = Position(incarnation, entries[-1].number, entries[-1].hash) if entries else at
        self._kit.vault.apply(incarnation, last.number, [key_id for entry in entries for key_id in entry.key_ids])
        if entries:
            mark = self._kit.works.mark
            if self._is_alone:
                await self._kit.db.run_tx("write_fences", lambda tx: write_fences(tx, entries))
                faultpoint("revocations.fenced")
                await wait_out(self._kit.db, self._kit.clock, [holding.table for holding in self._holdings])

            async def work(tx: Tx) -> Position:
                return await apply_entries(tx, self._holdings, incarnation, entries)

            applied = await self._kit.db.run_tx("apply_revocations", work)
            faultpoint("revocations.applied")
            if applied.number < last.number:
                return  # it was set back meanwhile: the next turn finds out
            self._at = last
            self._ending.append((mark, last.number))
            await self._see_work_end(wait=False)
        if self._is_compared and last.number >= self._head:
            self._open()

    async def _see_work_end(self, *, wait: bool = True) -> None:
        """Moves `done` past each page whose work has ended; with `wait` it gives the oldest a moment to end."""
        give_up = self._kit.clock.boottime() + TELL_SECONDS
        before = self._done
        while self._ending:
            mark, number = self._ending[0]
            if self._kit.works.has_ended(mark):
                self._done = max(self._done, number)
                self._ending.popleft()
            elif wait and self._done == before and self._kit.clock.boottime() < give_up:
                await asyncio.sleep(LOOK_SECONDS)
            else:
                return

    def _lag(self) -> int:
        if self._kit.gate.is_open:
            return 0
        return max(1, self._head - (self._at.number if self._at is not None else 0))

    def _shut(self) -> None:
        self._kit.gate.shut()
        self._health.refuse(BEHIND)

    def _open(self) -> None:
        if not self._kit.gate.is_open:
            log.info("revocations_applied", number=self._at.number if self._at is not None else 0)
        self._health.accept(BEHIND)
        self._kit.gate.open()


async def _unless(stopping: asyncio.Event, turn: Coroutine[Any, Any, bool]) -> bool:
    """The turn's result; False when the process is told to stop meanwhile."""
    task = asyncio.ensure_future(turn)
    stop = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait([task, stop], return_when=asyncio.FIRST_COMPLETED)
        return await task if task.done() else False
    finally:
        stop.cancel()
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
