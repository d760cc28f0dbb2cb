"""What karrio declares for our carrier message: its `ShipmentRequest` for MyDHL, UPS, FedEx and DPD, with no network.

karrio is the judge of the message's units: it reads amounts and weights per piece, and two address lines. karrio drops what it
does not know; here that is an error, since a carrier would get less than we think. What its mappers cut by themselves, and what
they make up where nothing is given, stands in `as_declared`; all else has to be equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, get_args

import attr
import karrio.lib
from karrio.core.models import ShipmentRequest
from karrio.core.utils.number import NUMBERFORMAT
from karrio.mappers.dpd.mapper import Mapper as DpdMapper
from karrio.mappers.dpd.settings import Settings as DpdSettings
from karrio.mappers.fedex.mapper import Mapper as FedexMapper
from karrio.mappers.fedex.settings import Settings as FedexSettings
from karrio.mappers.mydhl.mapper import Mapper as MydhlMapper
from karrio.mappers.mydhl.settings import Settings as MydhlSettings
from karrio.mappers.ups.mapper import Mapper as UpsMapper
from karrio.mappers.ups.settings import Settings as UpsSettings

Tree = Mapping[str, Any]
CARRIERS: Final = ("mydhl", "ups", "fedex", "dpd")


class UnknownArgument(Exception):
    """karrio has no such argument and would drop it. The message names its path."""


@dataclass(frozen=True)
class Goods:
    """One commodity. `value` in major units and `weight` in kilograms are of one piece; DPD's form has no `quantity`."""

    description: str
    quantity: int | None
    value: float
    weight: float
    origin_country: str
    hs_code: str


@dataclass(frozen=True)
class Customs:
    """`total` is the declared value in major units of `currency`; `invoice_date` is in the carrier's own form."""

    currency: str
    total: float
    goods: tuple[Goods, ...]
    invoice: str | None
    invoice_date: str | None
    incoterm: str | None


@dataclass(frozen=True)
class Declaration:
    """What a carrier's request says of one shipment. Weights in kilograms."""

    name: str | None
    company: str | None
    lines: tuple[str, ...]
    city: str | None
    state: str | None
    postal_code: str | None
    country: str | None
    phone: str | None
    parcels: tuple[float, ...]
    customs: Customs | None
    tax_number: str | None = None


def _kilograms(weight: float) -> float:
    """As karrio rounds: two places, unless nothing would be left."""
    return float(NUMBERFORMAT.decimal(weight))


def _money(amount: float) -> float:
    """As karrio rounds amounts for FedEx: two places."""
    return float(karrio.lib.to_money(amount))


def as_declared(carrier: str, exact: Declaration) -> Declaration:
    """What this carrier is told of a shipment, as karrio cuts it."""
    changes: dict[str, Any] = {"parcels": tuple(map(_kilograms, exact.parcels))}
    if carrier == "mydhl":
        changes |= {"company": exact.company or exact.name, "tax_number": None}
    if carrier == "fedex" and (exact.country, exact.state) == ("CA", "QC"):
        changes["state"] = "PQ"
    if exact.customs is not None:
        changes["customs"] = _customs_declared(carrier, exact.customs)
    return replace(exact, **changes)


def _customs_declared(carrier: str, exact: Customs) -> Customs:
    value: Callable[[float], float] = int if carrier == "mydhl" else _money if carrier == "fedex" else float
    goods = tuple(
        replace(
            line,
            description=line.description[: 35 if carrier in ("ups", "fedex") else None],
            quantity=None if carrier == "dpd" else line.quantity,
            value=value(line.value),
            weight=_kilograms(line.weight),
        )
        for line in exact.goods
    )
    total = exact.total
    if carrier == "fedex":
        total = sum(_money(line.value * (line.quantity or 0)) for line in exact.goods)
    dates = {"fedex": None, "mydhl": exact.invoice_date}
    short = exact.invoice_date and exact.invoice_date.replace("-", "")
    incoterm = None if carrier == "dpd" else exact.incoterm
    return replace(exact, goods=goods, total=_sum(total), invoice_date=dates.get(carrier, short), incoterm=incoterm)


def _sum(amount: float) -> float:
    """Without the errors of adding up floats; no currency has more than four places."""
    return round(amount, 4)


