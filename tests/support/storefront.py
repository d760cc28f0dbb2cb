"""A storefront under load: it repeats every request under its Idempotency-Key until the service has accepted it."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from dataclasses import dataclass, replace
from string import ascii_lowercase
from typing import Any, Self
from uuid import UUID, uuid4

import httpx

from deploy.local.http import open_http
from deploy.local.people import Crowd
from deploy.local.shop import Registered, Shop, all_of
from deploy.local.stack import Stack

PATIENCE = 600.0
TAG = 12


@dataclass(frozen=True)
class Sale:
    """An order that was accepted. The consignee's name is unlike any other."""

    order_id: UUID
    buyer_id: UUID
    consignee_name: str
    country: str
    gift: bool


class Storefront:
    """Places orders for registered buyers. `under_way` counts requests that a service has yet to answer, by service."""

    def __init__(self, stack: Stack, buyers: list[Registered], crowd: Crowd) -> None:
        self.accepted: dict[UUID, Sale] = {}
        self.addresses: dict[UUID, UUID] = {}  # one entry in the address book of each buyer
        self.answers: Counter[int] = Counter()
        self.under_way: Counter[str] = Counter()
        self.repeated = 0
        self._buyers, self._crowd = buyers, crowd
        self._urls = {system: stack.url(system) for system in ("account", "order")}
        self._http = open_http()

    @classmethod
    async def open(cls, stack: Stack, customers: int = 20) -> Self:
        """Registers customers, with an address each, while everything still runs."""
        crowd = Crowd(secrets.randbits(32))
        shop = Shop(stack.url("account"), stack.url("order"), stack.mailbox)
        try:
            buyers = await all_of(shop.register, list(crowd.customers(customers)))
        finally:
            await shop.close()
        storefront = cls(stack, buyers, crowd)
        for who in buyers:
            address = who.customer.person.address()
            added = await storefront._until_accepted(who, "account", "POST", "/v1/accounts/me/addresses", address)
            storefront.addresses[who.subject_id] = UUID(added["address_id"])
        return storefront

    async def close(self) -> None:
        await self._http.aclose()

    async def place(self) -> Sale:
        """Corrects the buyer's address, then places an order, each until it is accepted. Raises `TimeoutError`."""
        buyer, gift = self._crowd.random.choice(self._buyers), self._crowd.random.random() < 0.3
        person = self._crowd.person() if gift else buyer.customer.person
        # At most 35 characters, so that no lane cuts it.
        person = replace(
            person, name=f"{person.name[:20].strip()} {''.join(secrets.choice(ascii_lowercase) for _ in range(TAG))}"
        )
        address = f"/v1/accounts/me/addresses/{self.addresses[buyer.subject_id]}"
        await self._until_accepted(buyer, "account", "PUT", address, person.address())
        order = self._crowd.order(person, gift=gift)
        placed = await self._until_accepted(buyer, "order", "POST", "/v1/orders", order)
        sale = Sale(UUID(placed["order_id"]), buyer.subject_id, person.name, person.country, gift)
        self.accepted[sale.order_id] = sale
        return sale

    async def sell(self, stop: asyncio.Event, at_once: int = 3, pause: float = 0.25) -> None:
        """Places orders until `stop`; those begun are brought to their end."""

        async def keep_placing() -> None:
            while not stop.is_set():
                await self.place()
                await asyncio.sleep(pause)

        await asyncio.gather(*(keep_placing() for _ in range(at_once)))

    async def _until_accepted(
        self, who: Registered, system: str, method: str, path: str, body: dict[str, Any]
    ) -> dict[str, Any]:
        """What the service answers in the end; {} without a body."""
        headers = {"Authorization": f"Bearer {who.token}", "Idempotency-Key": str(uuid4())}
        request = self._http.build_request(method, self._urls[system] + path, json=body, headers=headers)
        async with asyncio.timeout(PATIENCE):
            while (response := await self._accepted(system, request)) is None:
                self.repeated += 1
                await asyncio.sleep(self._crowd.random.uniform(0.05, 0.3))
        answer: dict[str, Any] = response.json() if response.content else {}
        return answer

    async def _accepted(self, system: str, request: httpx.Request) -> httpx.Response | None:
        self.under_way[system] += 1
        try:
            response = await self._http.send(request)
        except httpx.TransportError:
            return None
        finally:
            self.under_way[system] -= 1
        self.answers[response.status_code] += 1
        # Whoever fails says 503; a 500 would be an error that nobody thought of, and any other 4xx would be final.
        assert response.is_success or response.status_code in (429, 503), f"{system}: {response.text}"
        return response if response.is_success else None
