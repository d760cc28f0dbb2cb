"""Rights requests over HTTP: staff open and decide them, customers their own. A caller that may not see one gets 404."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Final, TypeVar
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response

from event_contracts.account import ContactCorrection
from event_contracts.order import Consignee, DeliveryCorrection
from event_contracts.personal import PersonalData
from evidence_log.handlers import is_ready, read_certificate
from privacy_service.history import store as history_store
from privacy_service.history.domain import CUSTOMER, Person
from privacy_service.holds import handlers as holds
from privacy_service.holds import store as holds_store
from privacy_service.holds.domain import Basis, ManualHold
from privacy_service.inventory.access_records import record_access
from privacy_service.inventory.http import LOOKS
from privacy_service.requests import handlers, store
from privacy_service.requests.domain import Check, Request, Status
from privacy_service.requests.handlers import Corrections, Wanted
from privacy_service.requests.schemas import (
    DenialBody,
    ExtensionBody,
    HoldBody,
    HoldId,
    IdentityBody,
    OwnRequestBody,
    Preview,
    RectificationBody,
    RequestBody,
    RequestState,
    RequestSummary,
    preview_of,
    state_of,
    summary,
)
from privacy_service.sagas import replies_store
from privacy_service.sagas import store as saga_store
from privacy_service.sagas.definition import Kind
from privacy_service.sagas.machine import State
from privacy_service.sagas.policies import rules_by_policy
from servicekit import Cursor, Customer, Kit, Limit, Page, Paging, Staff, Tx, customer, limited, new_id, paging, staff
from servicekit.core.batcher import Batcher
from servicekit.core.errors import Conflict, Forbidden, NotFound

P = TypeVar("P", bound=PersonalData)
APPROVALS: Final = 100
OWN_REQUESTS: Final = Limit("own_requests", 10, 3600)
_staff, _customer = staff("support", "privacy_officer"), customer()
_Staff = Annotated[Staff, Depends(_staff)]
_Customer = Annotated[Customer, Depends(_customer)]
_StaffsId = Annotated[UUID, Depends(new_id(_staff))]
_CustomersId = Annotated[UUID, Depends(new_id(_customer))]


def make_router(kit: Kit) -> APIRouter:
    """The routes of the role `api`."""
    router = APIRouter()
    _add_staff_routes(router, kit)
    _add_decisions(router, kit)
    _add_own_routes(router, kit)
    _add_holds(router, kit)
    return router


def _add_staff_routes(router: APIRouter, kit: Kit) -> None:
    @router.post("/v1/requests", status_code=201, responses={200: {"model": RequestState}})
    async def open_request(body: RequestBody, who: _Staff, request_id: _StaffsId, response: Response) -> RequestState:
        """Open a request; 200 with the same when it was opened under this Idempotency-Key before."""
        wanted = _wanted(body, body.subject_ids, body.identity_check)
        request, fresh = await handlers.open_request(kit, _person(who), request_id, wanted)
        if not fresh:
            response.status_code = 200
        return await _state(kit, request)

    @router.get("/v1/requests")
    async def list_requests(
        who: _Staff, wanted: Annotated[Paging, Depends(paging)], status: Annotated[Status | None, Query()] = None
    ) -> Page[RequestSummary]:
        """All requests, in the order of opening."""
        requests = await store.list_requests(kit.db, status, wanted)
        cursors = [Cursor(request.opened_at, request.request_id) for request in requests]
        return wanted.page([summary(request) for request in requests], cursors)

    @router.get("/v1/requests/{request_id}")
    async def show_request(request_id: UUID, who: _Staff) -> RequestState:
        """Where it stands, who is waited for, what is held and outstanding, and its history."""
        return await _state(kit, await _found(kit, request_id))

    @router.get("/v1/requests/{request_id}/preview", openapi_extra=limited(LOOKS))
    async def preview(request_id: UUID, who: _Staff) -> Preview:
        """What would go, what stays, why and until when. The access is recorded."""
        await _found(kit, request_id)
        states = await saga_store.read_states(kit.db, request_id)
        subjects = [state.subject_id for state in states]

        async def record(tx: Tx) -> None:
            await record_access(tx, who.staff_id, who.role, kit.clock.now(), "preview", subjects)

        await kit.run_tx("preview", record)
        return await _preview(kit, states)


def _add_decisions(router: APIRouter, kit: Kit) -> None:
    # Hundreds are approved in a row after a breach: those that come while others are written are written together.
    approvals = Batcher(partial(handlers.approve_all, kit), (NotFound, Conflict, Forbidden), APPROVALS)

    @router.post("/v1/requests/{request_id}/identity")
    async def confirm(request_id: UUID, body: IdentityBody, who: _Staff) -> RequestSummary:
        """Record that the person's identity was checked."""
        return summary(await handlers.confirm(kit, _person(who), request_id, body.check))

    @router.post("/v1/requests/{request_id}/approve")
    async def approve(request_id: UUID, who: _Staff) -> RequestSummary:
        """Approve an erasure, as another person of another role than who opened it; 409 when it was decided already."""
        return summary(await approvals.answer((_person(who), request_id)))

    @router.post("/v1/requests/{request_id}/deny")
    async def deny(request_id: UUID, body: DenialBody, who: _Staff) -> RequestSummary:
        """Deny it with a reason of the Data Rights Protocol; 409 once it was approved."""
        return summary(await handlers.deny(kit, _person(who), request_id, body.reason))

    @router.post("/v1/requests/{request_id}/extend")
    async def extend(request_id: UUID, body: ExtensionBody, who: _Staff) -> RequestSummary:
        """Extend its term, once, with a reason, by two months (CCPA: 45 days) at the most; 409 when that is too late."""
        return summary(await handlers.extend(kit, _person(who), request_id, body.reason, body.until))

    @router.post("/v1/requests/{request_id}/cancel")
    async def cancel(request_id: UUID, who: _Staff) -> RequestSummary:
        """Cancel it; 409 once the first key is fenced."""
        return summary(await handlers.cancel(kit, _person(who), request_id))


