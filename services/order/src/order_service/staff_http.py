"""What support may do with orders that are stuck: see how far they are, and end them. Nothing about a person is shown."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends

from order_service import closing
from order_service.schemas import Closing, OrderNumber, StuckOrder
from servicekit import Kit, Staff, staff

Support = Annotated[Staff, Depends(staff("support"))]


def staff_router(kit: Kit) -> APIRouter:
    router = APIRouter(tags=["orders"])

    @router.post("/v1/orders/find")
    async def find_orders(asked: OrderNumber, who: Support) -> list[StuckOrder]:
        """How far the orders of this number are, for staff: without anything about a person."""
        return [StuckOrder(**dict(row)) for row in await closing.find_orders(kit, asked.order_number)]

    @router.post("/v1/orders/{order_id}/close")
    async def close_order(order_id: UUID, stated: Closing, who: Support) -> StuckOrder:
        """Ends an order that is stuck, on record; 409 when that cannot be its end. Doing it again changes nothing."""
        return StuckOrder(**dict(await closing.close_order(kit, who, order_id, stated.reason)))

    return router
