"""What people do to a request: open it and decide it. Each is one transaction that locks the request."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final
from uuid import UUID, uuid4

from pydantic import BaseModel

from event_contracts.account import ContactCorrection, IdentityCorrection, is_birth_date
from event_contracts.order import DeliveryCorrection
from event_contracts.personal import PersonalData, Sealed
from privacy_service.export import end_export
from privacy_service.history.domain import CUSTOMER, SYSTEM, HistoryEntry, Person
from privacy_service.history.handlers import record
from privacy_service.holds.domain import KeyRef, Scope
from privacy_service.inventory.handlers import check_known
from privacy_service.requests import store
from privacy_service.requests.domain import (
    NO_DENIAL,
    Check,
    Extension,
    Reason,
    Regime,
    Request,
    Status,
    due_at,
)
from privacy_service.sagas import policies, rectifications_store
from privacy_service.sagas import store as saga_store
from privacy_service.sagas.definition import STEPS, Kind
from privacy_service.sagas.machine import Approved, Begun, State, Stopped
from privacy_service.sagas.runner import SagaRunner
from servicekit import Kit, Tx
from servicekit.core.errors import Invalid, KeyReused, NotFound
from servicekit.core.faults import declare, faultpoint

MOST_SUBJECTS: Final = 100
_NOBODY: Final = UUID(int=0)

declare("rights.sealed")


@dataclass(frozen=True, slots=True)
class Corrections:
    """What support typed in for a person: of their account part by part, or of the delivery of `order_id`.

    Its repr shows nothing.
    """

    identity: IdentityCorrection | None = None
    contact: ContactCorrection | None = None
    order_id: UUID | None = None
    delivery: DeliveryCorrection | None = None

    @property
    def classes(self) -> list[str]:
        """The data classes that are corrected."""
        given = (self.identity, self.contact, self.delivery)
        return [str(part.data_class) for part in given if part is not None]

    def __repr__(self) -> str:
        return "<Corrections>"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request as it was asked for in `body`; `check` None: the identity is to be confirmed first."""

    kind: Kind
    subject_ids: Sequence[UUID]
    data_classes: tuple[str, ...] | None = None
    check: Check | None = None
    regime: Regime = Regime.GDPR
    corrections: Corrections | None = None
    body: BaseModel | None = None


async def open_request(kit: Kit, by: Person, request_id: UUID, wanted: Wanted) -> tuple[Request, bool]:
    """Opens it, with True; or finds it, with False, when the same person opened it under this id before. Raises `Invalid`;
    `NoMatch` when staff ask for somebody whom no event names; `Conflict` when one of them has one of this kind; `KeyReused` when
    the id is another request's, `Gone` when what it corrected is erased since; `Fenced` when nobody is left to rectify."""
    _check(kit, wanted)
    found = await _opened_before(kit, by, request_id, wanted)
    if found is not None:
        return found, False
    if by.role != CUSTOMER:
        await check_known(kit, wanted.subject_ids)
    await store.refuse_second(kit.db, request_id, wanted.kind, wanted.subject_ids)
    sealed, digest = await _sealed(kit, wanted)
    faultpoint("rights.sealed")
    request = _new(kit, by, request_id, wanted)
    subjects = sorted(set(wanted.subject_ids))
    states = [_state(kit, request, subject, alone=len(subjects) == 1) for subject in subjects]

    async def work(tx: Tx) -> bool:
        if not await store.insert_request(tx, request, digest):
            return False
        await store.lock_openings(tx, wanted.kind, subjects)
        await store.refuse_second(tx, request_id, wanted.kind, subjects)
        await policies.keep(tx, kit.policy)
        await saga_store.insert_subjects(tx, states)
        if wanted.corrections is not None:
            await _write_corrections(tx, request_id, subjects[0], wanted.corrections, sealed)
        lines = [HistoryEntry(request_id, "opened", by)]
        if request.check is not None:
            lines += [HistoryEntry(request_id, "identity_confirmed", by, each, request.check) for each in subjects]
        await record(kit, tx, lines)
        await _begin(kit, tx, request, states)
        return True

    if await kit.run_tx("open_request", work):
        return request, True
    found = await _opened_before(kit, by, request_id, wanted)
    assert found is not None
    return found, False


async def _begin(kit: Kit, tx: Tx, request: Request, states: Sequence[State]) -> None:
    """A preview of an erasure begins at once, everything else when the identity is confirmed."""
    if request.kind is Kind.ERASURE or request.status is Status.RUNNING:
        runner = await SagaRunner.of(kit, tx, states)
        runner.give_all(Begun())
        await runner.save(tx)


