"""All SQL of the disclosure ledger; what replies and erasures do to it stands in replies/store.py and erasures/store.py."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from operator import attrgetter
from uuid import UUID

from msgspec import Struct

from logistics_gateway.progress import HANDED_OVER
from servicekit import Record, Tx
from servicekit.db.postgres import Database

PAGE = 500


class Row(Struct, frozen=True):
    """A new line of the ledger. `fields` are codes joined by commas; `delivery` is the sealed token, as bytes."""

    shipment_id: UUID
    order_id: UUID
    subject_id: UUID
    state: str
    reason: str | None
    carrier: str | None
    lane: str | None
    lane_version: int | None
    policy_version: str
    data_class: str
    purpose: str
    fields: str
    digest: bytes | None
    not_after: datetime | None
    topic: str
    partition: int
    position: int
    delivery: bytes | None
    recorded_at: datetime
    next_try_at: datetime | None
    key_id: UUID
    number: int
    ordered_at: datetime | None
    blocked_since: datetime | None = None


_PG_TYPES = {"UUID": "uuid", "str": "varchar", "int": "bigint", "bytes": "bytea", "datetime": "timestamptz"}
_ROW_NAMES = Row.__struct_fields__
_row_values = attrgetter(*_ROW_NAMES)
_ROW_TYPES = [_PG_TYPES[str(Row.__annotations__[name]).removesuffix(" | None")] for name in _ROW_NAMES]
_ROW_ARRAYS = ", ".join(f"${place}::{kind}[]" for place, kind in enumerate(_ROW_TYPES, start=1))
_ROW_VALUES = ", ".join("string_to_array(u.fields, ',')" if n == "fields" else f"u.{n}" for n in _ROW_NAMES)
_INSERT = f"""-- record
    INSERT INTO disclosures ({", ".join(_ROW_NAMES)}) SELECT {_ROW_VALUES}
    FROM unnest({_ROW_ARRAYS}) AS u({", ".join(_ROW_NAMES)})
    ON CONFLICT DO NOTHING RETURNING order_id"""  # noqa: S608 - names and types of our own
KAFKA_SET_BACK = "kafka_set_back"
# A later version of a delivery is taken up while the parcel can still be changed, and the same one after Kafka lost it.
_CORRECTABLE = f"""(d.number < u.number OR (d.number = u.number AND d.reason = '{KAFKA_SET_BACK}'))
    AND d.state <> 'withheld' AND d.recall IS NULL AND d.erasure IS NULL AND d.rank < {HANDED_OVER}"""
_TAKEN_UP = ", ".join(
    f"{name} = " + ("string_to_array(u.fields, ',')" if name == "fields" else f"u.{name}")
    for name in _ROW_NAMES
    if name not in ("shipment_id", "order_id", "subject_id", "ordered_at")
)
_CORRECT = f"""-- correct
    UPDATE disclosures d SET {_TAKEN_UP}, sent_at = NULL
    FROM unnest({_ROW_ARRAYS}) AS u({", ".join(_ROW_NAMES)}) JOIN disclosures b ON b.shipment_id = u.shipment_id
    WHERE d.shipment_id = u.shipment_id AND u.state = 'recorded' AND (d.carrier IS NULL OR d.carrier = u.carrier)
        AND {_CORRECTABLE} RETURNING d.order_id, b.state = 'blocked' AS was_blocked"""  # noqa: S608 - names and types of our own


async def record(tx: Tx, rows: Sequence[Row]) -> set[UUID]:
    """Writes all lines with one statement. Returns the orders that had none before."""
    if not rows:
        return set()
    columns = [list(column) for column in zip(*map(_row_values, rows), strict=True)]
    return {row["order_id"] for row in await tx.fetch(_INSERT, *columns)}


async def correct(tx: Tx, rows: Sequence[Row]) -> tuple[list[Record], list[Record]]:
    """Lines take up a later version of their delivery. Returns the lines that are to leave in that version (their order, and
    whether they were blocked before), and the lines that wait now.

    A version that cannot leave, or whose lane in force is of another carrier than the one that may have the parcel, waits
    as `blocked`. Lines of parcels that are gone, recalled or erased stay as they are.
    """
    if not rows:
        return [], []
    columns = [list(column) for column in zip(*map(_row_values, rows), strict=True)]
    found = await tx.fetch(_CORRECT, *columns)
    waiting = await tx.fetch(
        f"""-- correct: wait
        UPDATE disclosures d SET state = 'blocked', reason = coalesce(u.reason, 'carrier_changed'), sent_at = NULL,
            delivery = u.delivery, key_id = u.key_id, number = u.number, next_try_at = coalesce(u.next_try_at, u.at),
            blocked_since = coalesce(d.blocked_since, u.at)
        FROM unnest($1::uuid[], $2::varchar[], $3::bytea[], $4::uuid[], $5::int[], $6::timestamptz[], $7::timestamptz[])
            AS u(shipment_id, reason, delivery, key_id, number, next_try_at, at)
        WHERE d.shipment_id = u.shipment_id AND {_CORRECTABLE}
        RETURNING d.order_id, d.shipment_id, d.reason""",  # noqa: S608 - names of our own
        [row.shipment_id for row in rows],
        [row.reason for row in rows],
        [row.delivery for row in rows],
        [row.key_id for row in rows],
        [row.number for row in rows],
        [row.next_try_at for row in rows],
        [row.recorded_at for row in rows],
    )
    return found, waiting


async def mark_sent(tx: Tx, sent: Sequence[tuple[UUID, int]], now: datetime) -> None:
    """recorded → sent, of these versions of shipments; the sealed delivery has done its work."""
    if sent:
        await tx.execute(
            """-- mark_sent
            UPDATE disclosures d SET state = 'sent', sent_at = $3, delivery = NULL
            FROM unnest($1::uuid[], $2::int[]) AS u(shipment_id, number)
            WHERE d.shipment_id = u.shipment_id AND d.number = u.number AND d.state = 'recorded'""",
            [shipment_id for shipment_id, _ in sent],
            [number for _, number in sent],
            now,
        )


async def mark_recalled(tx: Tx, shipment_ids: Sequence[UUID], now: datetime) -> None:
    if shipment_ids:
        await tx.execute(
            """-- mark_recalled
            UPDATE disclosures SET recall = 'sent', recalled_at = $2
            WHERE shipment_id = ANY($1::uuid[]) AND recall = 'due'""",
            list(shipment_ids),
            now,
        )


async def cancel(tx: Tx, shipment_ids: Sequence[UUID], reason: str) -> list[Record]:
    """What has not left stays here; what left, or may have, is to be recalled. Returns the shipments to recall."""
    if not shipment_ids:
        return []
    return await tx.fetch(
        """-- cancel
        UPDATE disclosures SET
            recall = CASE WHEN carrier IS NOT NULL THEN 'due' END,
            state = CASE WHEN state = 'sent' THEN state ELSE 'withheld' END,
            reason = coalesce(reason, $2), delivery = NULL, next_try_at = NULL
        WHERE shipment_id = ANY($1::uuid[]) AND state <> 'withheld' AND recall IS NULL
        RETURNING shipment_id, subject_id, carrier, not_after, recall""",
        list(shipment_ids),
        reason,
    )


async def withhold(tx: Tx, shipment_ids: Sequence[UUID], reason: str) -> None:
    """recorded or blocked → withheld, for good."""
    if shipment_ids:
        await tx.execute(
            """-- withhold
            UPDATE disclosures SET state = 'withheld', reason = $2, delivery = NULL, next_try_at = NULL
            WHERE shipment_id = ANY($1::uuid[]) AND state IN ('recorded', 'blocked')""",
            list(shipment_ids),
            reason,
        )


async def block(tx: Tx, blocked: Mapping[UUID, str], next_try_at: datetime, now: datetime) -> list[Record]:
    """recorded or blocked → blocked, each with its reason, to be tried again at `next_try_at`. Returns those for which the
    state or the reason is new."""
    if not blocked:
        return []
    return await tx.fetch(
        """-- block
        WITH before AS (
            SELECT d.shipment_id, d.state, d.reason AS before, u.reason FROM disclosures d
            JOIN unnest($1::uuid[], $2::varchar[]) AS u(shipment_id, reason) USING (shipment_id)
            WHERE d.state IN ('recorded', 'blocked') ORDER BY d.shipment_id FOR UPDATE OF d
        ), changed AS (
            UPDATE disclosures d SET state = 'blocked', reason = b.reason, next_try_at = $3,
                blocked_since = coalesce(d.blocked_since, $4)
            FROM before b WHERE d.shipment_id = b.shipment_id
            RETURNING d.order_id, d.shipment_id, d.reason, b.state, b.before
        )
        SELECT order_id, shipment_id, reason FROM changed WHERE state <> 'blocked' OR before IS DISTINCT FROM reason""",
        list(blocked),
        list(blocked.values()),
        next_try_at,
        now,
    )


async def record_again(tx: Tx, rows: Sequence[Row]) -> set[UUID]:
    """blocked → recorded, with the lane that it leaves on now. Returns the orders changed."""
    if not rows:
        return set()
    found = await tx.fetch(
        """-- record_again
        UPDATE disclosures d SET state = 'recorded', reason = NULL, next_try_at = NULL, blocked_since = NULL,
            carrier = u.carrier, lane = u.lane, lane_version = u.lane_version,
            policy_version = u.policy_version, fields = string_to_array(u.fields, ','), digest = u.digest,
            not_after = u.not_after, recorded_at = u.recorded_at
        FROM unnest($1::uuid[], $2::varchar[], $3::varchar[], $4::int[], $5::varchar[], $6::varchar[], $7::bytea[],
            $8::timestamptz[], $9::timestamptz[], $10::int[])
            AS u(shipment_id, carrier, lane, lane_version, policy_version, fields, digest, not_after, recorded_at, number)
        WHERE d.shipment_id = u.shipment_id AND d.number = u.number AND d.state = 'blocked'
        RETURNING d.order_id""",
        [row.shipment_id for row in rows],
        [row.carrier for row in rows],
        [row.lane for row in rows],
        [row.lane_version for row in rows],
        [row.policy_version for row in rows],
        [row.fields for row in rows],
        [row.digest for row in rows],
        [row.not_after for row in rows],
        [row.recorded_at for row in rows],
        [row.number for row in rows],
    )
    return {row["order_id"] for row in found}


_WAITING = """shipment_id, order_id, subject_id, carrier, lane, lane_version, digest, not_after, delivery, number,
    topic, partition, position"""


async def unsent(db: Database, places: Iterable[tuple[str, int]], skip: Sequence[tuple[UUID, int]]) -> list[Record]:
    """A page of recorded lines of these topics and partitions in their order, without the versions in `skip`."""
    pairs = list(places)
    return await db.fetch(
        f"""-- unsent
        SELECT {_WAITING} FROM disclosures d
        JOIN unnest($1::varchar[], $2::int[]) AS u(topic, partition) USING (topic, partition)
        WHERE d.state = 'recorded' AND NOT EXISTS (SELECT FROM unnest($3::uuid[], $4::int[]) AS s(shipment_id, number)
            WHERE s.shipment_id = d.shipment_id AND s.number = d.number)
        ORDER BY topic, partition, position LIMIT {PAGE}""",  # noqa: S608 - names of our own
        [topic for topic, _ in pairs],
        [partition for _, partition in pairs],
        [shipment_id for shipment_id, _ in skip],
        [number for _, number in skip],
    )


async def stale(db: Database, before: datetime) -> list[Record]:
    """A page of lines recorded before `before` and still not sent, whatever their partition."""
    return await db.fetch(
        f"""-- stale
        SELECT {_WAITING} FROM disclosures WHERE state = 'recorded' AND recorded_at < $1
        ORDER BY topic, partition, position LIMIT {PAGE}""",  # noqa: S608 - names of our own
        before,
    )


async def blocked(db: Database, now: datetime) -> list[Record]:
    """A page of blocked lines whose time has come."""
    return await db.fetch(
        f"""-- blocked
        SELECT {_WAITING} FROM disclosures WHERE state = 'blocked' AND next_try_at <= $1
        ORDER BY next_try_at LIMIT {PAGE}""",  # noqa: S608 - names of our own
        now,
    )


async def recalls_due(db: Database, skip: Iterable[UUID]) -> list[Record]:
    """A page of shipments whose carrier must still be told to delete, without `skip`."""
    return await db.fetch(
        f"""-- recalls_due
        SELECT shipment_id, subject_id, carrier, not_after FROM disclosures
        WHERE recall = 'due' AND shipment_id <> ALL($1::uuid[]) ORDER BY shipment_id LIMIT {PAGE}""",  # noqa: S608
        list(skip),
    )


async def lost_parcels(tx: Tx, since: datetime) -> list[Record]:
    """sent → blocked, of what was sent since then and no carrier has answered. Returns the lines, with where their orders'
    events were.

    Each waits until its order's event comes again and brings the sealed delivery back.
    """
    return await tx.fetch(
        """-- lost_parcels
        UPDATE disclosures SET state = 'blocked', reason = $2, sent_at = NULL, blocked_since = $3
        WHERE state = 'sent' AND sent_at >= $1 AND recall IS NULL AND erasure IS NULL AND rank = 0
        RETURNING order_id, shipment_id, reason, topic, partition, position""",
        since,
        KAFKA_SET_BACK,
        tx.now(),
    )


async def lost_notices(tx: Tx, since: datetime) -> int:
    """Recalls and notices of erasure that were sent since then, and not answered, are due again. Returns how many lines."""
    status = await tx.execute(
        """-- lost_notices
        UPDATE disclosures SET
            recall = CASE WHEN recall = 'sent' AND recalled_at >= $1 THEN 'due' ELSE recall END,
            erasure = CASE WHEN erasure = 'sent' AND erasure_sent_at >= $1 AND erased_at IS NULL THEN 'due' ELSE erasure END
        WHERE (recall = 'sent' AND recalled_at >= $1)
            OR (erasure = 'sent' AND erasure_sent_at >= $1 AND erased_at IS NULL)""",
        since,
    )
    return int(status.split()[-1])


# What staff may see of a line.
SHOWN = """shipment_id, order_id, subject_id, state, reason, carrier, lane, lane_version, policy_version,
    data_class, purpose, fields, number, not_after, recorded_at, next_try_at, sent_at, recall, recalled_at, erasure,
    erasure_sent_at, erased_at, acknowledged_at, refused_at, handed_over_at, delivered_at, progress, progress_at, ended_at,
    refusal, blocked_since"""


async def find(db: Database, shipment_id: UUID) -> Record | None:
    """One line of the ledger, without the sealed delivery and the digest."""
    return await db.fetchrow(f"-- find\nSELECT {SHOWN} FROM disclosures WHERE shipment_id = $1", shipment_id)
