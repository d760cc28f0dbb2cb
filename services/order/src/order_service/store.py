"""All SQL of the order service. A row of an order has its own columns and, where asked for, the sealed parts that are left."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from event_contracts import Sealed
from event_contracts.logistics_gateway import ShipmentTracked
from event_contracts.moments import LATEST
from event_contracts.order import Delivery, OrderPlaced
from order_service.domain import BEFORE, ENDS, Status
from servicekit import Cursor, Paging, Record, Tx
from servicekit.db.postgres import Database

_END_OF_TIME: Final = Cursor(LATEST, UUID(int=2**128 - 1))


async def insert_orders(tx: Tx, placed: Sequence[tuple[OrderPlaced, bytes]]) -> set[UUID]:
    """The orders, each with the digest of what was asked for, in one statement.

    Returns which are new: of others there is an order of their id already.
    """
    ordered = sorted((event for event, _ in placed), key=lambda each: each.order_id)
    digests = {event.order_id: digest for event, digest in placed}
    rows = await tx.fetch(
        """-- insert_orders
        WITH given AS (
            SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::timestamptz[], $5::bytea[], $6::bytea[], $7::bytea[],
                                 $8::bytea[], $9::bytea[])
                AS u(order_id, buyer_id, consignee_id, placed_at, delivery, record, payment, body_digest, registration)
        ), placed AS (
            INSERT INTO orders (order_id, buyer_id, consignee_id, status, status_at, placed_at, recorded_at)
            SELECT order_id, buyer_id, consignee_id, 'placed', placed_at, placed_at, placed_at FROM given
            ON CONFLICT (order_id) DO NOTHING RETURNING order_id
        ), new AS (
            SELECT given.* FROM given JOIN placed USING (order_id)
        ), delivery AS (
            INSERT INTO order_deliveries (consignee_id, order_id, delivery) SELECT consignee_id, order_id, delivery FROM new
        ), registration AS (
            INSERT INTO order_registrations (consignee_id, order_id, registration)
            SELECT consignee_id, order_id, registration FROM new WHERE registration IS NOT NULL
        ), record AS (
            INSERT INTO order_records (buyer_id, order_id, record, body_digest)
            SELECT buyer_id, order_id, record, body_digest FROM new
        ), payment AS (
            INSERT INTO order_payments (buyer_id, order_id, payment) SELECT buyer_id, order_id, payment FROM new
        )
        SELECT order_id FROM placed""",
        [each.order_id for each in ordered],
        [each.buyer_id for each in ordered],
        [each.consignee_id for each in ordered],
        [each.placed_at for each in ordered],
        [each.delivery for each in ordered],
        [each.record for each in ordered],
        [each.payment for each in ordered],
        [digests[each.order_id] for each in ordered],
        [each.registration for each in ordered],
    )
    return {row["order_id"] for row in rows}


async def find_order(db: Database, order_id: UUID) -> Record | None:
    """The order with its record, delivery and registration; a part that was erased is null, and the digest goes with the record."""
    return await db.fetchrow(
        """-- find_order
        SELECT o.*, r.record, r.body_digest, d.delivery, d.number AS delivery_number, g.registration FROM orders o
        LEFT JOIN order_records r ON r.buyer_id = o.buyer_id AND r.order_id = o.order_id
        LEFT JOIN order_deliveries d ON d.consignee_id = o.consignee_id AND d.order_id = o.order_id
        LEFT JOIN order_registrations g ON g.consignee_id = o.consignee_id AND g.order_id = o.order_id
        WHERE o.order_id = $1""",
        order_id,
    )


async def list_orders(db: Database, buyer_id: UUID, paging: Paging) -> list[Record]:
    """The buyer's orders with their records, newest first."""
    after = paging.after or _END_OF_TIME
    return await db.fetch(
        """-- list_orders
        SELECT o.*, r.record FROM orders o
        LEFT JOIN order_records r ON r.buyer_id = $1 AND r.order_id = o.order_id
        WHERE o.buyer_id = $1 AND (o.placed_at, o.order_id) < ($2, $3)
        ORDER BY o.placed_at DESC, o.order_id DESC LIMIT $4""",
        buyer_id,
        after.at,
        after.id,
        paging.fetch,
    )


async def lock_order(tx: Tx, order_id: UUID, buyer_id: UUID) -> Record | None:
    """The order, locked, if it is this buyer's."""
    return await tx.fetchrow(
        "-- lock_order\nSELECT * FROM orders WHERE order_id = $1 AND buyer_id = $2 FOR UPDATE", order_id, buyer_id
    )


async def lock_order_of(tx: Tx, order_id: UUID, consignee_id: UUID) -> Record | None:
    """The order, locked, if it goes to this person."""
    return await tx.fetchrow(
        "-- lock_order_of\nSELECT * FROM orders WHERE order_id = $1 AND consignee_id = $2 FOR UPDATE",
        order_id,
        consignee_id,
    )


