"""What the order service does on a buyer's request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias
from uuid import UUID, uuid4

from event_contracts import Erased, PersonalData
from event_contracts.logistics_gateway import Tracking
from event_contracts.moments import bounded
from event_contracts.order import CancelReason, Delivery, OrderPlaced, OrderRecord, Registration
from order_service import store
from order_service.domain import Parts, Status, cancels, split_purchase
from order_service.holdings import DELIVERIES, RECORDS, REGISTRATIONS, TRACKING
from order_service.purchases import Purchase
from order_service.quotes import OrderContext, check_delivery
from order_service.shipments import advance, cancelled
from servicekit import Cursor, Holding, Kit, Paging, Record, Tx, get_log
from servicekit.core.errors import Conflict, Gone, NotFound
from servicekit.core.faults import declare, faultpoint
from servicekit.vault.client import IndexEntry

# An order with the digest of what was asked for.
Placing: TypeAlias = tuple[OrderPlaced, bytes]
Write: TypeAlias = Callable[[Placing], Awaitable[bool]]

log = get_log("order")
OWN_ACCESS = "own_access"

declare("order.sealed")


@dataclass(frozen=True)
class Order:
    """An order as its buyer sees it. A part is None when it was erased; `delivery_number` is the delivery's version."""

    order_id: UUID
    status: Status
    status_at: datetime
    placed_at: datetime
    consignee_id: UUID
    gift: bool
    record: OrderRecord | None
    delivery: Delivery | None = None
    registration: Registration | None = None
    delivery_number: int = 1
    blocked: str | None = None
    blocked_since: datetime | None = None
    tracking: Tracking | None = None
    carrier: str | None = None


async def place_order(kit: Kit, write: Write, buyer_id: UUID, order_id: UUID, purchase: Purchase) -> tuple[Order, bool]:
    """Places the order, with True; or finds it, with False, when this buyer placed it before under the same id.

    `write` is `write_orders` for one. Raises `KeyReused` when another purchase was placed under this id, `Gone` when its record
    is erased, `Invalid`, also where no lane takes it, and what sealing raises; then there is no new order.
    """
    found = await _placed_before(kit, buyer_id, order_id, purchase)
    if found is not None:
        return found, False
    now = kit.clock.now()
    parts = split_purchase(order_id, purchase, now.date())
    check_delivery(kit.context(OrderContext).routes, purchase, parts.delivery)
    event, digest = await _seal_order(kit, buyer_id, order_id, parts, purchase, now)
    faultpoint("order.sealed")

    if not await write((event, digest)):
        # A request with the same id was faster; the keys made for this one are named by no event and go (docs/protocols.md#keys).
        found = await _placed_before(kit, buyer_id, order_id, purchase)
        if found is None:
            raise Conflict
        return found, False
    log.info("order_placed", order_id=order_id, lines=len(parts.record.lines), gift=purchase.gift)
    placed = Order(order_id, Status.PLACED, now, now, event.consignee_id, purchase.gift, parts.record, parts.delivery)
    return placed, True


async def write_orders(kit: Kit, placed: Sequence[Placing]) -> list[bool]:
    """Which of them are new, and so are stored and published. All of these or none; raises `Fenced`, `Unavailable`."""
    once = {event.order_id: (event, digest) for event, digest in reversed(placed)}

    async def work(tx: Tx) -> set[UUID]:
        new = await store.insert_orders(tx, list(once.values()))
        await tx.emit(*(event for event, _ in once.values() if event.order_id in new))
        return new

    new = await kit.run_tx("place_orders", work)
    return [event.order_id in new and once[event.order_id][0] is event for event, _ in placed]


async def _seal_order(
    kit: Kit, buyer_id: UUID, order_id: UUID, parts: Parts, purchase: Purchase, now: datetime
) -> Placing:
    """All parts with one call of the vault; the digests of both order numbers stand beside the record's key."""
    # A gift's consignee is a person of their own, one per order and never merged.
    consignee_id = uuid4() if purchase.gift else buyer_id
    numbers = {"order_number": parts.record.order_number, "shop_order_number": parts.record.shop_order_number}
    index = [
        IndexEntry(kind, await kit.digest(kind, number), key=0)
        for kind, number in numbers.items()
        if number is not None
    ]
    wanted: list[tuple[PersonalData, UUID, UUID]] = [
        (parts.record, buyer_id, order_id),
        (parts.delivery, consignee_id, order_id),
        (parts.payment, buyer_id, order_id),
    ]
    if parts.registration is not None:
        wanted.append((parts.registration, consignee_id, order_id))
    (record, delivery, payment, *registration), body_digest = await kit.seal_new(
        wanted,
        purchase,
        index=index,
        people=[consignee_id] if purchase.gift else (),
    )
    event = OrderPlaced(
        order_id=order_id,
        buyer_id=buyer_id,
        consignee_id=consignee_id,
        placed_at=now,
        delivery=delivery,
        record=record,
        payment=payment,
        registration=registration[0] if registration else None,
    )
    return event, body_digest


