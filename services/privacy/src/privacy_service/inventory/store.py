"""All SQL of the inventory."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from event_contracts.order import TaxRecordRead
from privacy_service.inventory.domain import NO_KEY, Fact, Receipt
from servicekit import Paging, Received, Record, Tx
from servicekit.db.postgres import Database


async def write_facts(tx: Tx, facts: Sequence[Fact]) -> None:
    """One statement; a row that says nothing new is not written again."""
    await tx.execute(
        """-- write_facts
        INSERT INTO inventory AS i (subject_id, system, data_class, anchor, key_id, first_seen, last_seen)
        SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::uuid[], $6::timestamptz[], $7::timestamptz[])
        ON CONFLICT (subject_id, system, data_class, anchor) DO UPDATE SET
            first_seen = least(i.first_seen, excluded.first_seen),
            last_seen = greatest(i.last_seen, excluded.last_seen),
            key_id = CASE WHEN (excluded.last_seen, coalesce(excluded.key_id, $8)) > (i.last_seen, coalesce(i.key_id, $8))
                     THEN excluded.key_id ELSE i.key_id END
        WHERE excluded.first_seen < i.first_seen
           OR (excluded.last_seen, coalesce(excluded.key_id, $8)) > (i.last_seen, coalesce(i.key_id, $8))""",
        [fact.subject_id for fact in facts],
        [fact.system for fact in facts],
        [fact.data_class for fact in facts],
        [fact.anchor for fact in facts],
        [fact.key_id for fact in facts],
        [fact.first_seen for fact in facts],
        [fact.last_seen for fact in facts],
        NO_KEY,
    )


async def write_receipts(tx: Tx, receipts: Sequence[Receipt]) -> None:
    """One statement; a row that says nothing new is not written again."""
    await tx.execute(
        """-- write_receipts
        INSERT INTO recipients AS r
            (subject_id, anchor, data_class, carrier, lane, lane_version, fields, first_seen, last_seen)
        SELECT subject_id, anchor, data_class, carrier, lane, lane_version, string_to_array(fields, ','), first_seen, last_seen
        FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::int[], $7::text[],
                    $8::timestamptz[], $9::timestamptz[])
             AS u(subject_id, anchor, data_class, carrier, lane, lane_version, fields, first_seen, last_seen)
        ON CONFLICT (subject_id, anchor, data_class, carrier, lane, lane_version) DO UPDATE SET
            fields = ARRAY(SELECT DISTINCT f FROM unnest(r.fields || excluded.fields) f ORDER BY f),
            first_seen = least(r.first_seen, excluded.first_seen),
            last_seen = greatest(r.last_seen, excluded.last_seen)
        WHERE excluded.first_seen < r.first_seen OR excluded.last_seen > r.last_seen OR NOT excluded.fields <@ r.fields""",
        [receipt.subject_id for receipt in receipts],
        [receipt.anchor for receipt in receipts],
        [receipt.data_class for receipt in receipts],
        [receipt.carrier for receipt in receipts],
        [receipt.lane for receipt in receipts],
        [receipt.lane_version for receipt in receipts],
        [",".join(sorted(receipt.fields)) for receipt in receipts],
        [receipt.first_seen for receipt in receipts],
        [receipt.last_seen for receipt in receipts],
    )


async def named_by_events(db: Database, subject_ids: Sequence[UUID]) -> set[UUID]:
    """Those whom an event names as a person: as account or guest, buyer or consignee. Our own commands do not count."""
    rows = await db.fetch(
        """-- named_by_events
        SELECT DISTINCT subject_id FROM inventory WHERE subject_id = ANY($1::uuid[]) AND system <> 'privacy'""",
        list(subject_ids),
    )
    return {row["subject_id"] for row in rows}


async def read_inventory(tx: Tx, subject_id: UUID, paging: Paging) -> list[Record]:
    """The person's rows in the order of first sight; `place` tells rows of the same moment apart."""
    return await tx.fetch(
        """-- read_inventory
        SELECT * FROM (
            SELECT system, data_class, anchor, first_seen, last_seen,
                   md5(concat_ws(' ', system, data_class, anchor))::uuid AS place
            FROM inventory WHERE subject_id = $1
        ) AS rows
        WHERE $2::timestamptz IS NULL OR (first_seen, place) > ($2, $3::uuid) ORDER BY first_seen, place LIMIT $4""",
        subject_id,
        paging.after.at if paging.after else None,
        paging.after.id if paging.after else None,
        paging.fetch,
    )


async def read_recipients(tx: Tx, subject_id: UUID, anchors: Sequence[UUID]) -> list[Record]:
    """Who received something of the person that hangs on these anchors."""
    return await tx.fetch(
        """-- read_recipients
        SELECT anchor, data_class, carrier, lane, lane_version, fields, first_seen, last_seen
        FROM recipients WHERE subject_id = $1 AND anchor = ANY($2::uuid[]) ORDER BY first_seen, carrier, lane, lane_version""",
        subject_id,
        list(anchors),
    )


async def insert_access_records(
    tx: Tx, staff_id: UUID, role: str, looked_at: datetime, kind: str, subject_ids: Sequence[UUID]
) -> None:
    """One row for each person seen; one without a person when nobody was."""
    await tx.execute(
        """-- insert_access_records
        INSERT INTO staff_looks (staff_id, role, looked_at, kind, subject_id)
        SELECT $1, $2, $3, $4, seen FROM unnest($5::uuid[]) AS seen""",
        staff_id,
        role,
        looked_at,
        kind,
        list(subject_ids) or [None],
    )


async def insert_reported_access(tx: Tx, kind: str, reported: Sequence[Received[TaxRecordRead]]) -> None:
    """One row for each event; none for one that has a row already."""
    await tx.execute(
        """-- insert_reported_access
        INSERT INTO staff_looks (staff_id, role, looked_at, kind, subject_id, event_id)
        SELECT staff_id, role, looked_at, $1, subject_id, event_id
        FROM unnest($2::uuid[], $3::varchar[], $4::timestamptz[], $5::uuid[], $6::uuid[])
            AS reported (staff_id, role, looked_at, subject_id, event_id)
        ON CONFLICT (event_id) WHERE event_id IS NOT NULL DO NOTHING""",
        kind,
        [each.event.staff_id for each in reported],
        [each.event.role for each in reported],
        [each.time for each in reported],
        [each.event.buyer_id for each in reported],
        [each.id for each in reported],
    )