async def correct_delivery(tx: Tx, consignee_id: UUID, order_id: UUID, number: int, delivery: Sealed[Delivery]) -> bool:
    """Puts version `number` in the place of the one before. False when that is not the one there."""
    status = await tx.execute(
        """-- correct_delivery
        UPDATE order_deliveries SET delivery = $4, number = $3
        WHERE consignee_id = $1 AND order_id = $2 AND number = $3 - 1""",
        consignee_id,
        order_id,
        number,
        delivery,
    )
    return status == "UPDATE 1"


async def advance_orders(tx: Tx, onto: Status, times: Sequence[tuple[UUID, datetime]]) -> list[Record]:
    """Moves the orders that may get into `onto`, one statement for all, and locks them.

    `times` says since when, by order id; of several for one order the first counts. They may be stated by a carrier: when
    it is recorded is our own time. Returns `order_id, buyer_id, status_at` of exactly those that changed.
    """
    first = dict(reversed(times))
    return await tx.fetch(
        """-- advance_orders
        UPDATE orders o SET status = $1, status_at = u.at, recorded_at = $5,
            blocked = CASE WHEN NOT $6 THEN o.blocked END, blocked_since = CASE WHEN NOT $6 THEN o.blocked_since END
        FROM unnest($2::uuid[], $3::timestamptz[]) AS u(order_id, at)
        WHERE o.order_id = u.order_id AND o.status = ANY($4::text[])
        RETURNING o.order_id, o.buyer_id, o.status_at""",
        onto,
        list(first),
        list(first.values()),
        list(BEFORE[onto]),
        tx.now(),
        onto in ENDS,
    )


async def block_orders(tx: Tx, blocked: Mapping[UUID, tuple[str, datetime]]) -> None:
    """Notes why orders under way cannot leave, and since when: the reason may change, the time is that of the first."""
    ordered = sorted(blocked.items())
    await tx.execute(
        """-- block_orders
        UPDATE orders o SET blocked = u.reason, blocked_since = coalesce(o.blocked_since, u.at)
        FROM unnest($1::uuid[], $2::varchar[], $3::timestamptz[]) AS u(order_id, reason, at)
        WHERE o.order_id = u.order_id AND o.status <> ALL($4::text[])""",
        [order_id for order_id, _ in ordered],
        [reason for _, (reason, _) in ordered],
        [at for _, (_, at) in ordered],
        list(ENDS),
    )


async def unblock_orders(tx: Tx, order_ids: Sequence[UUID]) -> None:
    await tx.execute(
        """-- unblock_orders
        UPDATE orders SET blocked = NULL, blocked_since = NULL WHERE order_id = ANY($1::uuid[]) AND blocked IS NOT NULL""",
        sorted(order_ids),
    )


async def put_tracking(tx: Tx, tracked: Sequence[ShipmentTracked]) -> None:
    """Each order's tracking in the place of the one before, if the order goes to that person."""
    await tx.execute(
        """-- put_tracking
        INSERT INTO order_tracking (consignee_id, order_id, tracking, carrier)
        SELECT u.subject_id, u.order_id, u.tracking, u.carrier
        FROM unnest($1::uuid[], $2::uuid[], $3::bytea[], $4::varchar[]) AS u(subject_id, order_id, tracking, carrier)
        JOIN orders o ON o.order_id = u.order_id AND o.consignee_id = u.subject_id
        ON CONFLICT (consignee_id, order_id) DO UPDATE SET tracking = excluded.tracking, carrier = excluded.carrier""",
        [event.subject_id for event in tracked],
        [event.order_id for event in tracked],
        [event.tracking for event in tracked],
        [event.carrier for event in tracked],
    )


async def find_tracked(db: Database, order_id: UUID) -> Record | None:
    """The order with its record and where its parcel can be followed; a part that was erased is null."""
    return await db.fetchrow(
        """-- find_tracked
        SELECT o.*, r.record, t.tracking, t.carrier FROM orders o
        LEFT JOIN order_records r ON r.buyer_id = o.buyer_id AND r.order_id = o.order_id
        LEFT JOIN order_tracking t ON t.consignee_id = o.consignee_id AND t.order_id = o.order_id
        WHERE o.order_id = $1""",
        order_id,
    )


async def lock_any_order(tx: Tx, order_id: UUID) -> Record | None:
    """The order, locked, whosever it is: for staff."""
    return await tx.fetchrow("-- lock_any_order\nSELECT * FROM orders WHERE order_id = $1 FOR UPDATE", order_id)


async def read_states(db: Database, order_ids: Sequence[UUID]) -> list[Record]:
    """How far these orders are, without anything about a person."""
    return await db.fetch(
        """-- read_states
        SELECT order_id, status, status_at, placed_at, blocked, blocked_since FROM orders
        WHERE order_id = ANY($1::uuid[]) ORDER BY placed_at DESC, order_id""",
        list(order_ids),
    )
