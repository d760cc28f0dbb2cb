"""The rules of orders, pure: no I/O, no clock, no randomness."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from hashlib import sha256
from math import ceil
from typing import Final
from uuid import UUID

from event_contracts.codes import MAX_MINOR, Currency
from event_contracts.order import (
    Consignee,
    CustomsLine,
    Delivery,
    Invoice,
    OrderLine,
    OrderRecord,
    Parcel,
    Payment,
    Registration,
)
from order_service.purchases import MAX_PARCELS, Purchase, PurchaseConsignee, PurchaseLine, QuotePurchase
from order_service.registrations import registration_of
from servicekit.core.errors import OTHER_FORM, Conflict, FieldProblem, Invalid, InvalidFields

# What is assumed of goods whose parcels the buyer does not describe: a parcel weighs at most 30 kg, its packaging a tenth of
# its goods and at least 100 g, and 1 kg fills 5,000 cm³, as in the carriers' volumetric weight (IATA TACT rule 3.9.4).
PARCEL_GRAMS: Final = 30_000
CUBIC_CM_PER_GRAM: Final = 5
_SHORTEST_SIDE: Final = 10
_BASE32: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford: no I, L, O, U


class Status(StrEnum):
    PLACED = "placed"
    CONFIRMED = "confirmed"
    LABEL_CREATED = "label_created"
    HANDED_OVER = "handed_over"
    IN_TRANSIT = "in_transit"
    OUT_FOR_DELIVERY = "out_for_delivery"
    FAILED_ATTEMPT = "failed_attempt"
    DELIVERED = "delivered"
    RETURNED = "returned"
    LOST = "lost"
    UNKNOWN = "unknown"
    CANCELLED = "cancelled"


# The states of an order under way, in their order.
OPEN: Final = (
    Status.PLACED,
    Status.CONFIRMED,
    Status.LABEL_CREATED,
    Status.HANDED_OVER,
    Status.IN_TRANSIT,
    Status.OUT_FOR_DELIVERY,
    Status.FAILED_ATTEMPT,
)
ENDS: Final = tuple(status for status in Status if status not in OPEN)
# From which states an order gets into one. The later state wins, so an event that comes late changes nothing; an end is for
# good, but for one: of a parcel whose carrier was silent, a late word counts. A carrier may skip states.
BEFORE: Final[dict[Status, tuple[Status, ...]]] = {
    **{status: OPEN[:place] for place, status in enumerate(OPEN) if place},
    Status.UNKNOWN: OPEN,
    **dict.fromkeys((Status.DELIVERED, Status.RETURNED, Status.LOST), (*OPEN, Status.UNKNOWN)),
    Status.CANCELLED: OPEN[: OPEN.index(Status.HANDED_OVER)],
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


@dataclass(frozen=True)
class Parts:
    """The personal parts of one order, to be sealed apart: the carrier's, the shop's, the payment provider's."""

    delivery: Delivery
    record: OrderRecord
    payment: Payment
    registration: Registration | None


def order_number(order_id: UUID) -> str:
    """What people call an order, such as `7ZK3M-0Q9XA`: 50 bits of a hash of its id. It never stands in clear beside it."""
    bits = int.from_bytes(sha256(b"order-number/v1" + order_id.bytes).digest()[:8], "big") >> 14
    digits = "".join(_BASE32[bits >> shift & 31] for shift in range(45, -5, -5))
    return f"{digits[:5]}-{digits[5:]}"


def split_purchase(order_id: UUID, purchase: Purchase, placed_on: date) -> Parts:
    """Divides a purchase into its parts. Raises `Invalid` when its sum or weight is beyond what one order can have, and
    `InvalidFields` when its amounts do not fit together.
    """
    total, number = order_total(purchase), order_number(order_id)
    delivery = delivery_of(purchase, number, placed_on)
    lines = tuple(
        OrderLine(**line.model_dump(include={"sku", "description", "quantity", "unit_price", "tax"}))
        for line in purchase.lines
    )
    record = OrderRecord(
        order_number=number,
        shop_order_number=purchase.shop_order_number,
        lines=lines,
        currency=purchase.currency,
        shipping=purchase.shipping,
        discount=purchase.discount,
        tax=_tax(purchase),
        tax_included=purchase.tax_included,
        total=total,
    )
    return Parts(delivery, record, Payment(token=purchase.payment.token), registration_of(purchase.registration))