async def _placed_before(kit: Kit, buyer_id: UUID, order_id: UUID, purchase: Purchase) -> Order | None:
    row = await store.find_order(kit.db, order_id)
    if row is None:
        return None
    (order,) = await opened(kit, [row], RECORDS)
    if order.record is None or row["buyer_id"] != buyer_id:
        raise Gone
    await kit.check_retry(row["body_digest"], purchase, (OrderRecord, buyer_id, order_id))
    return order


async def read_order(kit: Kit, buyer_id: UUID, order_id: UUID) -> Order:
    """The buyer's order with all parts but the payment, opened with one call of the vault. Raises `NotFound`."""
    row = await own_row(kit, buyer_id, order_id)
    (order,) = await opened(kit, [row], RECORDS, DELIVERIES, REGISTRATIONS)
    return order


async def follow_order(kit: Kit, buyer_id: UUID, order_id: UUID) -> Order:
    """The buyer's order with its record and where its parcel can be followed. Raises `NotFound`."""
    row = await store.find_tracked(kit.db, order_id)
    if row is None or row["buyer_id"] != buyer_id:
        raise NotFound
    (order,) = await opened(kit, [row], RECORDS, TRACKING)
    return order


async def confirm_order(kit: Kit, buyer_id: UUID, order_id: UUID) -> Order:
    """The buyer's order with its record. Raises `NotFound`."""
    (order,) = await opened(kit, [await own_row(kit, buyer_id, order_id)], RECORDS)
    return order


async def list_orders(kit: Kit, buyer_id: UUID, paging: Paging) -> tuple[list[Order], str | None]:
    """The buyer's orders with their records, newest first, and the cursor of the next page; one call of the vault a page."""
    rows = await store.list_orders(kit.db, buyer_id, paging)
    shown = paging.page(rows, [Cursor(row["placed_at"], row["order_id"]) for row in rows])
    return await opened(kit, shown.items, RECORDS), shown.next


async def cancel_order(kit: Kit, buyer_id: UUID, order_id: UUID) -> Order:
    """Cancels the buyer's order; does nothing to one that is cancelled. Raises `NotFound`, `Conflict` once it is too late."""
    now = kit.clock.now()

    async def work(tx: Tx) -> None:
        row = await store.lock_order(tx, order_id, buyer_id)
        if row is None:
            raise NotFound
        if cancels(Status(row["status"])):
            await advance(tx, Status.CANCELLED, [(order_id, now)], cancelled(CancelReason.BY_BUYER))

    await kit.run_tx("cancel_order", work)
    return await confirm_order(kit, buyer_id, order_id)


async def own_row(kit: Kit, buyer_id: UUID, order_id: UUID) -> Record:
    row = await store.find_order(kit.db, order_id)
    if row is None or row["buyer_id"] != buyer_id:
        raise NotFound
    return row


async def opened(kit: Kit, rows: Sequence[Record], *parts: Holding) -> list[Order]:
    """The orders of the rows with these parts opened, all in one call of the vault."""
    wanted = [(row["order_id"], *opening) for row in rows for part in parts for opening in part.openings(row).items()]
    values = await kit.open_many([opening for _, _, opening in wanted], purpose=OWN_ACCESS) if wanted else []
    found: dict[UUID, dict[str, Any]] = {row["order_id"]: {} for row in rows}
    for (order_id, column, _), value in zip(wanted, values, strict=True):
        found[order_id][column] = None if isinstance(value, Erased) else value
    return [_order(row, found[row["order_id"]]) for row in rows]


def _order(row: Record, parts: Mapping[str, Any]) -> Order:
    return Order(
        row["order_id"],
        Status(row["status"]),
        bounded(row["status_at"]),
        row["placed_at"],
        row["consignee_id"],
        gift=row["consignee_id"] != row["buyer_id"],
        record=parts.get("record"),
        delivery=parts.get("delivery"),
        registration=parts.get("registration"),
        delivery_number=row.get("delivery_number") or 1,
        blocked=row["blocked"],
        blocked_since=row["blocked_since"],
        tracking=parts.get("tracking"),
        carrier=row.get("carrier"),
    )
