"""Correcting the consignee of an order under way: a new version of its delivery, which everybody who has the old one gets."""

from __future__ import annotations

from uuid import UUID

from event_contracts import Sealed
from event_contracts.order import Delivery, DeliveryCorrected
from order_service import store
from order_service.domain import Status, check_correctable, consignee_of, corrected
from order_service.handlers import Order, read_order
from order_service.purchases import PurchaseConsignee
from order_service.quotes import OrderContext, check_correction
from servicekit import Kit, Record, Tx
from servicekit.core.errors import Conflict, NotFound

_TRIES = 3


async def correct_consignee(kit: Kit, buyer_id: UUID, order_id: UUID, consignee: PurchaseConsignee) -> Order:
    """The buyer's order with the consignee as stated; the same again changes nothing.

    Raises `NotFound`, `Invalid` for another country and for what the lane does not take, `Conflict` once it is too late or when
    the delivery is erased.
    """
    for _ in range(_TRIES):
        order = await read_order(kit, buyer_id, order_id)
        check_correctable(order.status)
        if order.delivery is None:
            raise Conflict("What should be corrected is erased. Nothing can be changed in it.")
        delivery = corrected(order.delivery, consignee_of(consignee))
        check_correction(kit.context(OrderContext).routes, order.delivery, delivery)
        if delivery == order.delivery or await _save(kit, buyer_id, order, delivery):
            return await read_order(kit, buyer_id, order_id)
    raise Conflict("The order is being changed elsewhere. Read it again and decide.")


async def _save(kit: Kit, buyer_id: UUID, order: Order, delivery: Delivery) -> bool:
    """False when the delivery is no longer at the version that `order` shows."""
    sealed = await kit.seal(delivery, subject=order.consignee_id, anchor=order.order_id)

    async def work(tx: Tx) -> bool:
        row = await store.lock_order(tx, order.order_id, buyer_id)
        if row is None:
            raise NotFound
        check_correctable(Status(row["status"]))
        return await put_delivery(tx, row, order.delivery_number + 1, sealed)

    return await kit.run_tx("correct_consignee", work)


async def put_delivery(tx: Tx, order: Record, number: int, delivery: Sealed[Delivery]) -> bool:
    """Makes it version `number` of the locked order's delivery, and says so. False when that is not the next one."""
    if not await store.correct_delivery(tx, order["consignee_id"], order["order_id"], number, delivery):
        return False
    await tx.emit(
        DeliveryCorrected(
            order_id=order["order_id"],
            buyer_id=order["buyer_id"],
            consignee_id=order["consignee_id"],
            number=number,
            delivery=delivery,
        )
    )
    return True
