"""SQL of the history of requests."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from privacy_service.history.domain import HistoryEntry
from servicekit import Record, Tx
from servicekit.db.postgres import Database


async def write_history(tx: Tx, entries: Sequence[HistoryEntry], now: datetime) -> None:
    await tx.execute(
        """-- write_history
        INSERT INTO rights_history (request_id, subject_id, at, what, by_id, by_role, reason)
        SELECT r, s, $3, what, by_id, by_role, reason
        FROM unnest($1::uuid[], $2::uuid[], $4::text[], $5::uuid[], $6::text[], $7::text[])
             WITH ORDINALITY AS u(r, s, what, by_id, by_role, reason, place) ORDER BY place""",
        [entry.request_id for entry in entries],
        [entry.subject_id for entry in entries],
        now,
        [entry.what for entry in entries],
        [entry.by.person_id if entry.by else None for entry in entries],
        [entry.by.role if entry.by else "system" for entry in entries],
        [entry.reason for entry in entries],
    )


async def read_history(db: Database, request_id: UUID) -> list[Record]:
    return await db.fetch(
        """-- read_history
        SELECT at, what, by_role, subject_id, reason FROM rights_history WHERE request_id = $1 ORDER BY number""",
        request_id,
    )
