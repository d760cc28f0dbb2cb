"""What the order service publishes. Delivery, order record and payment are sealed apart (policy C1, D2)."""

from datetime import date
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import Field, StringConstraints

from event_contracts.account import Email, Line, Phone
from event_contracts.codes import Country, Currency, Grams, HsCode, Minor, Quantity, Version, Word
from event_contracts.event import Event
from event_contracts.moments import Moment
from event_contracts.personal import PersonalData, Sealed, about, category
from event_contracts.texts import Plain

ORDER_EVENTS = "order.events"

_GOODS = "user.behavior.purchase_history"
_AUTHORITY = "user.government_id"
_Centimetres = Annotated[int, Field(ge=1, le=1_000)]
# A product as the shop spells it.
SkuText = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64), Plain]
# A number that an authority gave: the countries spell them in many ways.
RegistrationNumber = Annotated[str, StringConstraints(strip_whitespace=True, min_length=2, max_length=35), Plain]


class Service(StrEnum):
    STANDARD = "standard"
    EXPRESS = "express"


class Consignee(PersonalData):
    """Who receives the parcel; addresses in their own script, three lines at most.

    Some countries have no postal codes, and some lanes send no phone: the lane says what it needs.
    """

    name: Line = category("user.name")
    company: Line | None = category("user.contact", default=None)
    lines: tuple[Line, ...] = category("user.contact.address.street", min_length=1, max_length=3)
    city: Line = category("user.contact.address.city")
    state: Line | None = category("user.contact.address.state", default=None)
    postal_code: Line | None = category("user.contact.address.postal_code", default=None)
    country: Country = category("user.contact.address.country")
    phone: Phone | None = category("user.contact.phone_number", default=None)
    email: Email | None = category("user.contact.email", default=None)


class Parcel(PersonalData):
    weight_g: Grams = category(_GOODS)
    length_cm: _Centimetres = category(_GOODS)
    width_cm: _Centimetres = category(_GOODS)
    height_cm: _Centimetres = category(_GOODS)


class CustomsLine(PersonalData):
    """What customs needs to know of one line (WCO data set): no SKU, no order history.

    `net_weight_g` and `value` (minor units of `currency`) are those of all pieces of the line together.
    """

    description: Line = category(_GOODS)
    quantity: Quantity = category(_GOODS)
    net_weight_g: Grams = category(_GOODS)
    value: Minor = category(_GOODS)
    currency: Currency = category(_GOODS)
    origin_country: Country = category(_GOODS)
    hs_code: HsCode = category(_GOODS)


class Invoice(PersonalData):
    """The shop's invoice that customs papers name."""

    number: Line = category("user.unique_id.pseudonymous")
    issued_on: date = category(_GOODS)


class Delivery(PersonalData, data_class="delivery"):
    """What the way to the consignee needs. `customs` is empty when not every line of the order has customs data.

    Deliveries from before 2026-12 have no invoice.
    """

    consignee: Consignee = category("user.contact")
    service: Service = category(_GOODS)
    parcels: tuple[Parcel, ...] = category(_GOODS, min_length=1, max_length=20)
    customs: tuple[CustomsLine, ...] = category(_GOODS, default=(), max_length=100)
    invoice: Invoice | None = category("user.unique_id.pseudonymous", default=None)


class DeliveryCorrection(PersonalData, data_class="delivery"):
    """Of a `Delivery` to whom it goes; the rest stays as it is."""

    consignee: Consignee = category("user.contact")


class Registration(PersonalData, data_class="registration"):
    """Under which numbers tax and customs authorities know the consignee; each in capitals, without blanks."""

    vat: RegistrationNumber | None = category(_AUTHORITY, default=None)
    eori: RegistrationNumber | None = category(_AUTHORITY, default=None)
    tax_id: RegistrationNumber | None = category(_AUTHORITY, default=None)


class OrderLine(PersonalData):
    """`unit_price` is that of one piece, `tax` that of all pieces together."""

    sku: SkuText = category(_GOODS)
    description: Line = category(_GOODS)
    quantity: Quantity = category(_GOODS)
    unit_price: Minor = category("user.financial")
    tax: Minor = category("user.financial", default=0)


