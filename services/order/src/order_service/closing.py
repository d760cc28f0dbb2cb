"""What staff do with an order that is stuck: find it by its number, see what keeps it, end it. Nothing personal is shown."""

from __future__ import annotations

from typing import Final
from uuid import UUID, uuid4

from event_contracts.order import CancelReason, CloseReason, OrderClosed
from order_service import store
from order_service.domain import BEFORE, Status
from order_service.shipments import EVENTS, advance, cancelled
from servicekit import Kit, Record, Staff, Tx
from servicekit.core.errors import Conflict, NotFound
from servicekit.core.policy import IndexKind

_ENDS: Final = {
    CloseReason.UNDELIVERABLE: Status.CANCELLED,
    CloseReason.DELIVERED: Status.DELIVERED,
    CloseReason.RETURNED: Status.RETURNED,
    CloseReason.LOST: Status.LOST,
}


async def find_orders(kit: Kit, order_number: str) -> list[Record]:
    """How far the orders of this number are: ours, or the shop's own. Asks the blind index; none when all are erased."""
    found: set[UUID] = set()
    kinds: tuple[IndexKind, ...] = ("order_number", "shop_order_number")
    for kind in kinds:
        names = await kit.vault.find(kind, await kit.digest(kind, order_number))
        found |= {name.anchor for name in names}
    return await store.read_states(kit.db, sorted(found))


async def close_order(kit: Kit, who: Staff, order_id: UUID, reason: CloseReason) -> Record:
    """Ends the order as what the staff member says became of it, and puts that on record; the same again changes nothing.

    Raises `NotFound`, and `Conflict` for an order with another end, for one that is with the carrier and is called
    undeliverable, and for one that cannot have left and is called anything else.
    """
    end = _ENDS[reason]

    async def work(tx: Tx) -> None:
        row = await store.lock_any_order(tx, order_id)
        if row is None:
            raise NotFound
        status = Status(row["status"])
        if status is end:
            return
        if status not in BEFORE[end]:
            raise Conflict(
                "The order has ended otherwise, or its parcel is with the carrier: then say `returned`, `lost` or `delivered`."
            )
        if row["blocked"] is not None and end is not Status.CANCELLED:
            raise Conflict("Nothing of the order has left, because it is blocked: say `undeliverable`.")
        event_of = cancelled(CancelReason.UNDELIVERABLE) if end is Status.CANCELLED else EVENTS[end]
        closed = OrderClosed(
            decision_id=uuid4(),
            order_id=order_id,
            buyer_id=row["buyer_id"],
            staff_id=who.staff_id,
            role=who.role,
            reason=reason,
        )
        await advance(tx, end, [(order_id, tx.now())], event_of)
        await tx.emit(closed)

    await kit.run_tx("close_order", work)
    (row,) = await store.read_states(kit.db, [order_id])
    return row
