"""The rules of orders, pure: no I/O, no clock, no randomness."""

from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from math import ceil
from typing import Annotated, Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from event_contracts.account import Email, Line, Phone
from event_contracts.codes import MAX_MINOR, Country, Currency, Grams, HsCode, Minor, Quantity
from event_contracts.order import (
    Consignee,
    CustomsLine,
    Delivery,
    OrderLine,
    OrderRecord,
    Parcel,
    Payment,
    Service,
    SkuText,
)
from servicekit.errors import Conflict, Invalid

# What is assumed of goods whose parcels the buyer does not describe: a parcel weighs at most 30 kg, its packaging a tenth of
# its goods and at least 100 g, and 1 kg fills 5,000 cm³, as in the carriers' volumetric weight (IATA TACT rule 3.9.4).
PARCEL_GRAMS: Final = 30_000
CUBIC_CM_PER_GRAM: Final = 5
MAX_PARCELS: Final = 20
_SHORTEST_SIDE: Final = 10
_BASE32: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford: no I, L, O, U
_Centimetres = Annotated[int, Field(ge=1, le=1_000)]


class Status(StrEnum):
    PLACED = "placed"
    CONFIRMED = "confirmed"
    HANDED_OVER = "handed_over"
    DELIVERED = "delivered"
    CANCELLED = "cancelled"


# From which states an order gets into one. The later state wins, so an event that comes late changes nothing; what was
# delivered or cancelled stays so. A carrier may skip states.
BEFORE: Final[dict[Status, tuple[Status, ...]]] = {
    Status.CONFIRMED: (Status.PLACED,),
    Status.HANDED_OVER: (Status.PLACED, Status.CONFIRMED),
    Status.DELIVERED: (Status.PLACED, Status.CONFIRMED, Status.HANDED_OVER),
    Status.CANCELLED: (Status.PLACED, Status.CONFIRMED),
}


def cancels(status: Status) -> bool:
    """Whether cancelling changes anything: not when the order is cancelled. Raises `Conflict` once it was handed over."""
    if status not in (*BEFORE[Status.CANCELLED], Status.CANCELLED):
        raise Conflict("The parcel is with the carrier already, so the order cannot be cancelled. Send the goods back.")
    return status is not Status.CANCELLED


def is_correctable(status: Status) -> bool:
    """Whether the parcel of such an order can still be changed."""
    return status in BEFORE[Status.HANDED_OVER]


def check_correctable(status: Status) -> None:
    """Raises `Conflict` for an order whose parcel can no longer be changed."""
    if not is_correctable(status):
        raise Conflict("The order is no longer under way to the carrier, so its consignee cannot be corrected.")


class _Stated(BaseModel):
    """A part of what a buyer states. Nothing is converted and no unknown field is accepted; its repr shows no content."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    __str__ = __repr__


class PurchaseLine(_Stated):
    """One line: `unit_price` in minor units of the currency, `net_weight_g` of all its pieces together."""

    sku: SkuText
    description: Line
    quantity: Quantity
    unit_price: Minor
    net_weight_g: Grams
    origin_country: Country
    hs_code: HsCode


class PurchaseConsignee(_Stated):
    name: Line
    company: Line | None = None
    lines: Annotated[list[Line], Field(min_length=1, max_length=3)]
    city: Line
    state: Line | None = None
    postal_code: Line
    country: Country
    phone: Phone
    email: Email | None = None


class PurchaseParcel(_Stated):
    weight_g: Grams
    length_cm: _Centimetres
    width_cm: _Centimetres
    height_cm: _Centimetres


class PurchasePayment(_Stated):
    """The payment provider's verification token; never a card number (policy C1)."""

    token: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{8,128}$")]


class Purchase(_Stated):
    """What a buyer states to place an order. `gift`: the consignee is another person. `parcels` follow from the lines
    when they are absent."""

    lines: Annotated[list[PurchaseLine], Field(min_length=1, max_length=100)]
    currency: Currency
    consignee: PurchaseConsignee
    gift: bool
    service: Annotated[Service, Field(strict=False)]  # JSON has no enums
    payment: PurchasePayment
    parcels: Annotated[list[PurchaseParcel], Field(min_length=1, max_length=MAX_PARCELS)] | None = None


@dataclass(frozen=True)
class Parts:
    """The personal parts of one order, to be sealed apart: the carrier's, the shop's, the payment provider's."""

    delivery: Delivery
    record: OrderRecord
    payment: Payment


def order_number(order_id: UUID) -> str:
    """What people call an order, such as `7ZK3M-0Q9XA`: 50 bits of a hash of its id. It never stands in clear beside it."""
    bits = int.from_bytes(sha256(b"order-number/v1" + order_id.bytes).digest()[:8], "big") >> 14
    digits = "".join(_BASE32[bits >> shift & 31] for shift in range(45, -5, -5))
    return f"{digits[:5]}-{digits[5:]}"


def split_purchase(order_id: UUID, purchase: Purchase) -> Parts:
    """Divides a purchase into its parts. Raises `Invalid` when its sum or weight is beyond what one order can have."""
    total = sum(line.quantity * line.unit_price for line in purchase.lines)
    if total > MAX_MINOR:
        raise Invalid("The order's total is larger than one order can have. Place several orders.")
    delivery = Delivery(
        consignee=consignee_of(purchase.consignee),
        service=purchase.service,
        parcels=_parcels(purchase),
        customs=tuple(_customs_line(line, purchase.currency) for line in purchase.lines),
    )
    lines = tuple(
        OrderLine(sku=line.sku, description=line.description, quantity=line.quantity, unit_price=line.unit_price)
        for line in purchase.lines
    )
    record = OrderRecord(order_number=order_number(order_id), lines=lines, currency=purchase.currency, total=total)
    return Parts(delivery, record, Payment(token=purchase.payment.token))


def corrected(delivery: Delivery, consignee: Consignee) -> Delivery:
    """The delivery to this consignee. Raises `Invalid` for another country: that would be another carrier's."""
    if consignee.country != delivery.consignee.country:
        raise Invalid("The country of an order cannot be corrected. Cancel the order and place another one.")
    return delivery.model_copy(update={"consignee": consignee})


def consignee_of(stated: PurchaseConsignee) -> Consignee:
    return Consignee(**{**dict(stated), "lines": tuple(stated.lines)})


def _customs_line(line: PurchaseLine, currency: Currency) -> CustomsLine:
    return CustomsLine(
        description=line.description,
        quantity=line.quantity,
        net_weight_g=line.net_weight_g,
        value=line.quantity * line.unit_price,
        currency=currency,
        origin_country=line.origin_country,
        hs_code=line.hs_code,
    )


def _parcels(purchase: Purchase) -> tuple[Parcel, ...]:
    if purchase.parcels is not None:
        return tuple(Parcel(**dict(parcel)) for parcel in purchase.parcels)
    goods = sum(line.net_weight_g for line in purchase.lines)
    weight = goods + max(100, ceil(goods / 10))
    count = ceil(weight / PARCEL_GRAMS)
    if count > MAX_PARCELS:
        raise Invalid(
            "The goods are too heavy for the parcels of one order. State the parcels, or place several orders."
        )
    each = ceil(weight / count)
    side = max(_SHORTEST_SIDE, ceil((each * CUBIC_CM_PER_GRAM) ** (1 / 3)))
    return (Parcel(weight_g=each, length_cm=side, width_cm=side, height_cm=side),) * count