def _add_own_routes(router: APIRouter, kit: Kit) -> None:
    @router.post(
        "/v1/me/requests",
        status_code=201,
        responses={200: {"model": RequestState}},
        openapi_extra=limited(OWN_REQUESTS),
    )
    async def open_own(
        body: OwnRequestBody, who: _Customer, request_id: _CustomersId, response: Response
    ) -> RequestState:
        """Ask for something about yourself; an erasure is approved by our staff."""
        wanted = _wanted(body, [who.subject_id], Check.SIGNED_IN)
        request, fresh = await handlers.open_request(kit, _customer_person(who), request_id, wanted)
        if not fresh:
            response.status_code = 200
        return await _state(kit, request)

    @router.get("/v1/me/requests")
    async def list_own(who: _Customer, wanted: Annotated[Paging, Depends(paging)]) -> Page[RequestSummary]:
        """Your own requests, in the order of opening."""
        requests = await store.list_own_requests(kit.db, who.subject_id, wanted)
        cursors = [Cursor(request.opened_at, request.request_id) for request in requests]
        return wanted.page([summary(request) for request in requests], cursors)

    @router.get("/v1/me/requests/{request_id}")
    async def show_own(request_id: UUID, who: _Customer) -> RequestState:
        """Where your own request stands."""
        request, _ = await _own(kit, request_id, who)
        return await _state(kit, request)

    @router.get("/v1/me/requests/{request_id}/preview")
    async def preview_own(request_id: UUID, who: _Customer) -> Preview:
        """What of yours would go, what stays, why and until when."""
        _, states = await _own(kit, request_id, who)
        return await _preview(kit, states)

    @router.get("/v1/me/requests/{request_id}/certificate", response_class=Response)
    async def own_certificate(request_id: UUID, who: _Customer) -> Response:
        """The latest certificate of your own request. Keep the bytes as they are: they are what is signed."""
        await _own(kit, request_id, who)
        return Response(await read_certificate(kit, request_id), media_type="application/json")

    @router.post("/v1/me/requests/{request_id}/cancel")
    async def cancel_own(request_id: UUID, who: _Customer) -> RequestSummary:
        """Cancel your own request; 409 once the first key is fenced."""
        return summary(await handlers.cancel(kit, _customer_person(who), request_id, owner=who.subject_id))


