"""The order service's HTTP API: a buyer's own orders. Another person's order is answered like one that does not exist."""

from functools import partial
from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Response

from order_service import corrections, handlers
from order_service.accounting import accounting_router
from order_service.handlers import Order
from order_service.purchases import Purchase, PurchaseConsignee, QuotePurchase
from order_service.quotes import OrderContext, quote
from order_service.schemas import DeliveryPart, OrderConfirmation, OrderDetail, OrderState, OrderSummary, QuoteAnswer
from order_service.staff_http import staff_router
from order_service.tracking import LdJsonResponse, ParcelDelivery, parcel_delivery
from servicekit import Customer, Kit, Limit, Page, Paging, customer, limited, new_id, paging
from servicekit.core.batcher import Batcher
from servicekit.core.errors import Fenced

ORDERS: Final = 100
PLACED: Final = (Limit("orders", 30, 60), Limit("orders_a_day", 300, 86_400))
QUOTES: Final = Limit("quotes", 60, 60)
CHANGES: Final = Limit("changes", 60, 60)
_buyer = customer()
Buyer = Annotated[Customer, Depends(_buyer)]
OrderId = Annotated[UUID, Depends(new_id(_buyer))]


def make_router(kit: Kit) -> APIRouter:
    """The routes of the role `api`."""
    router = APIRouter(tags=["orders"])
    # Orders that come while others are written are written together.
    writing = Batcher(partial(handlers.write_orders, kit), (Fenced,), ORDERS)

    @router.post(
        "/v1/orders",
        status_code=201,
        response_model_exclude_none=True,
        responses={200: {"model": OrderConfirmation}},
        openapi_extra=limited(*PLACED),
    )
    async def place_order(purchase: Purchase, buyer: Buyer, order_id: OrderId, response: Response) -> OrderConfirmation:
        """Places an order; 200 with the same order when it was placed under this Idempotency-Key before.

        The order's id is in the answer. 422 `key_reused` when the key was used for another purchase, 410 when the order that
        was placed under it is erased.
        """
        order, new = await handlers.place_order(kit, writing.answer, buyer.subject_id, order_id, purchase)
        if not new:
            response.status_code = 200
        return _confirmation(order)

    @router.post("/v1/quotes", response_model_exclude_none=True, openapi_extra=limited(QUOTES))
    async def quote_order(purchase: QuotePurchase, buyer: Buyer) -> QuoteAnswer:
        """Whether a carrier would take an order, which fields it would get, and what does not fit. Stores nothing.

        The body is that of an order without its payment. An order is accepted when `problems` is empty.
        """
        answer = quote(kit.context(OrderContext).routes, purchase, kit.clock.now().date())
        return QuoteAnswer(**{name: getattr(answer, name) for name in QuoteAnswer.model_fields})

    @router.get("/v1/orders", response_model_exclude_none=True)
    async def list_orders(buyer: Buyer, paging: Annotated[Paging, Depends(paging)]) -> Page[OrderSummary]:
        """The buyer's orders, newest first."""
        orders, following = await handlers.list_orders(kit, buyer.subject_id, paging)
        return Page[OrderSummary](items=[_summary(order) for order in orders], next=following)

    @router.get("/v1/orders/{order_id}", response_model_exclude_none=True)
    async def read_order(order_id: UUID, buyer: Buyer) -> OrderDetail:
        """One order with its delivery; the payment is never shown."""
        return _detail(await handlers.read_order(kit, buyer.subject_id, order_id))

    @router.get("/v1/orders/{order_id}/confirmation", response_model_exclude_none=True)
    async def confirm_order(order_id: UUID, buyer: Buyer) -> OrderConfirmation:
        """The order's confirmation, as the buyer may keep it."""
        return _confirmation(await handlers.confirm_order(kit, buyer.subject_id, order_id))

    @router.post("/v1/orders/{order_id}/cancel", openapi_extra=limited(CHANGES), response_model_exclude_none=True)
    async def cancel_order(order_id: UUID, buyer: Buyer) -> OrderConfirmation:
        """Cancels an order that is not yet with the carrier; 409 when it is. Doing it again changes nothing."""
        return _confirmation(await handlers.cancel_order(kit, buyer.subject_id, order_id))

    @router.put("/v1/orders/{order_id}/consignee", openapi_extra=limited(CHANGES), response_model_exclude_none=True)
    async def correct_consignee(order_id: UUID, consignee: PurchaseConsignee, buyer: Buyer) -> OrderDetail:
        """Corrects to whom and where the order goes, until it is handed over; 409 then. The country stays as it is.

        A carrier that has the old consignee gets the correction. Doing it again changes nothing.
        """
        return _detail(await corrections.correct_consignee(kit, buyer.subject_id, order_id, consignee))

    @router.get("/v1/orders/{order_id}/tracking", response_class=LdJsonResponse, response_model_exclude_none=True)
    async def follow_order(order_id: UUID, buyer: Buyer) -> ParcelDelivery:
        """Where the parcel is and how to follow it, as schema.org's `ParcelDelivery`; a gift's buyer sees it, too."""
        order = await handlers.follow_order(kit, buyer.subject_id, order_id)
        recipient = kit.policy.recipients.get(order.carrier or "")
        return parcel_delivery(order, None if recipient is None else recipient.title)

    router.include_router(staff_router(kit))
    router.include_router(accounting_router(kit))
    return router


def _state(order: Order) -> dict[str, object]:
    return {name: getattr(order, name) for name in OrderState.model_fields}


def _summary(order: Order) -> OrderSummary:
    return OrderSummary.model_validate({**_state(order), "record": _record(order)})


def _detail(order: Order) -> OrderDetail:
    parts = {"record": _record(order), "delivery": _delivery(order), "registration": order.registration}
    return OrderDetail.model_validate({**_state(order), **parts})


def _confirmation(order: Order) -> OrderConfirmation:
    record = dict(order.record) if order.record is not None else {"erased": True}
    return OrderConfirmation.model_validate({**_state(order), **record})


def _record(order: Order) -> dict[str, object]:
    return dict(order.record) if order.record is not None else {"erased": True}


def _delivery(order: Order) -> dict[str, object]:
    if order.delivery is None:
        return {"erased": True}
    return {name: getattr(order.delivery, name) for name in DeliveryPart.model_fields}
