"""What a buyer states of an order: the bodies of the routes that quote, place and correct one."""

from typing import Annotated, Final

from pydantic import Field

from country_data.fields import CountryCode, CurrencyCode, Stated, StatedConsignee
from event_contracts.account import Line
from event_contracts.codes import Grams, HsCode, Minor, Quantity
from event_contracts.order import Service, SkuText
from order_service.numbers import Day, ShopNumber
from order_service.registrations import PurchaseRegistration

MAX_PARCELS: Final = 20
_Centimetres = Annotated[int, Field(ge=1, le=1_000)]


class PurchaseLine(Stated):
    """One line: amounts in minor units of the currency; `net_weight_g` and `tax` of all its pieces together.

    Weight, origin and HS code are for customs: the lane says whether it needs them.
    """

    sku: SkuText
    description: Line
    quantity: Quantity
    unit_price: Minor
    tax: Minor = 0
    net_weight_g: Grams | None = None
    origin_country: CountryCode | None = None
    hs_code: HsCode | None = None


class PurchaseConsignee(StatedConsignee):
    """To whom the goods go; `country_data` says what an address of the country needs."""


class PurchaseParcel(Stated):
    weight_g: Grams
    length_cm: _Centimetres
    width_cm: _Centimetres
    height_cm: _Centimetres


class PurchasePayment(Stated):
    """The payment provider's verification token; never a card number (policy C1)."""

    token: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{8,128}$")]


class PurchaseInvoice(Stated):
    """The invoice that customs papers name."""

    number: ShopNumber
    issued_on: Day


class QuotePurchase(Stated):
    """What a buyer states to know whether a carrier takes it. `gift`: the consignee is another person.

    Amounts in minor units: total = lines + `shipping` - `discount`, and + `tax` when `tax_included` is false. `tax` is that of
    the whole order, by default that of the lines together. A stated `total` is compared. `parcels` follow from the lines'
    weights when they are absent; the invoice has the order's number and day then.
    """

    shop_order_number: ShopNumber | None = None
    lines: Annotated[list[PurchaseLine], Field(min_length=1, max_length=100)]
    currency: CurrencyCode
    shipping: Minor = 0
    discount: Minor = 0
    tax: Minor | None = None
    tax_included: bool = True
    total: Minor | None = None
    consignee: PurchaseConsignee
    gift: bool
    service: Annotated[Service, Field(strict=False)]  # JSON has no enums
    payment: PurchasePayment | None = None
    parcels: Annotated[list[PurchaseParcel], Field(min_length=1, max_length=MAX_PARCELS)] | None = None
    invoice: PurchaseInvoice | None = None
    registration: PurchaseRegistration | None = None


class Purchase(QuotePurchase):
    """What a buyer states to place an order."""

    payment: PurchasePayment
