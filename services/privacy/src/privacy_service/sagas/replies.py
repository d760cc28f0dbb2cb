"""What the answers of participants do to the sagas: a batch of a type is a few statements."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias
from uuid import UUID

from event_contracts.event import Event
from event_contracts.moments import IMPLAUSIBLE
from event_contracts.privacy import (
    ExpiredFound,
    HeldItem,
    HoldingsDescribed,
    HoldingsErased,
    HoldingsExported,
    HoldingsRectified,
    KeyReleased,
    RecipientsTold,
)
from event_contracts.topics import system_replies
from privacy_service.export import is_complete, on_holdings_exported
from privacy_service.requests import store
from privacy_service.requests.domain import Basis, Item, Name, Reason
from privacy_service.retention import handlers as retention
from privacy_service.retention.handlers import note_out_of_scope
from privacy_service.sagas import replies_store as answers_store
from privacy_service.sagas import store as saga_store
from privacy_service.sagas.definition import Step
from privacy_service.sagas.machine import Described, Erased, Exported, Rectified, Rules, State, Told
from privacy_service.sagas.machine import asked as wanted
from privacy_service.sagas.runner import Carrier
from servicekit import Kit, Received, RecordId, Tx, get_log
from servicekit.core.errors import Poison
from servicekit.core.faults import declare, faultpoint
from servicekit.core.logs import code
from servicekit.core.metrics import OPEN_TOO_LONG
from servicekit.kafka.batches import in_order
from servicekit.kafka.cloudevents import RawRecord, read_event, types_of

Answer: TypeAlias = Callable[[Kit, Tx, Sequence[Received[Any]]], Awaitable[None]]

# The month of somebody's browsing closes at its end, which may lie ahead; nothing closes later than that.
LONGEST_AHEAD: Final = timedelta(days=32)
log = get_log("rights")

declare("rights.answered")


async def on_described(kit: Kit, tx: Tx, received: Sequence[Received[HoldingsDescribed]]) -> None:
    """Parts of answers to the question what is held; the saga goes on when all parts of all systems are there."""
    await retention.on_described(kit, tx, received)
    asked = await saga_store.lock_of_questions(tx, {each.event.request_id for each in received})
    carrier = await Carrier.of(kit, tx, asked)
    asking = [state for state in asked if state.step in (Step.PREVIEW, Step.DESCRIBE)]
    by_question = {state.question_id: state for state in asking if state.question_id is not None}
    answers = []
    for each in received:
        state = _asked(by_question, each.event)
        if state is not None and each.event.system in wanted(state, rules := carrier.rules(state)):
            kept = tuple(item for item in each.event.items if _counts(rules, each.event.system, item))
            note_out_of_scope(each.event.system, "described", len(each.event.items) - len(kept))
            answers.append(each.event.model_copy(update={"items": kept}))
    if not answers:
        return
    await answers_store.save_parts(tx, answers)
    questions = {answer.request_id for answer in answers}
    complete = await answers_store.read_complete(tx, questions)
    ready = [
        question
        for question, systems in complete.items()
        if wanted(state := by_question[question], carrier.rules(state)) <= systems
    ]
    items = await answers_store.read_items(tx, ready)
    by_hand = await answers_store.read_manual_holds(tx, [by_question[question].subject_id for question in ready])
    for question, systems in complete.items():
        state = by_question[question]
        _warn_of_open(state, items.get(question, ()), carrier.rules(state), kit.clock.now())
        message = Described(question, systems, items.get(question, ()), by_hand.get(state.subject_id, ()))
        carrier.give(state, message)
    await carrier.save(tx)


async def on_erased(kit: Kit, tx: Tx, received: Sequence[Received[HoldingsErased]]) -> None:
    states = _by_revocation(await saga_store.lock_of_revocations(tx, {each.event.request_id for each in received}))
    carrier = await Carrier.of(kit, tx, states.values())
    for each in received:
        event = each.event
        state = _asked(states, event)
        if state is not None:
            carrier.give(state, Erased(event.system, event.number, event.erased, event.left))
    await carrier.save(tx)


async def on_told(kit: Kit, tx: Tx, received: Sequence[Received[RecipientsTold]]) -> None:
    """What comes after the end amends the certificate."""
    states = _by_revocation(await saga_store.lock_of_revocations(tx, {each.event.request_id for each in received}))
    carrier = await Carrier.of(kit, tx, states.values())
    told = []
    for each in received:
        state = _asked(states, each.event)
        if state is not None and each.event.system in carrier.rules(state).disclosers:
            told.append((state, each.event))
        else:
            note_out_of_scope(each.event.system, "told", 1 if state is not None else 0)
    changed = await answers_store.save_recipients(tx, told)
    for state, event in told:
        carrier.give(state, Told(event.system))
    await carrier.save(tx)
    if changed:
        await answers_store.mark_amended(tx, changed, kit.clock.now())


async def on_exported(kit: Kit, tx: Tx, received: Sequence[Received[HoldingsExported]]) -> None:
    requests = {each.event.request_id for each in received}
    carrier = await Carrier.of(kit, tx, await saga_store.lock_of_requests(tx, requests))
    await on_holdings_exported(tx, received)
    exporting = {s.request_id: carrier.rules(s).participants for s in carrier.states() if s.step is Step.EXPORT}
    for request_id, systems in exporting.items():
        missing = await is_complete(tx, request_id, sorted(systems))
        for state in carrier.states():
            if state.request_id == request_id:
                carrier.give(state, Exported(systems - set(missing)))
    await carrier.save(tx)


async def on_rectified(kit: Kit, tx: Tx, received: Sequence[Received[HoldingsRectified]]) -> None:
    requests = {each.event.request_id for each in received}
    carrier = await Carrier.of(kit, tx, await saga_store.lock_of_requests(tx, requests))
    for each in received:
        for state in carrier.states():
            if (state.request_id, state.subject_id) == (each.event.request_id, each.event.subject_id):
                carrier.give(state, Rectified(each.event.system, _reason(each.event), each.event.misfits))
    await carrier.save(tx)
    await store.forget_rectifications(tx, [s.request_id for s in carrier.states() if s.step is Step.DONE])


def _reason(answer: HoldingsRectified) -> Reason | None:
    if answer.refused is None:
        return None
    return Reason.DOES_NOT_FIT if answer.misfits else Reason(answer.refused)


def _counts(rules: Rules, system: str, held: HeldItem) -> bool:
    """Whether what the system says of this item counts: it holds the class, and an open anchor is the owner's to say."""
    is_holder = system in rules.holders.get(held.data_class, ())
    return is_holder and (not held.is_open or rules.owners.get(held.data_class) == system)