def delivery_of(purchase: QuotePurchase, number: str, placed_on: date) -> Delivery:
    """What the way to the consignee needs. Raises as `split_purchase` for parcels that do not follow from the lines."""
    invoice = purchase.invoice
    return Delivery(
        consignee=consignee_of(purchase.consignee),
        service=purchase.service,
        parcels=_parcels(purchase),
        customs=_customs(purchase),
        invoice=Invoice(number=purchase.shop_order_number or number, issued_on=placed_on)
        if invoice is None
        else Invoice(number=invoice.number, issued_on=invoice.issued_on),
    )


def _tax(purchase: QuotePurchase) -> int:
    return sum(line.tax for line in purchase.lines) if purchase.tax is None else purchase.tax


def order_total(purchase: QuotePurchase) -> int:
    """The order's total. Raises as `split_purchase`."""
    tax = _tax(purchase)
    gross = sum(line.quantity * line.unit_price for line in purchase.lines) + purchase.shipping
    if not purchase.tax_included:
        gross += tax
    total = gross - purchase.discount
    if gross > MAX_MINOR:
        raise Invalid("The order's total is larger than one order can have. Place several orders.")
    problems = list(_wrong_amounts(purchase, tax, total))
    if problems:
        raise InvalidFields(problems)
    return total


def _wrong_amounts(purchase: QuotePurchase, tax: int, total: int) -> Iterator[FieldProblem]:
    formula = "the sum of quantity × unit_price + shipping - discount" + ("" if purchase.tax_included else " + tax")
    if total < 0:
        yield FieldProblem(at="discount", code=OTHER_FORM, expected="At most what the order costs without it.")
    elif purchase.tax_included and tax > total:
        yield FieldProblem(
            at="tax", code=OTHER_FORM, expected="At most the total, which contains it; or tax_included: false."
        )
    if purchase.total not in (None, total):
        yield FieldProblem(at="total", code=OTHER_FORM, expected=f"In minor units (1999 is 19.99): {formula}.")


def corrected(delivery: Delivery, consignee: Consignee) -> Delivery:
    """The delivery to this consignee. Raises `Invalid` for another country: that would be another carrier's."""
    if consignee.country != delivery.consignee.country:
        raise Invalid("The country of an order cannot be corrected. Cancel the order and place another one.")
    return delivery.model_copy(update={"consignee": consignee})


def consignee_of(stated: PurchaseConsignee) -> Consignee:
    return Consignee(**dict(stated))


def missing_customs(purchase: QuotePurchase) -> Iterator[str]:
    """What customs needs and the lines lack, as paths such as `lines.0.hs_code`."""
    for place, line in enumerate(purchase.lines):
        for name in ("net_weight_g", "origin_country", "hs_code"):
            if getattr(line, name) is None:
                yield f"lines.{place}.{name}"


def _customs(purchase: QuotePurchase) -> tuple[CustomsLine, ...]:
    """All lines or none: a declaration that lacks goods is a wrong one."""
    lines = tuple(_customs_line(line, purchase.currency) for line in purchase.lines)
    return tuple(line for line in lines if line is not None) if None not in lines else ()


def _customs_line(line: PurchaseLine, currency: Currency) -> CustomsLine | None:
    if line.net_weight_g is None or line.origin_country is None or line.hs_code is None:
        return None
    return CustomsLine(
        description=line.description,
        quantity=line.quantity,
        net_weight_g=line.net_weight_g,
        value=line.quantity * line.unit_price,
        currency=currency,
        origin_country=line.origin_country,
        hs_code=line.hs_code,
    )


def _parcels(purchase: QuotePurchase) -> tuple[Parcel, ...]:
    if purchase.parcels is not None:
        return tuple(Parcel(**dict(parcel)) for parcel in purchase.parcels)
    weights = [line.net_weight_g for line in purchase.lines if line.net_weight_g is not None]
    if len(weights) < len(purchase.lines):
        expected = "The parcels with their weight in grams and sides in centimetres, or net_weight_g for every line."
        raise InvalidFields([FieldProblem(at="parcels", code="missing", expected=expected)])
    goods = sum(weights)
    weight = goods + max(100, ceil(goods / 10))
    count = ceil(weight / PARCEL_GRAMS)
    if count > MAX_PARCELS:
        raise Invalid(
            "The goods are too heavy for the parcels of one order. State the parcels, or place several orders."
        )
    each = ceil(weight / count)
    side = max(_SHORTEST_SIDE, ceil((each * CUBIC_CM_PER_GRAM) ** (1 / 3)))
    return (Parcel(weight_g=each, length_cm=side, width_cm=side, height_cm=side),) * count