class OrderRecord(PersonalData, data_class="order_record"):
    """Amounts in minor units of `currency`.

    `total` = the sum of quantity × unit price of the lines + `shipping` - `discount`, and + `tax` unless `tax_included`: then
    the prices and the shipping cost contain the tax. `tax` is that of the whole order. `order_number` is ours,
    `shop_order_number` the shop's own.
    """

    order_number: Annotated[str, Field(pattern=r"^[0-9A-Z]{5}-[0-9A-Z]{5}$")] = category("user.unique_id.pseudonymous")
    lines: tuple[OrderLine, ...] = category(_GOODS, min_length=1, max_length=100)
    currency: Currency = category("user.financial")
    total: Minor = category("user.financial")
    shop_order_number: Line | None = category("user.unique_id.pseudonymous", default=None)
    shipping: Minor = category("user.financial", default=0)
    discount: Minor = category("user.financial", default=0)
    tax: Minor = category("user.financial", default=0)
    tax_included: bool = category("user.financial", default=True)


class Payment(PersonalData, data_class="payment"):
    """The verification token of the payment provider; never a card number."""

    token: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{8,128}$")] = category("user.payment")


class OrderPlaced(Event, topic=ORDER_EVENTS, key="order_id"):
    order_id: UUID
    buyer_id: UUID
    consignee_id: UUID
    placed_at: Moment
    delivery: Sealed[Delivery] = about(subject="consignee_id", anchor="order_id")
    record: Sealed[OrderRecord] = about(subject="buyer_id", anchor="order_id")
    payment: Sealed[Payment] = about(subject="buyer_id", anchor="order_id")
    registration: Sealed[Registration] | None = about(subject="consignee_id", anchor="order_id", default=None)


class DeliveryCorrected(Event, topic=ORDER_EVENTS, key="order_id"):
    """The consignee of an order under way was corrected. Of several versions the one with the highest number counts."""

    order_id: UUID
    buyer_id: UUID
    consignee_id: UUID
    number: Version
    delivery: Sealed[Delivery] = about(subject="consignee_id", anchor="order_id")


class CancelReason(StrEnum):
    BY_BUYER = "by_buyer"
    UNDELIVERABLE = "undeliverable"
    ERASURE = "erasure"


class OrderCancelled(Event, topic=ORDER_EVENTS, key="order_id"):
    order_id: UUID
    buyer_id: UUID
    reason: CancelReason


class OrderConfirmed(Event, topic=ORDER_EVENTS, key="order_id"):
    """The carrier has accepted the shipment."""

    order_id: UUID
    buyer_id: UUID


class OrderHandedOver(Event, topic=ORDER_EVENTS, key="order_id"):
    order_id: UUID
    buyer_id: UUID
    at: Moment


class OrderDelivered(Event, topic=ORDER_EVENTS, key="order_id"):
    order_id: UUID
    buyer_id: UUID
    at: Moment


class OrderProgress(StrEnum):
    """`returned` and `lost` are ends, and `unknown` is one: the carrier has said nothing for the lane's term."""

    LABEL_CREATED = "label_created"
    IN_TRANSIT = "in_transit"
    OUT_FOR_DELIVERY = "out_for_delivery"
    FAILED_ATTEMPT = "failed_attempt"
    RETURNED = "returned"
    LOST = "lost"
    UNKNOWN = "unknown"


class OrderProgressed(Event, topic=ORDER_EVENTS, key="order_id"):
    """The parcel got on, or back, or lost: what has no event of its own."""

    order_id: UUID
    buyer_id: UUID
    status: OrderProgress
    at: Moment


class CloseReason(StrEnum):
    """What became of an order that staff close."""

    UNDELIVERABLE = "undeliverable"
    DELIVERED = "delivered"
    RETURNED = "returned"
    LOST = "lost"


class ReadReason(StrEnum):
    """Why accounting reads the record of an order."""

    TAX_AUDIT = "tax_audit"
    ANNUAL_ACCOUNTS = "annual_accounts"
    BOOKKEEPING_ERROR = "bookkeeping_error"
    COURT_ORDER = "court_order"


class TaxRecordRead(Event, topic=ORDER_EVENTS, key="order_id"):
    """A member of the accounting staff was shown the record of an order that the law keeps."""

    order_id: UUID
    buyer_id: UUID
    staff_id: UUID
    role: Word
    reason: ReadReason


class OrderClosed(Event, topic=ORDER_EVENTS, key="order_id"):
    """A staff member has ended an order that was stuck: for the evidence log. Its end has an event of its own."""

    decision_id: UUID
    order_id: UUID
    buyer_id: UUID
    staff_id: UUID
    role: Word
    reason: CloseReason


EVENTS: tuple[type[Event], ...] = (
    OrderPlaced,
    DeliveryCorrected,
    OrderCancelled,
    OrderConfirmed,
    OrderHandedOver,
    OrderDelivered,
    OrderProgressed,
    OrderClosed,
    TaxRecordRead,
)
