"""What the order service hears of shipments that cannot leave."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from event_contracts.logistics_gateway import ShipmentBlocked, ShipmentUnblocked
from logistics_gateway.domain import shipment_id_of
from servicekit import Record, Tx


def reasons(rows: Iterable[Record]) -> list[tuple[UUID, str | None]]:
    return [(row["order_id"], row["reason"]) for row in rows]


async def emit_blocked(tx: Tx, blocked: Iterable[tuple[UUID, str | None]]) -> None:
    """One `ShipmentBlocked` for each (order, reason) for which that is new."""
    await tx.emit(
        *(
            ShipmentBlocked(order_id=order_id, shipment_id=shipment_id_of(order_id), reason=reason or "unknown")
            for order_id, reason in blocked
        )
    )


async def emit_unblocked(tx: Tx, order_ids: Iterable[UUID]) -> None:
    await tx.emit(
        *(ShipmentUnblocked(order_id=order_id, shipment_id=shipment_id_of(order_id)) for order_id in order_ids)
    )
