"""What replies of participants do to the sagas: a batch of one type is a few statements."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from event_contracts.privacy import (
    DescribeHoldings,
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
from privacy_service.sagas.definition import DEFINITIONS, Described, Erased, Exported, Notified, Rectified, Step
from privacy_service.sagas.machine import Rules, State, must_reply
from privacy_service.sagas.runner import SagaRunner
from servicekit import Kit, Received, Tx, get_log
from servicekit.core.logs import code
from servicekit.core.metrics import OPEN_TOO_LONG

# Why a request ends whose corrections do not fit the lane of the order's carrier.
DOES_NOT_FIT: Final = "does_not_fit"
log = get_log("rights")


async def on_described(kit: Kit, tx: Tx, received: Sequence[Received[HoldingsDescribed]]) -> None:
    """Parts of replies to the question what is held. A saga goes on when all parts of all systems are there."""
    states = await store.lock_of_questions(tx, {each.event.request_id for each in received})
    runner = await SagaRunner.of(kit, tx, states)
    by_question = {
        state.question_id: state
        for state in states
        if state.question_id is not None and DEFINITIONS[state.step].command is DescribeHoldings
    }
    parts = []
    for event in (each.event for each in received):
        state = by_question.get(event.request_id)
        if state is None or state.subject_id != event.subject_id:
            continue
        rules = runner.rules(state)
        if event.system in must_reply(state, rules):
            kept = tuple(item for item in event.items if _counts(rules, event.system, item))
            note_out_of_scope(event.system, "described", len(event.items) - len(kept))
            parts.append(event.model_copy(update={"items": kept}))
    if not parts:
        return
    await replies_store.save_parts(tx, parts)
    complete = await replies_store.read_complete(tx, {part.request_id for part in parts})
    ready = [
        question
        for question, systems in complete.items()
        if must_reply(state := by_question[question], runner.rules(state)) <= systems
    ]
    items = await replies_store.read_items(tx, ready)
    manual = await holds_store.read_manual_holds(tx, [by_question[question].subject_id for question in ready])
    for question, systems in complete.items():
        state = by_question[question]
        _warn_of_open(state, items.get(question, ()), runner.rules(state), kit.clock.now())
        message = Described(question, systems, items.get(question, ()), manual.get(state.subject_id, ()))
        runner.give(state, message)
    await runner.save(tx)


async def on_erased(kit: Kit, tx: Tx, received: Sequence[Received[HoldingsErased]]) -> None:
    """A reply about another subject than the command's counts nowhere; nor does one to no command of ours."""
    states = await store.lock_of_revocations(tx, {each.event.request_id for each in received})
    runner = await SagaRunner.of(kit, tx, states)
    by_revocation = {(state.revocation_id, state.subject_id): state for state in states}
    for event in (each.event for each in received):
        state = by_revocation.get((event.request_id, event.subject_id))
        if state is not None:
            runner.give(state, Erased(event.system, event.number, event.erased, event.left))
    await runner.save(tx)


async def on_notified(kit: Kit, tx: Tx, received: Sequence[Received[RecipientsTold]]) -> None:
    """What recipients reply after the end amends the certificate."""
    states = await store.lock_of_revocations(tx, {each.event.request_id for each in received})
    runner = await SagaRunner.of(kit, tx, states)
    by_revocation = {(state.revocation_id, state.subject_id): state for state in states}
    kept = []
    for event in (each.event for each in received):
        state = by_revocation.get((event.request_id, event.subject_id))
        if state is not None and event.system in runner.rules(state).disclosers:
            kept.append((state, event))
        elif state is not None:
            note_out_of_scope(event.system, "told", 1)
    changed = await replies_store.save_recipients(tx, kept)
    for state, event in kept:
        runner.give(state, Notified(event.system))
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
    is_holder = system in rules.systems_holding.get(held.data_class, ())
    return is_holder and (not held.is_open or rules.owners.get(held.data_class) == system)


def _warn_of_open(state: State, items: Sequence[Item], rules: Rules, now: datetime) -> None:
    """An anchor that is open past its longest time holds nothing up any more. Its owner must be asked why it is open."""
    open_names = {KeyRef(item.held.data_class, item.held.anchor) for item in items if item.held.is_open}
    for hold in state.holds:
        if hold.basis is Basis.OPEN_ANCHOR and hold.until is not None and hold.until <= now and hold.name in open_names:
            owner = rules.owners[hold.data_class]
            OPEN_TOO_LONG.labels(owner).inc()
            log.warning("anchor_open_too_long", owner=code(owner), data_class=code(hold.data_class), anchor=hold.anchor)
