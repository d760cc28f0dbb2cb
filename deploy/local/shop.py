"""The shop as its customers use it over HTTP: what the demo and the acceptance tests drive the system with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

import httpx

from deploy.local.http import open_http
from deploy.local.mail import confirm
from deploy.local.people import PAGES, Crowd, Customer, Person

T = TypeVar("T")
R = TypeVar("R")
AT_ONCE = 8
MOST_CONNECTIONS = 48


@dataclass
class Placed:
    """An order that the shop accepted."""

    order_id: UUID
    number: str
    buyer_id: UUID
    consignee: Person
    gift: bool
    body: dict[str, Any]


@dataclass
class Registered:
    """A customer with an account, and a token to act with."""

    subject_id: UUID
    customer: Customer
    token: str = ""
    orders: list[Placed] = field(default_factory=list)


class Shop:
    """Calls the account and order services. Raises `httpx.HTTPStatusError` when one refuses."""

    def __init__(self, account_url: str, order_url: str, mailbox: Path) -> None:
        """`mailbox` is the folder of the stack's mails."""
        self._mailbox = mailbox
        # A server closes idle connections: one that is about to be closed is not used again.
        limits = httpx.Limits(max_connections=MOST_CONNECTIONS, keepalive_expiry=2)
        self._account = open_http(account_url, limits=limits, timeout=30)
        self._order = open_http(order_url, limits=limits, timeout=30)

    async def close(self) -> None:
        await self._account.aclose()
        await self._order.aclose()

    async def register(self, customer: Customer) -> Registered:
        """Registers, confirms the address with the code from the mail, and signs in."""
        person = customer.person
        body = {"email": person.email, "password": customer.password, "name": person.name, "phone": person.phone}
        made = await self._post(self._account, "/v1/accounts", body)
        await confirm(self._account, self._mailbox, made["registration_id"], person.email, customer.password)
        signed_in = await self._post(
            self._account, "/v1/sign-in", {"email": person.email, "password": customer.password}
        )
        return Registered(UUID(made["registration_id"]), customer, signed_in["access_token"])

    async def save_address(self, who: Registered) -> None:
        await self._post(self._account, "/v1/accounts/me/addresses", who.customer.person.address(), who.token)

    async def add_favourite(self, who: Registered, sku: str) -> None:
        await self._post(self._account, "/v1/accounts/me/favourites", {"sku": sku}, who.token)

    async def browse(self, who: Registered, crowd: Crowd, now: str, views: int = 5) -> None:
        """A batch of page views, as CloudEvents over HTTP."""
        events = [
            {
                "specversion": "1.0",
                "id": str(uuid4()),
                "source": "storefront",
                "type": "page_viewed",
                "time": now,
                "datacontenttype": "application/json",
                "data": {"page": crowd.random.choice(PAGES), "seconds": crowd.random.randint(1, 90)},
            }
            for _ in range(views)
        ]
        headers = {"Content-Type": "application/cloudevents-batch+json", "Authorization": f"Bearer {who.token}"}
        (await self._account.post("/v1/browsing-events", json=events, headers=headers)).raise_for_status()

    async def place_order(self, who: Registered, crowd: Crowd, consignee: Person | None = None) -> Placed:
        """Places one order; a `consignee` makes it a gift."""
        person = consignee or who.customer.person
        body = crowd.order(person, gift=consignee is not None)
        made = await self._post(self._order, "/v1/orders", body, who.token, uuid4())
        placed = Placed(
            UUID(made["order_id"]), made["order_number"], who.subject_id, person, consignee is not None, body
        )
        who.orders.append(placed)
        return placed

    async def refusal(self, who: Registered, body: dict[str, Any]) -> dict[str, Any]:
        """What the shop says to an order that it does not take. Raises `RuntimeError` when it takes it."""
        headers = {"Authorization": f"Bearer {who.token}", "Idempotency-Key": str(uuid4())}
        response = await self._order.post("/v1/orders", json=body, headers=headers)
        if response.status_code != 422:
            raise RuntimeError(f"The order was not refused: {response.status_code}.")
        refused: dict[str, Any] = response.json()
        return refused

    async def follow(self, who: Registered, order_id: UUID) -> dict[str, Any]:
        """Where the parcel is."""
        return await self._get(self._order, f"/v1/orders/{order_id}/tracking", who.token)

    async def order(self, who: Registered, order_id: UUID) -> dict[str, Any]:
        return await self._get(self._order, f"/v1/orders/{order_id}", who.token)

    async def notices(self, who: Registered) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self._get(self._account, "/v1/accounts/me/notices", who.token))["items"]
        return found

    async def _get(self, client: httpx.AsyncClient, path: str, token: str) -> dict[str, Any]:
        response = await client.get(path, headers={"Authorization": f"Bearer {token}"})
        response.raise_for_status()
        body: dict[str, Any] = response.json()
        return body

    async def _post(
        self, client: httpx.AsyncClient, path: str, body: Any, token: str = "", key: UUID | None = None
    ) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if key is not None:
            headers["Idempotency-Key"] = str(key)
        response = await client.post(path, json=body, headers=headers)
        response.raise_for_status()
        made: dict[str, Any] = response.json()
        return made


async def all_of(work: Callable[[T], Awaitable[R]], items: Iterable[T], at_once: int = AT_ONCE) -> list[R]:
    """Does the work for all items, so many at once, and returns the results in order."""
    gate = asyncio.Semaphore(at_once)

    async def one(item: T) -> R:
        async with gate:
            return await work(item)

    return list(await asyncio.gather(*(one(item) for item in items)))
