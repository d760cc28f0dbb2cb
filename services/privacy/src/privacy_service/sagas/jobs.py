"""This service's own work for the sagas, in the role `jobs`. It leases due steps in batches and calls the vault once per batch.

Any number of workers may run. When a step was begun and not ended (a kill, the vault is unavailable), it is done again after
its lease is over. The vault then gives the same reply again, and only the worker with the lease may use it.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Final
from uuid import UUID, uuid4

from msgspec.structs import replace

from event_contracts.vault_api import KeyOutcome
from evidence_log import handlers as evidence
from evidence_log.leaves import KeyFact, Leaf, key_destructions
from privacy_service import vault_revocations
from privacy_service.export import make_ready, read_end
from privacy_service.history.domain import HistoryEntry
from privacy_service.history.handlers import record
from privacy_service.holds.domain import KeyRef, names_of
from privacy_service.sagas import replies_store, store
from privacy_service.sagas.batches import in_batches, put_off
from privacy_service.sagas.certifying import facts_of
from privacy_service.sagas.definition import DEFINITIONS, Destroyed, Drained, Fenced, Result, Step, Timeout, Worked
from privacy_service.sagas.machine import Due, State, backoff
from privacy_service.sagas.policies import rules_of
from privacy_service.sagas.runner import JOB, SagaRunner
from privacy_service.vault_revocations import (
    DOUBTS,
    NOT_TO_BLAME,
    Revocation,
    Revoked,
    may_be_to_blame,
)
from servicekit import Job, Kit, Tx, get_log
from servicekit.core.faults import declare, faultpoint
from servicekit.core.logs import code
from servicekit.core.metrics import SET_ASIDE

log = get_log("rights")
BATCH: Final = 500
CERTIFICATES: Final = 100
# A lease lasts so many of the settings' pauses: longer than the vault usually takes, as short as a restart may wait.
LEASE_PAUSES: Final = 5
EVERY: Final = timedelta(milliseconds=200)
# The steps whose time comes without work of ours: waits, holds to check, commands to send again.
_TIMED: Final = tuple(
    each.step
    for each in DEFINITIONS.values()
    if each.timeout in (Timeout.ERASURE_WAIT, Timeout.HOLD_END) or each.command is not None
)

declare("rights.leased", "rights.vault_answered", "rights.certified", "rights.packaged")

Work = Callable[[Kit, Sequence[State]], Awaitable[tuple[dict[UUID, Result], list[Revoked]]]]


async def carry_on(kit: Kit) -> None:
    """One run: everything that is due, step by step. When a part fails, the others still run, and then the run fails."""
    due, is_amended = await store.read_due(kit.db, kit.clock.now())
    parts = [part for part, steps in _PARTS.items() if due & steps]
    if is_amended:
        parts.append(_amend)
    failed: Exception | None = None
    for part in parts:
        try:
            while await part(kit):
                pass
        except Exception as error:  # noqa: BLE001 - whatever it is, the other parts go on
            log.error("rights_step_failed", step=code(part.__name__), error=error)
            failed = error
    if failed is not None:
        raise failed


async def _fence(kit: Kit) -> bool:
    return await _with_vault(kit, Step.FENCE, _call_revoke)


async def _drain(kit: Kit) -> bool:
    return await _with_vault(kit, Step.DRAIN, _call_drained)


async def _destroy(kit: Kit) -> bool:
    return await _with_vault(kit, Step.DESTROY, _call_destroy)


async def _with_vault(kit: Kit, step: Step, work: Work) -> bool:
    """Lease the sagas that are due at a step, call the vault once for all, and give them the result. True if there may be more."""
    rules, lease_id, now = rules_of(kit, kit.policy), uuid4(), kit.clock.now()

    async def take(tx: Tx) -> list[State]:
        states = await store.lock_due(tx, [step], now, BATCH)
        if states:
            await store.lease(tx, states, lease_id, now + rules.command_retry * LEASE_PAUSES)
        return states

    leased = await kit.run_tx(f"lease {step}", take)
    if not leased:
        return False
    faultpoint("rights.leased")
    try:
        await _call_vault(kit, step, work, lease_id, leased)
    except Exception as error:
        again = kit.clock.now() + max(backoff(state, rules) for state in leased)
        if not await may_be_to_blame(kit, error, max(state.attempts for state in leased)):
            await kit.run_tx(f"give back {step}", lambda tx: store.give_back(tx, lease_id, again))
            raise
        log.warning("batch_failed", work=code(step), error=error, taken=len(leased))
        await _call_alone(kit, step, work, lease_id, leased, again)
    return len(leased) == BATCH


async def _call_alone(
    kit: Kit, step: Step, work: Work, lease_id: UUID, leased: Sequence[State], again: datetime
) -> None:
    """Call the vault for each alone, and put off those that fail. After `DOUBTS` failures as in an outage, give back the rest."""
    doubts = 0
    for state in leased:
        try:
            await _call_vault(kit, step, work, lease_id, [state])
        except Exception as error:
            await put_off(kit, step, [state], error)
            doubts += isinstance(error, NOT_TO_BLAME)
            if doubts >= DOUBTS:
                await kit.run_tx(f"give back {step}", lambda tx: store.give_back(tx, lease_id, again))
                raise


async def _call_vault(kit: Kit, step: Step, work: Work, lease_id: UUID, leased: Sequence[State]) -> None:
    messages, revoked = await work(kit, leased)
    faultpoint("rights.vault_answered")

    async def carry(tx: Tx) -> None:
        locked = await store.lock_leased(tx, lease_id, leased)
        mine = [state for state in locked if state.revocation_id in messages]
        await _save_vault_reply(kit, tx, mine, revoked, step)
        runner = await SagaRunner.of(kit, tx, mine)
        for state in mine:
            runner.give(state, messages[state.revocation_id])
        await runner.save(tx)

    await kit.run_tx(f"carry {step}", carry)


async def _call_revoke(kit: Kit, states: Sequence[State]) -> tuple[dict[UUID, Result], list[Revoked]]:
    revocations = [revocation for state in states for revocation in revocations_of(state)]
    replies = await vault_revocations.revoke(kit, revocations)
    numbers: dict[UUID, int] = defaultdict(int)
    for reply in replies:
        numbers[reply.request_id] = max(numbers[reply.request_id], reply.number)
    return {state.revocation_id: Fenced(numbers[state.revocation_id]) for state in states}, replies


def revocations_of(state: State) -> list[Revocation]:
    """What the vault must fence: all keys of some classes, or exactly those of a retention request, one class at a time."""
    held = tuple((name.data_class, name.anchor) for name in sorted(names_of(state.holds)))
    if state.scope.names is None:
        return [Revocation(state.revocation_id, state.subject_id, state.scope.data_classes, None, held)]
    by_class: dict[str, list[KeyRef]] = defaultdict(list)
    for name in sorted(state.scope.names):
        by_class[name.data_class].append(name)
    return [
        Revocation(state.revocation_id, state.subject_id, (data_class,), tuple(name.anchor for name in names), held)
        for data_class, names in by_class.items()
    ]


async def _call_drained(kit: Kit, states: Sequence[State]) -> tuple[dict[UUID, Result], list[Revoked]]:
    holders = await vault_revocations.drained(kit, max(state.number for state in states))
    return {
        state.revocation_id: Drained(frozenset(h.system for h in holders if h.done < state.number)) for state in states
    }, []


async def _call_destroy(kit: Kit, states: Sequence[State]) -> tuple[dict[UUID, Result], list[Revoked]]:
    replies = await vault_revocations.destroy(kit, [state.revocation_id for state in states])
    numbers = {reply.request_id: reply.number for reply in replies}
    return {state.revocation_id: Destroyed(numbers.get(state.revocation_id, 0)) for state in states}, replies


async def _save_vault_reply(kit: Kit, tx: Tx, states: Sequence[State], revoked: Sequence[Revoked], step: Step) -> None:
    of = {state.revocation_id: state for state in states}
    mine = [reply for reply in revoked if reply.request_id in of]
    keys: dict[tuple[UUID, UUID], tuple[State, KeyOutcome]] = {}
    for reply in mine:
        for key in reply.keys:
            state = of[reply.request_id]
            # What is gone before this request fenced it, by another one or by itself before this database was restored, goes on
            # record with the reply to `destroy`, as the rest does.
            known = replace(key, state="fenced") if step is not Step.DESTROY and key.state == "destroyed" else key
            keys[state.request_id, key.key_id] = (state, known)
    new = await replies_store.save_keys(tx, list(keys.values())) if keys else set()
    if step is not Step.DESTROY:
        return
    horizons = [(of[reply.request_id], reply.horizon) for reply in mine if reply.horizon and reply.keys]
    if horizons:
        await replies_store.save_horizons(tx, horizons)
    leaves: list[Leaf] = []
    for reply in mine:
        state = of[reply.request_id]
        gone = [
            KeyFact(key.key_id, state.subject_id, key.data_class, key.anchor, key.fingerprint)
            for key in reply.keys
            # A second round's reply names those of the first as well, which are on record.
            if key.state == "destroyed" and (state.request_id, key.key_id) in new
        ]
        leaves += key_destructions(state.request_id, reply.number, gone, kit.clock.now())
    await evidence.append(tx, leaves)


async def _time(kit: Kit) -> bool:
    """Waits that are over, holds to check again, and commands without a reply."""

    async def work(tx: Tx, limit: int, taken: list[State]) -> None:
        taken += await store.lock_due(tx, _TIMED, kit.clock.now(), limit)
        if taken:
            runner = await SagaRunner.of(kit, tx, taken)
            runner.give_all(Due())
            await runner.save(tx)

    return await in_batches(kit, "rights_time", BATCH, work, partial(put_off, kit, "rights_time"))


async def _certify(kit: Kit) -> bool:
    """Requests whose subjects have all come to this step get their certificate, or an amendment of it, and end."""

    async def work(tx: Tx, limit: int, taken: list[State]) -> None:
        due = await store.lock_together(tx, Step.CERTIFY, kit.clock.now(), limit)
        if due:
            ids = {state.request_id for state in due}
            taken += await store.lock_of_requests(tx, ids)
            await _issue(kit, tx, sorted(ids))
            runner = await SagaRunner.of(kit, tx, taken)
            runner.give_all(Worked(Step.CERTIFY))
            await runner.save(tx)
            faultpoint("rights.certified")

    return await in_batches(kit, "certify", CERTIFICATES, work, partial(put_off, kit, "certify"))


async def _amend(kit: Kit) -> bool:
    """Certificates to amend, since a recipient has replied after the end."""

    async def work(tx: Tx, limit: int, taken: list[UUID]) -> None:
        taken += await replies_store.take_amended(tx, kit.clock.now(), limit)
        if taken:
            await _issue(kit, tx, taken)

    async def later(ids: list[UUID], error: Exception) -> None:
        SET_ASIDE.labels("amend").inc()
        log.error("set_aside", work=code("amend"), request_id=ids[0], error=error)
        until = kit.clock.now() + rules_of(kit, kit.policy).hold_check
        await kit.run_tx("put_off", lambda tx: replies_store.mark_amended(tx, ids, until))

    return await in_batches(kit, "amend", CERTIFICATES, work, later)


async def _issue(kit: Kit, tx: Tx, request_ids: Sequence[UUID]) -> None:
    requests = await store.read_requests(tx, request_ids)
    await evidence.issue(kit, tx, await facts_of(kit, tx, requests))
    amended = [HistoryEntry(row["request_id"], "amended") for row in requests if row["status"] == "completed"]
    await record(kit, tx, amended)


async def _package(kit: Kit) -> bool:
    """Exports whose parts have all arrived may be fetched."""

    async def work(tx: Tx, limit: int, taken: list[State]) -> None:
        due = await store.lock_together(tx, Step.PACKAGE, kit.clock.now(), limit)
        taken += await store.lock_of_requests(tx, {state.request_id for state in due}) if due else []
        for request_id in {state.request_id for state in taken}:
            await make_ready(kit, tx, request_id)
        faultpoint("rights.packaged")
        if taken:
            runner = await SagaRunner.of(kit, tx, taken)
            runner.give_all(Worked(Step.PACKAGE))
            await runner.save(tx)

    return await in_batches(kit, "package", CERTIFICATES, work, partial(put_off, kit, "package"))


async def _watch_exports(kit: Kit) -> bool:
    """An access request ends when its package was fetched, or has expired, and its key is destroyed."""
    rules = rules_of(kit, kit.policy)

    async def work(tx: Tx, limit: int, taken: list[State]) -> None:
        now = kit.clock.now()
        taken += await store.lock_due(tx, [Step.READY], now, limit)
        runner = await SagaRunner.of(kit, tx, taken)
        waiting = []
        for state in taken:
            if await read_end(tx, state.request_id) is not None:
                runner.give(state, Worked(Step.READY))
            else:
                waiting.append(state)
        if taken:
            await runner.save(tx)
        if waiting:
            await store.postpone(tx, waiting, now + rules.command_retry)

    return await in_batches(kit, "watch_exports", CERTIFICATES, work, partial(put_off, kit, "watch_exports"))


_PARTS: Final[Mapping[Callable[[Kit], Awaitable[bool]], frozenset[Step]]] = {
    _fence: frozenset([Step.FENCE]),
    _drain: frozenset([Step.DRAIN]),
    _destroy: frozenset([Step.DRAIN, Step.DESTROY]),  # what was drained just now goes in the same run
    _time: frozenset(_TIMED),
    _certify: frozenset([Step.CERTIFY]),
    _package: frozenset([Step.PACKAGE]),
    _watch_exports: frozenset([Step.READY]),
}
JOBS: Final = (Job(JOB, EVERY, carry_on),)
