"""What support may do with orders that are stuck: see how far they are, and end them. Nothing about a person is shown."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict

from event_contracts.codes import FieldPath
from event_contracts.order import CloseReason
from order_service import closing
from order_service.domain import Status
from order_service.numbers import ShopNumber
from servicekit import Kit, Staff, staff

Support = Annotated[Staff, Depends(staff("support"))]


class OrderNumber(BaseModel):
    """Ours, or the shop's own."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)
    order_number: ShopNumber


class Closing(BaseModel):
    """What became of the order."""

    model_config = ConfigDict(extra="forbid")
    reason: CloseReason


class StuckOrder(BaseModel):
    """How far an order is; nothing about a person."""

    order_id: UUID
    status: Status
    status_at: datetime
    placed_at: datetime
    blocked: FieldPath | None
    blocked_since: datetime | None


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