def _check(kit: Kit, wanted: Wanted) -> None:
    if wanted.kind is Kind.RETENTION:
        raise Invalid("Retention requests are made by the retention run. Ask for one of the other kinds.")
    if not wanted.subject_ids or len(wanted.subject_ids) > MOST_SUBJECTS:
        raise Invalid(f"A request is about 1 to {MOST_SUBJECTS} people. Name them.")
    if wanted.data_classes is not None:
        if wanted.kind is not Kind.ERASURE:
            raise Invalid("Only an erasure is limited to data classes. Leave them out.")
        if not wanted.data_classes or not set(wanted.data_classes) <= set(kit.policy.classes):
            raise Invalid("The data classes are not classes of the policy. Name those that are.")
    given = wanted.corrections or Corrections()
    if bool(given.classes) != (wanted.kind is Kind.RECTIFICATION):
        raise Invalid("A rectification says what is right, and nothing else does. Correct the request.")
    born = None if given.identity is None else given.identity.birth_date
    if born is not None and not is_birth_date(born, kit.clock.now().date()):
        raise Invalid("The birth date is not that of a living person. Correct it or leave it out.")
    if given.delivery is not None and len(given.classes) > 1:
        raise Invalid("A rectification is about the account or about one order. Open one for each.")
    if wanted.kind is Kind.RECTIFICATION and len(set(wanted.subject_ids)) != 1:
        raise Invalid("A rectification is about one person. Open one for each.")


async def _sealed(kit: Kit, wanted: Wanted) -> tuple[dict[type[PersonalData], Sealed[Any]], bytes | None]:
    """What support typed in, by its model, and the digest of the whole body: it is never stored in clear."""
    parts = _parts(wanted)
    if not parts:
        return {}, None
    sealed = await kit.seal_many(parts)
    digest = None if wanted.body is None else await kit.body_digest(parts[0], wanted.body)
    return {type(part): token for (part, _, _), token in zip(parts, sealed, strict=True)}, digest


def _parts(wanted: Wanted) -> list[tuple[PersonalData, UUID, UUID]]:
    """The corrections, each with its subject and anchor."""
    corrections = wanted.corrections or Corrections()
    me = wanted.subject_ids[0]
    given = [(corrections.identity, me), (corrections.contact, me), (corrections.delivery, corrections.order_id)]
    return [(part, me, anchor) for part, anchor in given if part is not None and anchor is not None]


async def _write_corrections(
    tx: Tx, request_id: UUID, subject: UUID, given: Corrections, sealed: Mapping[type[PersonalData], Sealed[Any]]
) -> None:
    if given.order_id is not None:
        await rectifications_store.write_delivery_correction(
            tx, request_id, subject, given.order_id, sealed[DeliveryCorrection]
        )
    else:
        parts = sealed.get(IdentityCorrection), sealed.get(ContactCorrection)
        await rectifications_store.write_rectification(tx, request_id, subject, *parts)


def _new(kit: Kit, by: Person, request_id: UUID, wanted: Wanted) -> Request:
    now = kit.clock.now()
    given = wanted.data_classes if wanted.corrections is None else wanted.corrections.classes
    classes = None if given is None else tuple(sorted(set(given)))
    due = due_at(now, wanted.regime)
    request = Request(request_id, wanted.kind, Status.OPEN, by, now, due, classes, wanted.regime)
    return request if wanted.check is None else request.confirmed(wanted.check)


def _state(
    kit: Kit, request: Request, subject_id: UUID, *, alone: bool, names: frozenset[KeyRef] | None = None
) -> State:
    # Several subjects are destroyed one by one, so each has a revocation of its own.
    revocation_id = request.request_id if alone else uuid4()
    scope = Scope(request.data_classes, names)
    step, policy = STEPS[request.kind][0], kit.policy.digest
    return State(request.request_id, subject_id, revocation_id, request.kind, scope, step, request.opened_at, policy)


async def _opened_before(kit: Kit, by: Person, request_id: UUID, wanted: Wanted) -> Request | None:
    """The request of this id, when it was asked for in the same words. Raises `KeyReused`, `Gone`."""
    found = await store.read_request(kit.db, request_id)
    if found is None:
        return None
    subjects = {state.subject_id for state in await saga_store.read_states(kit.db, request_id)}
    asked = _new(kit, by, request_id, wanted)
    # The check may have been recorded after the request was opened.
    alike = (found.kind, found.opener, found.data_classes, found.regime, found.check if wanted.check else None)
    if alike != (asked.kind, by, asked.data_classes, asked.regime, wanted.check) or subjects != set(wanted.subject_ids):
        raise KeyReused
    parts = _parts(wanted)
    if parts and wanted.body is not None:
        await kit.check_retry(await store.read_body_digest(kit.db, request_id), wanted.body, parts[0])
    return found


