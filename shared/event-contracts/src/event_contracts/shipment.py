"""What a shipment looks like to a carrier: a `ShipmentRequest` of karrio, with units (docs/carrier.md).

It says what may be there and what it means. Which fields leave, a lane's file says; the lane is checked, not this.
"""

from typing import Any, Literal

from pydantic import BaseModel, Field

from event_contracts.codes import Country, Currency, HsCode


def _means(description: str) -> Any:
    return Field(default=None, description=description)


class Address(BaseModel):
    person_name: str | None = None
    company_name: str | None = None
    address_line1: str | None = _means("with the house number, where the country writes it")
    address_line2: str | None = None
    street_number: Literal[""] | None = _means("always empty: karrio keeps the lines as they are then")
    city: str | None = None
    state_code: str | None = _means("ISO 3166-2 without the country, where carriers need it")
    postal_code: str | None = None
    country_code: Country | None = None
    phone_number: str | None = _means("E.164")
    email: str | None = None
    federal_tax_id: str | None = _means("VAT number, or the one that customs there asks for first")
    state_tax_id: str | None = _means("the shipper's EORI; another tax number of the recipient")


class Parcel(BaseModel):
    weight: float | None = _means("of the whole parcel, in kilograms")
    weight_unit: Literal["KG"] | None = None
    length: int | None = _means("in centimetres")
    width: int | None = _means("in centimetres")
    height: int | None = _means("in centimetres")
    dimension_unit: Literal["CM"] | None = None


class Commodity(BaseModel):
    description: str | None = None
    quantity: int | None = _means("pieces")
    value_amount: float | None = _means("of one piece, in major units of value_currency")
    value_currency: Currency | None = None
    weight: float | None = _means("net, of one piece, in kilograms")
    weight_unit: Literal["KG"] | None = None
    origin_country: Country | None = None
    hs_code: HsCode | None = None


class Duty(BaseModel):
    currency: Currency | None = None
    declared_value: float | None = _means("of all commodities, quantity × value, in major units of currency")
    paid_by: str | None = None


class CustomsOptions(BaseModel):
    eori_number: str | None = _means("the recipient's")


class Customs(BaseModel):
    commodities: list[Commodity] | None = None
    duty: Duty | None = None
    content_type: str | None = None
    incoterm: str | None = _means("Incoterms 2020, such as DDP")
    invoice: str | None = _means("its number")
    invoice_date: str | None = _means("year-month-day")
    options: CustomsOptions | None = None


class Payment(BaseModel):
    paid_by: str | None = _means("who pays the carrier")


class Shipment(BaseModel):
    service: str | None = _means("our code of the carrier's service")
    shipper: Address | None = None
    recipient: Address | None = None
    payment: Payment | None = None
    parcels: list[Parcel] | None = None
    customs: Customs | None = _means("only where a customs or tax border is crossed")
