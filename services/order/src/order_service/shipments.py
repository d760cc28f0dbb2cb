"""What moves an order: the events of its shipment. A state never goes back; what comes late or twice changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from event_contracts import Event
from event_contracts.logistics_gateway import (
    Progress,
    ShipmentAcknowledged,
    ShipmentBlocked,
    ShipmentDelivered,
    ShipmentHandedOver,
    ShipmentProgressed,
    ShipmentRefused,
    ShipmentTracked,
    ShipmentUnblocked,
)
from event_contracts.moments import bounded
from event_contracts.order import (
    CancelReason,
    OrderCancelled,
    OrderConfirmed,
    OrderDelivered,
    OrderHandedOver,
    OrderProgress,
    OrderProgressed,
)
from order_service import store
from order_service.domain import Status
from servicekit import Received, Record, Tx

EventOf = Callable[[Record], Event]


async def on_shipment_acknowledged(tx: Tx, received: Sequence[Received[ShipmentAcknowledged]]) -> None:
    times = [(each.event.order_id, each.time) for each in received]
    await advance(tx, Status.CONFIRMED, times, EVENTS[Status.CONFIRMED])


async def on_shipment_refused(tx: Tx, received: Sequence[Received[ShipmentRefused]]) -> None:
    times = [(each.event.order_id, each.time) for each in received]
    await advance(tx, Status.CANCELLED, times, cancelled(CancelReason.UNDELIVERABLE))


async def on_shipment_handed_over(tx: Tx, received: Sequence[Received[ShipmentHandedOver]]) -> None:
    times = [(each.event.order_id, each.event.at) for each in received]
    await advance(tx, Status.HANDED_OVER, times, EVENTS[Status.HANDED_OVER])


async def on_shipment_delivered(tx: Tx, received: Sequence[Received[ShipmentDelivered]]) -> None:
    times = [(each.event.order_id, each.event.at) for each in received]
    await advance(tx, Status.DELIVERED, times, EVENTS[Status.DELIVERED])


async def on_shipment_progressed(tx: Tx, received: Sequence[Received[ShipmentProgressed]]) -> None:
    """In the order of their kinds, which is that of the states."""
    for kind in Progress:
        times = [(each.event.order_id, each.event.at) for each in received if each.event.kind is kind]
        if times and kind is Progress.UNDELIVERABLE:
            await advance(tx, Status.CANCELLED, times, cancelled(CancelReason.UNDELIVERABLE))
        elif times:
            await advance(tx, Status(kind.value), times, EVENTS[Status(kind.value)])


async def on_shipment_blocked(tx: Tx, received: Sequence[Received[ShipmentBlocked]]) -> None:
    await store.block_orders(tx, {each.event.order_id: (each.event.reason, each.time) for each in received})


async def on_shipment_unblocked(tx: Tx, received: Sequence[Received[ShipmentUnblocked]]) -> None:
    await store.unblock_orders(tx, [each.event.order_id for each in received])


async def on_shipment_tracked(tx: Tx, received: Sequence[Received[ShipmentTracked]]) -> None:
    """The last tracking of each order; none whose key is gone by now."""
    last = {each.event.order_id: each.event for each in received}
    revoked = await tx.revoked([event.tracking.key_id for event in last.values()])
    await store.put_tracking(tx, [event for event in last.values() if event.tracking.key_id not in revoked])


def cancelled(reason: CancelReason) -> EventOf:
    return lambda row: OrderCancelled(order_id=row["order_id"], buyer_id=row["buyer_id"], reason=reason)


async def advance(tx: Tx, onto: Status, times: Sequence[tuple[UUID, datetime]], event_of: EventOf) -> list[Record]:
    """Moves the orders that may get into `onto`, says so for exactly these, and returns them. Their rows are locked (§5)."""
    changed = await store.advance_orders(tx, onto, times)
    await tx.emit(*map(event_of, changed))
    return changed


def _progressed(status: Status) -> EventOf:
    return lambda row: OrderProgressed(**_at(row), status=OrderProgress(status.value))


def _at(row: Record) -> dict[str, Any]:
    return {"order_id": row["order_id"], "buyer_id": row["buyer_id"], "at": bounded(row["status_at"])}


EVENTS: Final[dict[Status, EventOf]] = {
    Status.CONFIRMED: lambda row: OrderConfirmed(order_id=row["order_id"], buyer_id=row["buyer_id"]),
    Status.HANDED_OVER: lambda row: OrderHandedOver(**_at(row)),
    Status.DELIVERED: lambda row: OrderDelivered(**_at(row)),
    **{status: _progressed(status) for status in map(Status, OrderProgress)},
}
