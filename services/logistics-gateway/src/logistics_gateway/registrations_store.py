"""SQL of the sealed registrations: one row for each order that has one, until it is erased."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from event_contracts import Sealed
from event_contracts.order import Registration
from servicekit import Tx
from servicekit.db.postgres import Database


async def keep(tx: Tx, kept: Sequence[tuple[UUID, UUID, Sealed[Registration]]]) -> None:
    """Of each: subject, order, what is sealed."""
    if kept:
        await tx.execute(
            """-- keep
            INSERT INTO registrations (subject_id, order_id, registration)
            SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bytea[]) ON CONFLICT DO NOTHING""",
            [subject_id for subject_id, _, _ in kept],
            [order_id for _, order_id, _ in kept],
            [sealed.token for _, _, sealed in kept],
        )


async def kept(db: Database, orders: Sequence[tuple[UUID, UUID]]) -> dict[UUID, Sealed[Any]]:
    """By order, of these (subject, order)."""
    rows = await db.fetch(
        """-- kept
        SELECT r.order_id, r.registration FROM registrations r
        JOIN unnest($1::uuid[], $2::uuid[]) AS u(subject_id, order_id) USING (subject_id, order_id)""",
        [subject_id for subject_id, _ in orders],
        [order_id for _, order_id in orders],
    )
    return {row["order_id"]: Sealed(row["registration"]) for row in rows}
