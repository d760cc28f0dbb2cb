"""All SQL about erased deliveries: what becomes of the ledger's lines, the notices to carriers, and who asked for answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import UUID

from logistics_gateway.store import PAGE
from servicekit import Record, Tx
from servicekit.db.postgres import Database
from servicekit.participant.holdings import Erasure


async def erasures_due(db: Database, skip: Iterable[UUID]) -> list[Record]:
    """A page of shipments whose carrier must still be told of the erasure, without `skip`."""
    return await db.fetch(
        f"""-- erasures_due
        SELECT shipment_id, subject_id, carrier, not_after FROM disclosures
        WHERE erasure = 'due' AND shipment_id <> ALL($1::uuid[]) ORDER BY shipment_id LIMIT {PAGE}""",  # noqa: S608
        list(skip),
    )


async def erase(tx: Tx, erasures: Sequence[Erasure]) -> dict[UUID, int]:
    """What has not left never leaves; of what left, or may have, the carrier is to be told. Returns the lines changed, by
    person."""
    rows = await tx.fetch(
        """-- erase
        WITH changed AS (
            UPDATE disclosures d SET
                erasure = CASE WHEN carrier IS NOT NULL THEN coalesce(erasure, 'due') END,
                erasure_request = CASE WHEN carrier IS NOT NULL THEN coalesce(erasure_request, u.request_id) END,
                reason = CASE WHEN state IN ('recorded', 'blocked') THEN 'erased' ELSE reason END,
                state = CASE WHEN state = 'sent' THEN state ELSE 'withheld' END,
                delivery = NULL, next_try_at = NULL
            FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) AS u(subject_id, request_id, key_id)
            WHERE d.subject_id = u.subject_id AND d.key_id = u.key_id
                AND (state IN ('recorded', 'blocked') OR (carrier IS NOT NULL AND erasure IS NULL))
            RETURNING d.subject_id
        ) SELECT subject_id, count(*) AS rows FROM changed GROUP BY 1""",
        [erasure.subject for erasure in erasures for _ in erasure.key_ids],
        [erasure.request_id for erasure in erasures for _ in erasure.key_ids],
        [key_id for erasure in erasures for key_id in erasure.key_ids],
    )
    return {row["subject_id"]: row["rows"] for row in rows}


async def mark_erasures(tx: Tx, shipment_ids: Sequence[UUID], now: datetime) -> set[UUID]:
    """due → sent. Returns the persons for whom that is news."""
    if not shipment_ids:
        return set()
    rows = await tx.fetch(
        """-- mark_erasures
        UPDATE disclosures SET erasure = 'sent', erasure_sent_at = $2
        WHERE shipment_id = ANY($1::uuid[]) AND erasure = 'due' RETURNING subject_id""",
        list(shipment_ids),
        now,
    )
    return {row["subject_id"] for row in rows}


async def ask_recipients(tx: Tx, asked: Sequence[tuple[UUID, UUID]], now: datetime) -> None:
    """Notes who asked: (request, subject) each. Their disclosures are locked first, so that no answer slips through."""
    await tx.fetch(
        """-- ask_recipients: lock
        SELECT FROM disclosures WHERE subject_id = ANY($1::uuid[]) AND erasure IS NOT NULL
        ORDER BY shipment_id FOR UPDATE""",
        [subject_id for _, subject_id in asked],
    )
    await tx.execute(
        """-- ask_recipients
        INSERT INTO recipient_requests (request_id, subject_id, asked_at)
        SELECT u.*, $3 FROM unnest($1::uuid[], $2::uuid[]) AS u(request_id, subject_id) ON CONFLICT DO NOTHING""",
        [request_id for request_id, _ in asked],
        [subject_id for _, subject_id in asked],
        now,
    )


async def recipients(tx: Tx, subject_ids: Iterable[UUID]) -> list[Record]:
    """For each request about these persons and each carrier: its shipments, and how many it was told of and answered.

    `told_at` is when the last notice was sent, NULL while one is due. A request without carriers has one row without.
    The requests' rows are locked, so that of two changes the later one sees both.
    """
    subjects = list(subject_ids)
    await tx.fetch(
        """-- recipients: lock
        SELECT FROM recipient_requests WHERE subject_id = ANY($1::uuid[])
        ORDER BY subject_id, request_id FOR UPDATE""",
        subjects,
    )
    return await tx.fetch(
        """-- recipients
        SELECT r.request_id, r.subject_id, d.carrier, count(d.shipment_id) AS shipments, count(d.erased_at) AS answered,
            count(*) FILTER (WHERE d.erasure = 'sent' OR d.erased_at IS NOT NULL) AS told,
            CASE WHEN bool_and(d.erasure = 'sent') THEN max(d.erasure_sent_at) END AS told_at
        FROM recipient_requests r LEFT JOIN disclosures d ON d.subject_id = r.subject_id AND d.erasure IS NOT NULL
        WHERE r.subject_id = ANY($1::uuid[])
        GROUP BY r.request_id, r.subject_id, d.carrier ORDER BY r.request_id, r.subject_id, d.carrier""",
        subjects,
    )
