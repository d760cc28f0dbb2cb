"""SQL of what support typed in for a rectification: sealed, and kept until the request ends."""

from collections.abc import Sequence
from uuid import UUID

from event_contracts.account import ContactCorrection, IdentityCorrection
from event_contracts.order import DeliveryCorrection
from event_contracts.personal import Sealed
from servicekit import Record, Tx


async def write_rectification(
    tx: Tx,
    request_id: UUID,
    subject_id: UUID,
    identity: Sealed[IdentityCorrection] | None,
    contact: Sealed[ContactCorrection] | None,
) -> None:
    await tx.execute(
        "-- write_rectification\nINSERT INTO rectifications VALUES ($1, $2, $3, $4)",
        request_id,
        subject_id,
        identity,
        contact,
    )


async def write_delivery_correction(
    tx: Tx, request_id: UUID, subject_id: UUID, order_id: UUID, delivery: Sealed[DeliveryCorrection]
) -> None:
    await tx.execute(
        "-- write_delivery_correction\nINSERT INTO delivery_corrections VALUES ($1, $2, $3, $4)",
        request_id,
        subject_id,
        order_id,
        delivery,
    )


async def read_rectifications(tx: Tx, request_ids: Sequence[UUID]) -> list[Record]:
    """Of each request what was typed in, as far as it is there: of the person, or of one delivery."""
    return await tx.fetch(
        """-- read_rectifications
        SELECT request_id, subject_id, identity, contact, order_id, delivery
        FROM rectifications FULL JOIN delivery_corrections USING (request_id, subject_id)
        WHERE request_id = ANY($1::uuid[])""",
        list(request_ids),
    )


async def forget_rectifications(tx: Tx, request_ids: Sequence[UUID]) -> None:
    await tx.execute(
        """-- forget_rectifications
        WITH deliveries AS (DELETE FROM delivery_corrections WHERE request_id = ANY($1::uuid[]))
        DELETE FROM rectifications WHERE request_id = ANY($1::uuid[])""",
        list(request_ids),
    )