def _add_holds(router: APIRouter, kit: Kit) -> None:
    @router.post("/v1/holds", status_code=201, responses={200: {"model": HoldId}})
    async def set_hold(body: HoldBody, who: _Staff, hold_id: _StaffsId, response: Response) -> HoldId:
        """Keep data of a person from erasure, for a reason and until a day; 200 when it was set under this key before.

        To change a hold, set another one and lift this one.
        """
        hold = ManualHold(body.data_class, body.anchor, Basis(body.basis), body.until)
        if not await holds.set_hold(kit, who, hold_id, body.subject_id, hold):
            response.status_code = 200
        return HoldId(hold_id=hold_id)

    @router.delete("/v1/holds/{hold_id}", status_code=204)
    async def lift_hold(hold_id: UUID, who: _Staff) -> None:
        """Lift a hold: what it alone kept is erased by itself."""
        await holds.lift_hold(kit, who, hold_id)


def _person(who: Staff) -> Person:
    return Person(who.staff_id, who.role)


def _customer_person(who: Customer) -> Person:
    return Person(who.subject_id, CUSTOMER)


def _wanted(body: OwnRequestBody, subject_ids: Sequence[UUID], check: Check | None) -> Wanted:
    classes = None if body.data_classes is None else tuple(body.data_classes)
    return Wanted(Kind(body.kind), subject_ids, classes, check, body.regime, _corrections(body.rectification), body)


def _corrections(body: RectificationBody | None) -> Corrections | None:
    if body is None:
        return None
    stated, delivery = body.contact, body.delivery
    contact = None if stated is None else ContactCorrection(email=stated.email, phone=stated.phone)
    identity, contact = _said(body.identity), _said(contact)
    if delivery is None:
        return Corrections(identity, contact)
    consignee = Consignee(**dict(delivery.consignee))
    return Corrections(identity, contact, delivery.order_id, DeliveryCorrection(consignee=consignee))


def _said(part: P | None) -> P | None:
    """A correction of nothing is none."""
    return part if part is not None and part.model_dump(exclude_none=True) else None


async def _found(kit: Kit, request_id: UUID) -> Request:
    request = await store.read_request(kit.db, request_id)
    if request is None:
        raise NotFound
    return request


async def _own(kit: Kit, request_id: UUID, who: Customer) -> tuple[Request, list[State]]:
    """A request about this customer and nobody else. Raises `NotFound` for any other."""
    request = await _found(kit, request_id)
    states = await saga_store.read_states(kit.db, request_id)
    if not handlers.is_own(request, states, who.subject_id):
        raise NotFound
    return request, states


async def _preview(kit: Kit, states: Sequence[State]) -> Preview:
    questions = [state.question_id for state in states if state.question_id is not None]
    items = await replies_store.read_items(kit.db, questions)
    manual = await holds_store.read_manual_holds(kit.db, [state.subject_id for state in states])
    return preview_of(states, items, manual, await rules_by_policy(kit, kit.db, states), kit.clock.now())


async def _state(kit: Kit, request: Request) -> RequestState:
    states = await saga_store.read_states(kit.db, request.request_id)
    return state_of(
        await _found(kit, request.request_id),
        states,
        await replies_store.read_recipients(kit.db, [request.request_id]),
        await history_store.read_history(kit.db, request.request_id),
        await is_ready(kit.db, request.request_id),
        await rules_by_policy(kit, kit.db, states),
    )