def _warn_of_open(state: State, items: Sequence[Item], rules: Rules, now: datetime) -> None:
    """An anchor that is open past its longest time holds nothing up any more. Its owner must be asked why it is open."""
    open_names = {Name(item.held.data_class, item.held.anchor) for item in items if item.held.is_open}
    for hold in state.holds:
        if hold.basis is Basis.OPEN_ANCHOR and hold.until is not None and hold.until <= now and hold.name in open_names:
            owner = rules.owners[hold.data_class]
            OPEN_TOO_LONG.labels(owner).inc()
            log.warning("anchor_open_too_long", owner=code(owner), data_class=code(hold.data_class), anchor=hold.anchor)


def _by_revocation(states: Sequence[State]) -> dict[UUID, State]:
    return {state.revocation_id: state for state in states}


def _asked(states: Mapping[UUID, State], event: Any) -> State | None:
    """Whom the answer is about; an answer about somebody else than was asked about is none."""
    state = states.get(event.request_id)
    return state if state is not None and state.subject_id == event.subject_id else None


ANSWERS: Final[dict[type[Event], Answer]] = {
    HoldingsDescribed: on_described,
    HoldingsErased: on_erased,
    RecipientsTold: on_told,
    HoldingsExported: on_exported,
    HoldingsRectified: on_rectified,
    ExpiredFound: retention.on_expired_found,
    KeyReleased: retention.on_released,
}


def _closing(answer: Event) -> Sequence[datetime]:
    """The times at which a participant says that names closed."""
    if isinstance(answer, HoldingsDescribed | ExpiredFound):
        return [item.closed_at for item in answer.items if item.closed_at is not None]
    return ()


def reading(contracts: Iterable[type[Event]]) -> Callable[[Kit, RawRecord], Received[Any] | None]:
    """How a reader of replies decodes: `Poison` for an answer that names another system than the topic's owner, or a closing
    time that nobody can know."""
    types = types_of(contracts)

    def decode(kit: Kit, record: RawRecord) -> Received[Any] | None:
        received = read_event(record, types)
        if received is not None and received.topic != system_replies(str(getattr(received.event, "system", None))):
            raise Poison("wrong_producer")
        if received is not None and any(at > kit.clock.now() + LONGEST_AHEAD for at in _closing(received.event)):
            raise Poison(IMPLAUSIBLE)
        return received

    return decode


def answering(
    handlers: dict[type[Event], Answer],
) -> Callable[[Kit, Tx, Sequence[Received[Any]], Mapping[RecordId, Any]], Awaitable[None]]:
    """What a reader of replies applies: each handler gets all events of its type, in order per request."""

    async def apply(kit: Kit, tx: Tx, events: Sequence[Received[Any]], _: Mapping[RecordId, Any]) -> None:
        for contract, group in in_order(events):
            await handlers[contract](kit, tx, group)
        faultpoint("rights.answered")

    return apply
