"""What the routes answer, and what staff send. A buyer's bodies are in `purchases`."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from event_contracts.codes import Currency, FieldPath, LaneId, Minor, SystemName
from event_contracts.order import CloseReason, Consignee, Invoice, OrderLine, OrderRecord, Parcel, Registration, Service
from order_service.domain import Status
from order_service.numbers import ShopNumber
from servicekit.core.errors import FieldProblem


class ErasedPart(BaseModel):
    """Stands for a part whose key is gone: its content cannot be read by anybody any more."""

    erased: Literal[True] = True


class OrderState(BaseModel):
    """`status_at`: since when the order has this status. `gift`: the consignee is another person than the buyer.

    `blocked`: why the order cannot leave now, such as `no_lane`. It leaves, or ends as cancelled after 14 days."""

    order_id: UUID
    status: Status
    status_at: datetime
    placed_at: datetime
    gift: bool
    blocked: FieldPath | None = None
    blocked_since: datetime | None = None


class RecordPart(BaseModel):
    """Amounts in minor units of the currency; total = lines + shipping - discount, and + tax unless `tax_included`."""

    order_number: str
    shop_order_number: str | None = None
    lines: list[OrderLine]
    currency: Currency
    shipping: Minor
    discount: Minor
    tax: Minor
    tax_included: bool
    total: Minor


class DeliveryPart(BaseModel):
    consignee: Consignee
    service: Service
    parcels: list[Parcel]
    invoice: Invoice | None = None


class OrderSummary(OrderState):
    record: RecordPart | ErasedPart


class OrderDetail(OrderSummary):
    delivery: DeliveryPart | ErasedPart
    registration: Registration | None = None


class OrderConfirmation(OrderState):
    """What was ordered, in one piece; `erased` when the order's record is gone, and then nothing of it is shown."""

    order_number: str | None = None
    shop_order_number: str | None = None
    lines: list[OrderLine] | None = None
    currency: Currency | None = None
    shipping: Minor | None = None
    discount: Minor | None = None
    tax: Minor | None = None
    tax_included: bool | None = None
    total: Minor | None = None
    erased: Literal[True] | None = None


class QuoteAnswer(BaseModel):
    """`lane` and `carrier` are absent where no carrier takes the parcel. `fields`: what the carrier would get."""

    lane: LaneId | None = None
    carrier: SystemName | None = None
    fields: list[str]
    problems: list[FieldProblem]


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


class TaxRecord(BaseModel):
    """The record of one order, and when it was placed."""

    order_id: UUID
    placed_at: datetime
    record: OrderRecord