def shipment_request(shipment: Tree) -> ShipmentRequest:
    """karrio's request of the message's `shipment`. Raises `UnknownArgument`."""
    unknown = sorted(_unknown(ShipmentRequest, shipment, ""))
    if unknown:
        raise UnknownArgument(f"karrio's ShipmentRequest does not know {', '.join(unknown)}")
    return ShipmentRequest(**shipment)


def declared(carrier: str, shipment: Tree) -> Declaration:
    """What this carrier is told. Raises `UnknownArgument`, and whatever karrio raises for what it cannot map."""
    mapper, read = _MAPPINGS[carrier]
    return read(mapper.create_shipment_request(shipment_request(shipment)), shipment)


def _unknown(model: Any, value: Any, path: str) -> Iterator[str]:
    fields = {field.name: field for field in attr.fields(model)}
    for name, part in value.items():
        here = f"{path}.{name}".lstrip(".")
        if name not in fields:
            yield here
        elif inner := _model_of(fields[name]):
            for item in part if isinstance(part, list) else [part]:
                yield from _unknown(inner, item, here)


def _model_of(field: Any) -> Any:
    for kind in (field.type, *get_args(field.type)):
        if isinstance(kind, type) and attr.has(kind):
            return kind
    return None


def _mydhl(request: Any, shipment: Tree) -> Declaration:
    content = request.serialize()["shipment"]
    receiver, goods = content["customerDetails"]["receiverDetails"], content["content"]
    address, contact = receiver["postalAddress"], receiver["contactInformation"]
    assert goods["unitOfMeasurement"] == "metric"
    customs = None
    # Without customs in the message, karrio declares something of its own to every other country.
    if "customs" in shipment:
        export = goods["exportDeclaration"]
        customs = Customs(
            currency=goods["declaredValueCurrency"],
            total=goods["declaredValue"],
            goods=tuple(
                Goods(
                    description=line["description"],
                    quantity=line["quantity"]["value"],
                    value=line["price"],
                    weight=line.get("weight", {}).get("netValue", 0.0),
                    origin_country=line["manufacturerCountry"],
                    hs_code=line["commodityCodes"][0]["value"] if line.get("commodityCodes") else "",
                )
                for line in export["lineItems"]
            ),
            invoice=export["invoice"]["number"],
            invoice_date=export["invoice"]["date"],
            incoterm=goods["incoterm"],
        )
    return Declaration(
        name=contact.get("fullName"),
        company=contact["companyName"],
        lines=tuple(address[key] for key in ("addressLine1", "addressLine2", "addressLine3") if key in address),
        city=address.get("cityName"),
        state=address.get("provinceCode"),
        postal_code=address.get("postalCode"),
        country=address["countryCode"],
        phone=contact["phone"],
        parcels=tuple(package["weight"] for package in goods["packages"]),
        customs=customs,
    )


def _ups(request: Any, _: Tree) -> Declaration:
    shipment = request.serialize()["ShipmentRequest"]["Shipment"]
    to, form = shipment["ShipTo"], shipment.get("ShipmentServiceOptions", {}).get("InternationalForms")
    assert all(p["PackageWeight"]["UnitOfMeasurement"]["Code"] == "KGS" for p in shipment["Package"])
    customs = None
    if form is not None:
        goods = tuple(
            Goods(
                description=product["Description"],
                quantity=int(product["Unit"]["Number"]),
                value=float(product["Unit"]["Value"]),
                weight=float(product["ProductWeight"]["Weight"]),
                origin_country=product["OriginCountryCode"],
                hs_code=product["CommodityCode"],
            )
            for product in form["Product"]
        )
        customs = Customs(
            currency=form["CurrencyCode"],
            # The form has no total: UPS adds up what the pieces cost.
            total=_sum(sum(line.value * (line.quantity or 0) for line in goods)),
            goods=goods,
            invoice=form.get("InvoiceNumber"),
            invoice_date=form["InvoiceDate"],
            incoterm=form.get("TermsOfShipment"),
        )
    return Declaration(
        name=to.get("AttentionName"),
        company=to.get("CompanyDisplayableName"),
        lines=tuple(to["Address"]["AddressLine"]),
        city=to["Address"].get("City"),
        state=to["Address"].get("StateProvinceCode"),
        postal_code=to["Address"].get("PostalCode"),
        country=to["Address"]["CountryCode"],
        phone=to["Phone"]["Number"],
        parcels=tuple(float(package["PackageWeight"]["Weight"]) for package in shipment["Package"]),
        customs=customs,
        tax_number=to.get("TaxIdentificationNumber"),
    )


