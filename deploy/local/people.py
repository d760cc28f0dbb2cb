"""Made-up customers of some twenty-five countries, with names and addresses in their own scripts."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from string import ascii_lowercase
from typing import Any

from faker import Faker

# locale, country, calling code: the gateway's lanes reach each of these countries
PLACES = (
    ("de_DE", "DE", "49"), ("fr_FR", "FR", "33"), ("it_IT", "IT", "39"), ("es_ES", "ES", "34"), ("pl_PL", "PL", "48"),
    ("nl_NL", "NL", "31"), ("sv_SE", "SE", "46"), ("no_NO", "NO", "47"), ("fi_FI", "FI", "358"), ("da_DK", "DK", "45"),
    ("cs_CZ", "CZ", "420"), ("el_GR", "GR", "30"), ("pt_PT", "PT", "351"), ("en_GB", "GB", "44"), ("en_US", "US", "1"),
    ("ja_JP", "JP", "81"), ("zh_CN", "CN", "86"), ("ko_KR", "KR", "82"), ("zh_TW", "TW", "886"), ("en_IN", "IN", "91"),
    ("pt_BR", "BR", "55"), ("es_MX", "MX", "52"), ("tr_TR", "TR", "90"), ("uk_UA", "UA", "380"), ("th_TH", "TH", "66"),
)  # fmt: skip
GOODS = (
    ("TEA-GREEN-100", "Green tea, 100 g", 1290, 140, "JP", "090210"),
    ("MUG-STONE", "Stoneware mug", 1850, 420, "PT", "691200"),
    ("SCARF-WOOL", "Wool scarf", 4900, 210, "GB", "611710"),
    ("BOOK-BIRDS", "Illustrated book", 3200, 880, "DE", "490199"),
    ("LAMP-DESK", "Desk lamp", 7990, 1900, "CN", "940520"),
    ("SOAP-OLIVE", "Olive soap", 690, 120, "GR", "340111"),
)
PAGES = ("home", "new-arrivals", "tea-and-coffee", "gifts", "reading-corner", "sale")


@dataclass(frozen=True)
class Person:
    """One made-up person; what is personal about them is in `canaries`."""

    name: str
    email: str
    phone: str
    street: str
    city: str
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
        self._fakers = {locale: Faker(locale) for locale, _, _ in PLACES}
        for faker in self._fakers.values():
            faker.seed_instance(self.random.getrandbits(32))
        self._drawn = 0

    def person(self) -> Person:
        locale, country, calling_code = PLACES[self._drawn % len(PLACES)]
        self._drawn += 1
        faker = self._fakers[locale]
        digits = "".join(self.random.choices("23456789", k=9))
        street = " ".join(faker.street_address().split())
        return Person(
            # a surname that no one else has, so that a find is a find
            name=f"{' '.join(faker.name().split())} {self._tag(8).title()}",
            email=f"customer.{self._drawn}.{self._tag(8)}@shop.example",
            phone=f"+{calling_code}{digits}",
            # a number that no other street has
            street=f"{street} {self.random.randrange(10_000, 99_999)}"[:190],
            city=faker.city()[:190],
            postal_code=faker.postcode()[:20],
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

    def _tag(self, length: int) -> str:
        # Letters only: random digits look like a card number once in a while, and the shop refuses those.
        return "".join(self.random.choices(ascii_lowercase, k=length))
