"""What the answers of participants do to the sagas: a batch of a type is a few statements."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from event_contracts.privacy import (
    HeldItem,
    HoldingsDescribed,
    HoldingsErased,
    HoldingsExported,
    HoldingsRectified,
    RecipientsTold,
)
from privacy_service.export import is_complete, on_holdings_exported
from privacy_service.holds import store as holds_store
from privacy_service.holds.domain import Basis, Item, KeyRef
from privacy_service.participants import note_out_of_scope
from privacy_service.sagas import rectifications_store, replies_store, store
from privacy_service.sagas.definition import Step
from privacy_service.sagas.machine import Described, Erased, Exported, Rectified, Rules, State, Told
from privacy_service.sagas.machine import asked as wanted
from privacy_service.sagas.runner import SagaRunner
from servicekit import Kit, Received, Tx, get_log
from servicekit.core.logs import code
from servicekit.core.metrics import OPEN_TOO_LONG

# Why a request ends whose corrections do not fit the lane of the order's carrier.
DOES_NOT_FIT: Final = "does_not_fit"
log = get_log("rights")


async def on_described(kit: Kit, tx: Tx, received: Sequence[Received[HoldingsDescribed]]) -> None:
    """Parts of answers to the question what is held; the saga goes on when all parts of all systems are there."""
    asked = await store.lock_of_questions(tx, {each.event.request_id for each in received})
    runner = await SagaRunner.of(kit, tx, asked)
    asking = [state for state in asked if state.step in (Step.PREVIEW, Step.DESCRIBE)]
    by_question = {state.question_id: state for state in asking if state.question_id is not None}
    answers = []
    for each in received:
        state = _asked(by_question, each.event)
        if state is not None and each.event.system in wanted(state, rules := runner.rules(state)):
            kept = tuple(item for item in each.event.items if _counts(rules, each.event.system, item))
            note_out_of_scope(each.event.system, "described", len(each.event.items) - len(kept))
            answers.append(each.event.model_copy(update={"items": kept}))
    if not answers:
        return
    await replies_store.save_parts(tx, answers)
    questions = {answer.request_id for answer in answers}
    complete = await replies_store.read_complete(tx, questions)
    ready = [
        question
        for question, systems in complete.items()
        if wanted(state := by_question[question], runner.rules(state)) <= systems
    ]
    items = await replies_store.read_items(tx, ready)
    by_hand = await holds_store.read_manual_holds(tx, [by_question[question].subject_id for question in ready])
    for question, systems in complete.items():
        state = by_question[question]
        _warn_of_open(state, items.get(question, ()), runner.rules(state), kit.clock.now())
        message = Described(question, systems, items.get(question, ()), by_hand.get(state.subject_id, ()))
        runner.give(state, message)
    await runner.save(tx)


async def on_erased(kit: Kit, tx: Tx, received: Sequence[Received[HoldingsErased]]) -> None:
    states = _by_revocation(await store.lock_of_revocations(tx, {each.event.request_id for each in received}))
    runner = await SagaRunner.of(kit, tx, states.values())
    for each in received:
        event = each.event
        state = _asked(states, event)
        if state is not None:
            runner.give(state, Erased(event.system, event.number, event.erased, event.left))
    await runner.save(tx)


async def on_told(kit: Kit, tx: Tx, received: Sequence[Received[RecipientsTold]]) -> None:
    """What comes after the end amends the certificate."""
    states = _by_revocation(await store.lock_of_revocations(tx, {each.event.request_id for each in received}))
    runner = await SagaRunner.of(kit, tx, states.values())
    told = []
    for each in received:
        state = _asked(states, each.event)
        if state is not None and each.event.system in runner.rules(state).disclosers:
            told.append((state, each.event))
        else:
            note_out_of_scope(each.event.system, "told", 1 if state is not None else 0)
    changed = await replies_store.save_recipients(tx, told)
    for state, event in told:
        runner.give(state, Told(event.system))
    await runner.save(tx)
    if changed:
        await replies_store.mark_amended(tx, changed, kit.clock.now())


async def on_exported(kit: Kit, tx: Tx, received: Sequence[Received[HoldingsExported]]) -> None:
    requests = {each.event.request_id for each in received}
    runner = await SagaRunner.of(kit, tx, await store.lock_of_requests(tx, requests))
    await on_holdings_exported(tx, received)
    exporting = {s.request_id: runner.rules(s).participants for s in runner.states() if s.step is Step.EXPORT}
    for request_id, systems in exporting.items():
        missing = await is_complete(tx, request_id, sorted(systems))
        for state in runner.states():
            if state.request_id == request_id:
                runner.give(state, Exported(systems - set(missing)))
    await runner.save(tx)


async def on_rectified(kit: Kit, tx: Tx, received: Sequence[Received[HoldingsRectified]]) -> None:
    requests = {each.event.request_id for each in received}
    runner = await SagaRunner.of(kit, tx, await store.lock_of_requests(tx, requests))
    for each in received:
        for state in runner.states():
            if (state.request_id, state.subject_id) == (each.event.request_id, each.event.subject_id):
                runner.give(state, Rectified(each.event.system, _refusal(each.event), each.event.misfits))
    await runner.save(tx)
    await rectifications_store.forget_rectifications(tx, [s.request_id for s in runner.states() if s.step is Step.DONE])


def _refusal(reply: HoldingsRectified) -> str | None:
    return DOES_NOT_FIT if reply.refused is not None and reply.misfits else reply.refused


def _counts(rules: Rules, system: str, held: HeldItem) -> bool:
    """Whether what the system says of this item counts: it holds the class, and an open anchor is the owner's to say."""
    is_holder = system in rules.holders.get(held.data_class, ())
    return is_holder and (not held.is_open or rules.owners.get(held.data_class) == system)


def _warn_of_open(state: State, items: Sequence[Item], rules: Rules, now: datetime) -> None:
    """An anchor that is open past its longest time holds nothing up any more. Its owner must be asked why it is open."""
    open_names = {KeyRef(item.held.data_class, item.held.anchor) for item in items if item.held.is_open}
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
