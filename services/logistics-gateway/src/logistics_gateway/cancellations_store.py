"""SQL of the remembered cancellations: ids of shipments that must never leave, and since when."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from servicekit import Tx

PAGE = 500


async def remember(tx: Tx, shipment_ids: Sequence[UUID], now: datetime) -> None:
    """Keeps those that the ledger does not have."""
    if shipment_ids:
        await tx.execute(
            """-- remember
            INSERT INTO early_cancellations (shipment_id, arrived_at)
            SELECT u.shipment_id, $2 FROM unnest($1::uuid[]) AS u(shipment_id)
            WHERE NOT EXISTS (SELECT FROM disclosures d WHERE d.shipment_id = u.shipment_id)
            ON CONFLICT DO NOTHING""",
            list(shipment_ids),
            now,
        )


async def remembered(tx: Tx, shipment_ids: Sequence[UUID]) -> set[UUID]:
    """Which of the shipments were cancelled before their orders came."""
    if not shipment_ids:
        return set()
    rows = await tx.fetch(
        "-- remembered\nSELECT shipment_id FROM early_cancellations WHERE shipment_id = ANY($1::uuid[])",
        list(shipment_ids),
    )
    return {row["shipment_id"] for row in rows}


async def take(tx: Tx) -> list[UUID]:
    """Takes out a page of those that the ledger has by now."""
    rows = await tx.fetch(
        f"""-- take
        DELETE FROM early_cancellations e USING (
            SELECT shipment_id FROM early_cancellations JOIN disclosures USING (shipment_id) LIMIT {PAGE}
        ) found WHERE e.shipment_id = found.shipment_id RETURNING e.shipment_id"""  # noqa: S608 - a number of our own
    )
    return [row["shipment_id"] for row in rows]


async def forget(tx: Tx, before: datetime) -> int:
    """Forgets those whose orders cannot come any more. Returns how many."""
    status = await tx.execute("-- forget\nDELETE FROM early_cancellations WHERE arrived_at < $1", before)
    return int(status.split()[-1])