def _fedex(request: Any, _: Tree) -> Declaration:
    shipment = request.serialize()["requestedShipment"]
    (to,) = shipment["recipients"]
    clearance = shipment.get("customsClearanceDetail")
    assert all(p["weight"]["units"] == "KG" for p in shipment["requestedPackageLineItems"])
    customs = None
    if clearance is not None:
        lines = clearance["commodities"]
        (currency,) = {line["customsValue"]["currency"] for line in lines}
        references = clearance["commercialInvoice"].get("customerReferences", ())
        numbers = [r["value"] for r in references if r["customerReferenceType"] == "INVOICE_NUMBER"]
        # Left out where it is not given: FedEx adds up the commodities.
        total = clearance.get("totalCustomsValue", {"amount": sum(line["customsValue"]["amount"] for line in lines)})
        customs = Customs(
            currency=currency,
            total=_sum(total["amount"]),
            goods=tuple(
                Goods(
                    description=line["description"],
                    quantity=line["quantity"],
                    value=line.get("unitPrice", {"amount": 0.0})["amount"],
                    weight=line["weight"]["value"],
                    origin_country=line["countryOfManufacture"],
                    hs_code=line["harmonizedCode"],
                )
                for line in lines
            ),
            invoice=numbers[0] if numbers else None,
            invoice_date=None,
            incoterm=clearance["commercialInvoice"]["termsOfSale"],
        )
    return Declaration(
        name=to["contact"].get("personName"),
        company=to["contact"].get("companyName"),
        lines=tuple(to["address"]["streetLines"]),
        city=to["address"].get("city"),
        state=to["address"].get("stateOrProvinceCode"),
        postal_code=to["address"].get("postalCode"),
        country=to["address"]["countryCode"],
        phone=to["contact"]["phoneNumber"],
        parcels=tuple(package["weight"]["value"] for package in shipment["requestedPackageLineItems"]),
        customs=customs,
        tax_number=to["tins"][0]["number"] if to.get("tins") else None,
    )


def _dpd(request: Any, shipment: Tree) -> Declaration:
    # Before it becomes XML: there karrio cuts amounts and kilograms to whole numbers.
    (order,) = request.value.Body.anytypeobjs_[0].order
    to, parcels = order.generalShipmentData.recipient, order.parcels
    foreign, customs = parcels[0].international, None
    if foreign is not None and "customs" in shipment:
        customs = Customs(
            currency=foreign.customsCurrency,
            total=foreign.customsAmount,
            goods=tuple(
                Goods(line.content, None, line.amountLine, line.grossWeight, line.customsOrigin, line.customsTarif)
                for line in foreign.commercialInvoiceLine
            ),
            invoice=foreign.customsInvoice,
            invoice_date=foreign.customsInvoiceDate,
            incoterm=None,
        )
    return Declaration(
        name=to.name1,
        company=to.name2,
        lines=tuple(line for line in (to.street, to.street2) if line),
        city=to.city,
        state=to.state,
        postal_code=to.zipCode,
        country=to.country,
        phone=to.phone,
        parcels=tuple(parcel.weight for parcel in parcels),
        customs=customs,
        tax_number=to.vatNumber,
    )


_HOME: Final = {"account_country_code": "NL"}
_MAPPINGS: Final[Mapping[str, tuple[Any, Callable[[Any, Tree], Declaration]]]] = {
    "mydhl": (MydhlMapper(MydhlSettings(username="u", password="p", account_number="1", **_HOME)), _mydhl),
    "ups": (UpsMapper(UpsSettings(client_id="u", client_secret="p", account_number="1", **_HOME)), _ups),
    "fedex": (FedexMapper(FedexSettings(api_key="u", secret_key="p", account_number="1", **_HOME)), _fedex),
    "dpd": (DpdMapper(DpdSettings(delis_id="u", password="p", depot="1", **_HOME)), _dpd),
}
