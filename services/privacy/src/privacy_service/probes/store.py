"""All SQL of the probes."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from event_contracts.privacy import HoldingsCounted
from servicekit import Received, Record, Tx
from servicekit.db.postgres import Database


async def write_probe(tx: Tx, request_id: UUID, subject_id: UUID, asked_at: datetime) -> None:
    await tx.execute("-- write_probe\nINSERT INTO probes VALUES ($1, $2, $3)", request_id, subject_id, asked_at)


async def write_replies(tx: Tx, received: Sequence[Received[HoldingsCounted]]) -> None:
    """The first reply of a system counts; a reply without a question of ours is dropped."""
    await tx.execute(
        """-- write_replies
        INSERT INTO probe_answers (request_id, system, row_count, answered_at)
        SELECT u.* FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::timestamptz[])
               AS u(request_id, system, row_count, answered_at)
        JOIN probes USING (request_id) ON CONFLICT DO NOTHING""",
        [each.event.request_id for each in received],
        [each.event.system for each in received],
        [each.event.row_count for each in received],
        [each.time for each in received],
    )


async def read_probe(db: Database, request_id: UUID) -> Record | None:
    return await db.fetchrow("-- read_probe\nSELECT subject_id, asked_at FROM probes WHERE request_id = $1", request_id)


async def read_replies(db: Database, request_id: UUID) -> list[Record]:
    return await db.fetch(
        "-- read_replies\nSELECT system, row_count, answered_at FROM probe_answers WHERE request_id = $1", request_id
    )
