"""The record of an order for the accounting staff: what was sold, for how much, with which tax. Who bought it is not in it.

It can be read as long as tax law keeps it, also when the buyer's data is erased otherwise. Every look is on record: the event
becomes a leaf of the evidence and a line of what the buyer is shown about themselves.
"""

from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Depends

from event_contracts import Erased
from event_contracts.order import OrderRecord, ReadReason, TaxRecordRead
from order_service import store
from order_service.holdings import RECORDS
from order_service.schemas import TaxRecord
from servicekit import Kit, Limit, Staff, Tx, limited, staff
from servicekit.core.errors import Gone, NotFound

PURPOSE: Final = "tax"
LOOKS: Final = Limit("tax_records", 60, 60)
Accountant = Annotated[Staff, Depends(staff("accounting"))]


def accounting_router(kit: Kit) -> APIRouter:
    router = APIRouter(tags=["accounting"])

    @router.get("/v1/tax-records/{order_id}", openapi_extra=limited(LOOKS), response_model_exclude_none=True)
    async def read_tax_record(order_id: UUID, reason: ReadReason, who: Accountant) -> TaxRecord:
        """The record of an order, for a stated reason; the look is on record. 410 when the record is erased."""
        return await read_record(kit, who, order_id, reason)

    return router


async def read_record(kit: Kit, who: Staff, order_id: UUID, reason: ReadReason) -> TaxRecord:
    """The order's record; the look is committed before it is shown. Raises `NotFound`, `Gone` when it is erased."""
    row = await store.find_order(kit.db, order_id)
    if row is None:
        raise NotFound
    opening = RECORDS.openings(row).get("record")
    record = Erased if opening is None else await kit.open(opening, purpose=PURPOSE)
    if not isinstance(record, OrderRecord):
        raise Gone("The record of this order is erased: the time for which the law keeps it is over.")
    look = TaxRecordRead(
        order_id=order_id, buyer_id=row["buyer_id"], staff_id=who.staff_id, role=who.role, reason=reason
    )

    async def work(tx: Tx) -> None:
        await tx.emit(look)

    await kit.run_tx("read_tax_record", work)
    return TaxRecord(order_id=order_id, placed_at=row["placed_at"], record=record)