async def open_retentions(kit: Kit, tx: Tx, names: "dict[UUID, Sequence[KeyRef]]") -> list[UUID]:
    """Retention requests within the caller's transaction, one for each person: they run at once, and end these names."""
    now = kit.clock.now()
    states = []
    for subject_id, ending in names.items():
        due = due_at(now, Regime.GDPR)
        nobody = Person(_NOBODY, SYSTEM)
        request = Request(uuid4(), Kind.RETENTION, Status.RUNNING, nobody, now, due)
        await store.insert_request(tx, request)
        states.append(_state(kit, request, subject_id, alone=True, names=frozenset(ending)))
    await policies.keep(tx, kit.policy)
    await saga_store.insert_subjects(tx, states)
    await record(kit, tx, [HistoryEntry(state.request_id, "opened") for state in states])
    runner = await SagaRunner.of(kit, tx, states)
    runner.give_all(Begun())
    await runner.save(tx)
    return [state.request_id for state in states]


async def confirm(kit: Kit, by: Person, request_id: UUID, check: Check) -> Request:
    """The identity was checked. Raises `NotFound`, `Conflict`."""

    async def work(tx: Tx, request: Request) -> Request:
        confirmed = request.confirmed(check)
        await store.update_requests(tx, [confirmed])
        states = await saga_store.lock_of_requests(tx, [request_id])
        checked = partial(HistoryEntry, request_id, "identity_confirmed", by, reason=check)
        await record(kit, tx, [checked(subject_id=state.subject_id) for state in states])
        if confirmed.status is Status.RUNNING:
            await _begin(kit, tx, confirmed, states)
        return confirmed

    return await _decide(kit, request_id, work)


async def approve_all(kit: Kit, approvals: Sequence[tuple[Person, UUID]]) -> list[Request]:
    """All of these or none. Raises `NotFound`, `Conflict` for the second of two, `Forbidden` for the opener and their role."""

    async def work(tx: Tx) -> list[Request]:
        requests = await store.lock_requests(tx, {request_id for _, request_id in approvals})
        for by, request_id in approvals:
            if request_id not in requests:
                raise NotFound
            requests[request_id] = requests[request_id].approved(by)
        await store.update_requests(tx, requests.values())
        await record(kit, tx, [HistoryEntry(request_id, "approved", by) for by, request_id in approvals])
        runner = await SagaRunner.of(kit, tx, await saga_store.lock_of_requests(tx, requests))
        runner.give_all(Approved())
        await runner.save(tx)
        return [requests[request_id] for _, request_id in approvals]

    return await kit.run_tx("approve_requests", work)


async def deny(kit: Kit, by: Person, request_id: UUID, reason: Reason) -> Request:
    """Raises `NotFound`, `Conflict`."""
    if reason in NO_DENIAL:
        raise Invalid("A denial has a reason of its own. Name one.")
    return await _stop(kit, by, request_id, "denied", reason, lambda request, now: request.denied(reason, now))


async def cancel(kit: Kit, by: Person, request_id: UUID, owner: UUID | None = None) -> Request:
    """Until the point of no return. With `owner` only that person's own. Raises `NotFound`, `Conflict`."""
    return await _stop(kit, by, request_id, "cancelled", None, lambda request, now: request.cancelled(now), owner)


async def extend(kit: Kit, by: Person, request_id: UUID, why: Extension, until: datetime | None) -> Request:
    """The term ends later. Raises `NotFound`, `Conflict`, `Invalid`."""

    async def work(tx: Tx, request: Request) -> Request:
        extended = request.extended(why, until, kit.clock.now())
        await store.update_requests(tx, [extended])
        await record(kit, tx, [HistoryEntry(request_id, "extended", by, reason=why)])
        return extended

    return await _decide(kit, request_id, work)


async def _stop(
    kit: Kit,
    by: Person,
    request_id: UUID,
    what: str,
    reason: Reason | None,
    stopped: Callable[[Request, datetime], Request],
    owner: UUID | None = None,
) -> Request:
    async def work(tx: Tx, request: Request) -> Request:
        states = await saga_store.lock_of_requests(tx, [request_id])
        if owner is not None and not is_own(request, states, owner):
            raise NotFound
        after = stopped(request, kit.clock.now())
        await store.update_requests(tx, [after])
        await record(kit, tx, [HistoryEntry(request_id, what, by, reason=reason)])
        await rectifications_store.forget_rectifications(tx, [request_id])
        await end_export(tx, request_id, kit.clock.now())
        runner = await SagaRunner.of(kit, tx, states)
        runner.give_all(Stopped())
        await runner.save(tx)
        return after

    return await _decide(kit, request_id, work)


async def _decide(kit: Kit, request_id: UUID, work: Callable[[Tx, Request], Awaitable[Request]]) -> Request:
    """Decide with the request locked: the second of two sees what the first has decided."""

    async def locked(tx: Tx) -> Request:
        requests = await store.lock_requests(tx, [request_id])
        if not requests:
            raise NotFound
        return await work(tx, requests[request_id])

    return await kit.run_tx("decide_request", locked)


def is_own(request: Request, states: Sequence[State], owner: UUID) -> bool:
    """About nobody else, and opened by the person or for them."""
    return request.kind is not Kind.RETENTION and [state.subject_id for state in states] == [owner]
