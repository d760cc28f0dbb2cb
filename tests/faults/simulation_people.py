"""What people do to the product, over its HTTP APIs, and what they know of it: whether they had an answer."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

import httpx

from deploy.local import keys
from tests.faults.simulation_systems import Run
from tests.support.ids import id_of, order_id_of
from tests.support.orders import a_line, a_purchase

PEOPLE: Final = 3
# What a person may ask to have erased: everything for good, or one class, after which they may order again.
SCOPES: Final = (None, None, ["payment"], ["delivery"])
HOLDABLE: Final = ("delivery", "payment")
OPENER: Final = UUID(int=1)  # who opens requests and sets holds: only the same person finds them again


@dataclass
class Person:
    subject_id: UUID
    headers: dict[str, str]


@dataclass
class Sale:
    """An order as its buyer knows it. `names` are the consignee's names that may be in force: each that was ever sent."""

    key: UUID
    order_id: UUID
    buyer: Person
    body: dict[str, Any]
    names: list[str]
    accepted: bool = False
    refused: bool = False


@dataclass
class Request:
    """An erasure as its opener knows it."""

    key: UUID
    request_id: UUID
    person: Person
    classes: list[str] | None
    accepted: bool = False


@dataclass
class People:
    """Customers, support and a privacy officer. Each operation takes two numbers that choose what it is about."""

    run: Run
    random: random.Random
    people: list[Person]
    sales: list[Sale] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    holds: dict[UUID, bool] = field(default_factory=dict)

    async def place(self, a: int, b: int) -> None:
        """A person orders, as a gift for odd `b`; the order says who it is for, unlike any other."""
        person, number = self.people[a % PEOPLE], len(self.sales) + 1
        name = f"Consignee number {number}"
        consignee = {**a_purchase()["consignee"], "name": name}
        body = a_purchase(lines=[a_line(sku=f"SKU-{number}")], consignee=consignee, gift=b % 2 == 1)
        key = self._new_id()
        order_id = order_id_of(self.run.ground.folder / "keys", person.subject_id, key)
        sale = Sale(key, order_id, person, body, [name])
        self.sales.append(sale)
        await self._send(sale)

    async def _send(self, sale: Sale) -> None:
        headers = {**sale.buyer.headers, "Idempotency-Key": str(sale.key)}
        answer = await self.ask("order", "POST", "/v1/orders", headers, sale.body)
        if answer is not None and answer.status_code in (200, 201):
            sale.accepted = True
        elif answer is not None and answer.status_code in (409, 410):
            sale.refused = True  # whoever is erased for good cannot order, and what was erased is not placed again

    async def again(self, a: int, b: int) -> None:
        """Somebody sends the same order a second time."""
        if self.sales:
            await self._send(self.sales[a % len(self.sales)])

    async def edit(self, a: int, b: int) -> None:
        """The buyer corrects to whom an order goes."""
        if not self.sales:
            return
        sale = self.sales[a % len(self.sales)]
        name = f"{sale.names[0]} edition {len(sale.names)}"
        consignee = {**sale.body["consignee"], "name": name}
        sale.names.append(name)
        await self.ask("order", "PUT", f"/v1/orders/{sale.order_id}/consignee", sale.buyer.headers, consignee)

    async def cancel(self, a: int, b: int) -> None:
        if self.sales:
            sale = self.sales[a % len(self.sales)]
            await self.ask("order", "POST", f"/v1/orders/{sale.order_id}/cancel", sale.buyer.headers)

    async def erase(self, a: int, b: int) -> None:
        """Support opens an erasure for somebody: of everything, or of one class."""
        key = self._new_id()
        request_id = id_of(self.run.ground.folder / "keys", "privacy", "/v1/requests", f"staff:{OPENER}", key)
        request = Request(key, request_id, self.people[a % PEOPLE], SCOPES[b % len(SCOPES)])
        self.requests.append(request)
        await self._open(request)

    async def _open(self, request: Request) -> None:
        body = {
            "kind": "erasure",
            "subject_ids": [str(request.person.subject_id)],
            "identity_check": "callback",
            "data_classes": request.classes,
        }
        headers = {**self._staff("support", OPENER), "Idempotency-Key": str(request.key)}
        answer = await self.ask("privacy", "POST", "/v1/requests", headers, body)
        request.accepted = request.accepted or (answer is not None and answer.status_code in (200, 201))
        if answer is not None and answer.status_code in (409, 422) and not request.accepted:
            # Another erasure of this person is open, or nobody of this id is left.
            self.requests.remove(request)

    async def approve(self, a: int, b: int) -> None:
        """A second person approves an erasure, if it may be by now."""
        if self.requests:
            request = self.requests[a % len(self.requests)]
            await self.ask(
                "privacy", "POST", f"/v1/requests/{request.request_id}/approve", self._staff("privacy_officer")
            )

    async def hold(self, a: int, b: int) -> None:
        """A class of somebody's data is kept from erasure."""
        key = self._new_id()
        hold_id = id_of(self.run.ground.folder / "keys", "privacy", "/v1/holds", f"staff:{OPENER}", key)
        self.holds[hold_id] = True
        subject = str(self.people[a % PEOPLE].subject_id)
        body = {"subject_id": subject, "data_class": HOLDABLE[b % len(HOLDABLE)], "basis": "dispute"}
        headers = {**self._staff("privacy_officer", OPENER), "Idempotency-Key": str(key)}
        await self.ask("privacy", "POST", "/v1/holds", headers, body)

    async def lift(self, a: int, b: int) -> None:
        """The end of a hold."""
        if self.holds:
            hold_id = list(self.holds)[a % len(self.holds)]
            answer = await self.ask("privacy", "DELETE", f"/v1/holds/{hold_id}", self._staff("privacy_officer"))
            if answer is not None and answer.status_code in (204, 404):
                del self.holds[hold_id]

    async def ask(
        self, system: str, method: str, path: str, headers: dict[str, str], body: Any = None
    ) -> httpx.Response | None:
        """One request of a person; None when it or its answer was lost, or the process died of it."""
        lost = self.run.lost_requests.popleft() if self.run.lost_requests else ""
        if lost == "request":
            return None
        answer = await self.run.systems[system].alive(
            lambda process: process.http.request(method, path, headers=headers, json=body)
        )
        return None if lost else answer

    def _new_id(self) -> UUID:
        return UUID(int=self.random.getrandbits(128), version=4)

    def _staff(self, role: Any, staff_id: UUID | None = None) -> dict[str, str]:
        return {"Authorization": f"Bearer {keys.staff_token(self.run.ground.folder / 'keys', role, staff_id)}"}

    async def ask_again(self) -> None:
        """Whatever had no answer is asked again, under its old id."""
        for sale in self.sales:
            if not (sale.accepted or sale.refused):
                await self._send(sale)
        for request in list(self.requests):
            if not request.accepted:
                await self._open(request)

    def unanswered(self) -> list[str]:
        """What people have asked for and do not know whether they have it."""
        sales = ["an order" for sale in self.sales if not (sale.accepted or sale.refused)]
        return sales + ["an erasure" for request in self.requests if not request.accepted]
