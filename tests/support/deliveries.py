"""Deliveries to test with: one with everything in it, and a hypothesis strategy for any that the contract allows."""

import unicodedata
from datetime import date
from typing import Any

from hypothesis import strategies as st

from event_contracts.order import Consignee, CustomsLine, Delivery, Invoice, Parcel, Service


def make_delivery(*, country: str = "DE", service: str = "standard", **consignee: Any) -> Delivery:
    """A valid delivery; `consignee` replaces single fields."""
    person = {
        "name": "Ἀλεξάνδρα Παπαδοπούλου-Χατζηγεωργίου",
        "company": "Kontor 7",
        "lines": ("Lange Straße 12 a", "Hinterhaus", "3. Stock"),
        "city": "Rotenburg ob der Tauber",
        "state": "Bayern",
        "postal_code": "sw1a 1aa",
        "country": country,
        "phone": "+4915112345678",
        "email": "alexandra@example.org",
    }
    line = CustomsLine(
        description="Bicycle lamp, LED, with a mount for the handlebar and a spare battery",
        quantity=2,
        net_weight_g=180,
        value=2598,
        currency="EUR",
        origin_country="NL",
        hs_code="851210",
    )
    return Delivery(
        consignee=Consignee.model_validate(person | consignee),
        service=Service(service),
        parcels=(Parcel(weight_g=750, length_cm=30, width_cm=20, height_cm=10),),
        customs=(line, line.model_copy(update={"quantity": 1})),
        invoice=Invoice(number="R-2026/117", issued_on=date(2026, 11, 30)),
    )


# What a line of text may hold (event_contracts.texts), as it is kept.
_LETTERS = st.characters(categories=("L", "N", "P", "S", "Zs"), exclude_characters="^~\\\u115f\u1160\u2800\u3164\uffa0")


def _text(longest: int) -> st.SearchStrategy[str]:
    texts = st.text(_LETTERS, min_size=1, max_size=longest).filter(lambda t: t.strip())
    return texts.map(lambda t: unicodedata.normalize("NFC", t))


_TEXT, _ADDRESS_LINE, _WORD = _text(60), _text(30), _text(9)
_CURRENCIES = st.sampled_from([{"currency": currency} for currency in ("EUR", "JPY", "KWD")])
_COUNTRIES = ["DE", "FR", "GB", "US", "BR", "AR", "JP", "CN", "TH", "NO", "UA", "AQ"]


def deliveries() -> st.SearchStrategy[dict[str, Any]]:
    """JSON-like bodies of valid deliveries, most of which fit a lane."""
    consignee = st.fixed_dictionaries(
        {
            "name": _TEXT,
            "lines": st.lists(_ADDRESS_LINE, min_size=1, max_size=3),
            "city": _WORD,
            "postal_code": _WORD,
            "state": _WORD,
            "country": st.sampled_from(_COUNTRIES),
            "phone": st.from_regex(r"\A\+[1-9][0-9]{6,14}\Z"),
        },
        optional={"company": _WORD, "email": st.just("someone@example.org")},
    )
    centimetres = st.integers(10, 120)
    parcel = st.fixed_dictionaries(
        {
            "weight_g": st.integers(10, 30_000),
            "length_cm": centimetres,
            "width_cm": centimetres,
            "height_cm": centimetres,
        }
    )
    line = st.fixed_dictionaries(
        {
            "description": _TEXT,
            "quantity": st.integers(1, 999),
            "net_weight_g": st.integers(1, 10**6),
            "value": st.integers(1, 10**11),
            "origin_country": st.sampled_from(_COUNTRIES),
            "hs_code": st.from_regex(r"\A[0-9]{6,10}\Z"),
        }
    )
    return st.fixed_dictionaries(
        {
            "consignee": consignee,
            "service": st.sampled_from(["standard", "express"]),
            "parcels": st.lists(parcel, min_size=1, max_size=3),
            "customs": _CURRENCIES.flatmap(
                lambda currency: st.lists(line.map(lambda each: each | currency), min_size=1, max_size=3)
            ),
        },
        optional={"invoice": st.fixed_dictionaries({"number": _WORD, "issued_on": st.dates().map(str)})},
    )
