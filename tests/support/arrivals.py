"""Compares what a carrier got with the purchase that it came from, field by field, as karrio reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final

from country_data.borders import crosses_border
from tests.support.declarations import CARRIERS, as_declared, declared
from tests.support.purchases import exact, squeezed

# Lanes' services whose carrier gets no phone number.
_WITHOUT_PHONE: Final = frozenset(("meridian_parcel",))


def differences(body: Mapping[str, Any], shipment: Mapping[str, Any]) -> list[str]:
    """What any of the four carriers would be told otherwise than the purchase says: `ups customs: … is not …`."""
    consignee = body["consignee"]
    # Without stated parcels, the order service divides the goods; then only the lines are compared.
    grams = [parcel["weight_g"] for parcel in body.get("parcels", ())]
    parcels = grams or [round(parcel["weight"] * 1000) for parcel in shipment["parcels"]]
    has_customs = crosses_border(consignee["country"], consignee.get("postal_code"))
    has_phone = shipment["service"] not in _WITHOUT_PHONE
    wanted = exact(body, parcels, customs=has_customs, phone=has_phone)
    found = [*_unasked(shipment, has_customs, has_phone)]
    for carrier in CARRIERS:
        told, ordered = asdict(squeezed(declared(carrier, shipment))), asdict(as_declared(carrier, wanted))
        if not has_phone:
            told["phone"] = None  # karrio makes one up
        if not body.get("invoice") and told["customs"]:
            told["customs"] |= {name: ordered["customs"][name] for name in ("invoice", "invoice_date")}
        found += [
            f"{carrier} {name}: {told[name]!r} is not {ordered[name]!r}"
            for name in ordered
            if told[name] != ordered[name]
        ]
    return found


def _unasked(shipment: Mapping[str, Any], has_customs: bool, has_phone: bool) -> Iterator[str]:
    if ("customs" in shipment) is not has_customs:
        yield f"customs: {'missing' if has_customs else 'no border is crossed'}"
    if ("phone_number" in shipment["recipient"]) is not has_phone:
        yield f"phone: {'missing' if has_phone else 'the lane has no use for it'}"
