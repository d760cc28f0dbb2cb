"""Where a parcel is, as schema.org words it: a `ParcelDelivery` in JSON-LD. It names no person."""

from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from order_service.domain import Status
from order_service.handlers import Order

_SCHEMA: Final = "https://schema.org"
# schema.org/OrderStatus
_ORDER_STATUS: Final[dict[Status, str]] = {
    Status.PLACED: "OrderProcessing",
    Status.CONFIRMED: "OrderProcessing",
    Status.LABEL_CREATED: "OrderProcessing",
    Status.DELIVERED: "OrderDelivered",
    Status.RETURNED: "OrderReturned",
    Status.LOST: "OrderProblem",
    Status.UNKNOWN: "OrderProblem",
    Status.FAILED_ATTEMPT: "OrderProblem",
    Status.CANCELLED: "OrderCancelled",
}


class LdJsonResponse(JSONResponse):
    media_type = "application/ld+json"


class _Thing(BaseModel):
    model_config = ConfigDict(populate_by_name=True)


class DeliveryEvent(_Thing):
    """`name` is the order's status, `startDate` since when it has it."""

    type: Literal["DeliveryEvent"] = Field("DeliveryEvent", alias="@type")
    name: Status
    startDate: datetime  # noqa: N815 - schema.org's names


class Provider(_Thing):
    type: Literal["Organization"] = Field("Organization", alias="@type")
    name: str


class PartOfOrder(_Thing):
    type: Literal["Order"] = Field("Order", alias="@type")
    identifier: UUID
    orderNumber: str | None  # noqa: N815
    orderDate: datetime  # noqa: N815
    orderStatus: str  # noqa: N815


class ParcelDelivery(_Thing):
    """schema.org/ParcelDelivery. `trackingNumber` and `trackingUrl` are there once the carrier has named them, and as long as
    they are not erased.
    """

    context: Literal["https://schema.org"] = Field(_SCHEMA, alias="@context")
    type: Literal["ParcelDelivery"] = Field("ParcelDelivery", alias="@type")
    trackingNumber: str | None  # noqa: N815
    trackingUrl: str | None  # noqa: N815
    deliveryStatus: DeliveryEvent  # noqa: N815
    provider: Provider | None
    partOfOrder: PartOfOrder  # noqa: N815


def parcel_delivery(order: Order, carrier: str | None) -> ParcelDelivery:
    """`carrier` is the name under which people know who has the parcel."""
    tracking, record = order.tracking, order.record
    status = _ORDER_STATUS.get(order.status, "OrderInTransit")
    return ParcelDelivery(
        trackingNumber=tracking.number if tracking else None,
        trackingUrl=tracking.url if tracking else None,
        deliveryStatus=DeliveryEvent(name=order.status, startDate=order.status_at),
        provider=Provider(name=carrier) if carrier else None,
        partOfOrder=PartOfOrder(
            identifier=order.order_id,
            orderNumber=record.order_number if record else None,
            orderDate=order.placed_at,
            orderStatus=f"{_SCHEMA}/{status}",
        ),
    )
