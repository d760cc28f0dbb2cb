"""Made-up customers of some twenty-five countries, with names and addresses in their own scripts."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from string import ascii_lowercase
from typing import Any

from faker import Faker
from phonenumbers import PhoneNumberFormat, PhoneNumberType, example_number_for_type, format_number

from country_data import Unreadable
from country_data.addresses import address_rules, read_postal_code
from lanes.wrapping import wrap

# The gateway's lanes reach each of these countries.
PLACES = (
    "de_DE", "fr_FR", "it_IT", "es_ES", "pl_PL", "nl_NL", "sv_SE", "no_NO", "fi_FI", "da_DK", "cs_CZ", "el_GR", "pt_PT",
    "en_GB", "en_US", "ja_JP", "zh_CN", "ko_KR", "zh_TW", "en_IN", "pt_BR", "es_MX", "tr_TR", "uk_UA", "th_TH",
)  # fmt: skip
GOODS = (
    ("TEA-GREEN-100", "Green tea, 100 g", 1290, 140, "JP", "090210"),
    ("MUG-STONE", "Stoneware mug", 1850, 420, "PT", "691200"),
    ("SCARF-WOOL", "Wool scarf", 4900, 210, "GB", "611710"),
    ("BOOK-BIRDS", "Illustrated book", 3200, 880, "DE", "490199"),
    ("LAMP-DESK", "Desk lamp", 7990, 1900, "CN", "940520"),
    ("SOAP-OLIVE", "Olive soap", 690, 120, "GR", "340111"),
)
LINE = 35  # characters of an address line at every carrier
PAGES = ("home", "new-arrivals", "tea-and-coffee", "gifts", "reading-corner", "sale")


@dataclass(frozen=True)
class Person:
    """One made-up person; what is personal about them is in `canaries`."""

    name: str
    email: str
    phone: str
    street: str
    city: str
    state: str | None
    postal_code: str
    country: str

    @property
    def canaries(self) -> tuple[str, ...]:
        return (self.name, self.email, self.phone, self.street)

    def consignee(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "lines": [self.street],
            "city": self.city,
            "state": self.state,
            "postal_code": self.postal_code,
            "country": self.country,
            "phone": self.phone,
            "email": self.email,
        }

    def address(self) -> dict[str, Any]:
        return {key: value for key, value in self.consignee().items() if key != "email"}


@dataclass
class Customer:
    """A person with what they do in the shop."""

    person: Person
    password: str
    friends: list[Person] = field(default_factory=list)


class Crowd:
    """People drawn from all places in turn; the same seed draws the same people."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self._fakers = {locale: Faker(locale) for locale in PLACES}
        for faker in self._fakers.values():
            faker.seed_instance(self.random.getrandbits(32))
        self._drawn = 0

    def person(self) -> Person:
        locale = PLACES[self._drawn % len(PLACES)]
        country = locale[-2:]
        self._drawn += 1
        faker = self._fakers[locale]
        return Person(
            # a surname that no one else has, so that a find is a find
            name=f"{' '.join(faker.name().split())} {self._tag(8).title()}",
            email=f"customer.{self._drawn}.{self._tag(8)}@shop.example",
            phone=self._phone(country),
            street=self._street(faker),
            city=_until(faker.city, lambda city: len(city) <= LINE),
            state=self._state(country),
            postal_code=_postal_code(faker, country),
            country=country,
        )

    def customers(self, count: int) -> Iterator[Customer]:
        for _ in range(count):
            customer = Customer(self.person(), f"pass-{self._tag(16)}")
            if self.random.random() < 0.2:
                customer.friends.append(self.person())
            yield customer

    def order(self, consignee: Person, *, gift: bool) -> dict[str, Any]:
        """The body of `POST /v1/orders`."""
        lines = [
            {
                "sku": sku,
                "description": description,
                "quantity": self.random.randint(1, 3),
                "unit_price": price,
                "net_weight_g": weight,
                "origin_country": origin,
                "hs_code": hs_code,
            }
            for sku, description, price, weight, origin, hs_code in self.random.sample(GOODS, self.random.randint(1, 3))
        ]
        return {
            "lines": lines,
            "currency": "EUR",
            "consignee": consignee.consignee(),
            "gift": gift,
            "service": self.random.choice(("standard", "express")),
            "payment": {"token": f"tok_{self._tag(24)}"},
        }

    def _street(self, faker: Faker) -> str:
        """With a number that no other street has, short enough for a carrier's two lines."""

        def draw() -> str:
            return f"{' '.join(faker.street_address().split())} {self.random.randrange(10_000, 99_999)}"

        return _until(draw, lambda street: wrap([street], 2, LINE) is not None)

    def _phone(self, country: str) -> str:
        """As long as a mobile number of the country."""
        example = example_number_for_type(country, PhoneNumberType.MOBILE)
        assert example is not None
        return format_number(example, PhoneNumberFormat.E164)[:-6] + "".join(self.random.choices("23456789", k=6))

    def _state(self, country: str) -> str | None:
        states = sorted(set(address_rules(country).states.values()))
        return self.random.choice(states) if states else None

    def _tag(self, length: int) -> str:
        # Letters only: random digits look like a card number once in a while, and the shop refuses those.
        return "".join(self.random.choices(ascii_lowercase, k=length))


def _postal_code(faker: Faker, country: str) -> str:
    """One of the country in its own form; some that faker makes have another."""
    for _ in range(20):
        with suppress(Unreadable):
            return read_postal_code(faker.postcode(), country) or ""
    return address_rules(country).postal_examples[0]


def _until(draw: Callable[[], str], is_right: Callable[[str], bool]) -> str:
    while not is_right(text := draw()):
        pass
    return text
