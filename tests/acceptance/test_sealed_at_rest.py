"""L1, L2 (docs/proofs.md, 1): nothing that two hundred people typed in stands anywhere in clear, whatever went wrong meanwhile."""

import asyncio
import json
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest
from confluent_kafka import Producer

from deploy.local.controls import make_controls, plant
from deploy.local.http import open_http
from deploy.local.mail import code_in, text_of, wait_for_mail
from deploy.local.people import GOODS
from deploy.local.scan import Findings, scan_stack
from deploy.local.shop import all_of
from deploy.local.stack import Stack
from event_contracts.topics import CARRIERS
from tests.support.carrier import Carrier
from tests.support.reviews_spec import REVIEWS
from tests.support.stacks import FAST_PASSWORDS, account_of

COUNTS = [pytest.param(60, id="some"), pytest.param(200, id="all", marks=pytest.mark.long)]
PATIENCE = 300.0


def tag() -> str:
    return secrets.token_hex(5)


@dataclass(frozen=True)
class Canary:
    """A person all of whose values carry a random tag; all scripts are there, and each value is 8 bytes or longer.

    No row of digits is as long as a card number, which would be refused.
    """

    name: str = field(default_factory=lambda: f"Zoë Þórsdóttir 山田 {tag()}")
    email: str = field(default_factory=lambda: f"canary.{tag()}@mail.example")
    phone: str = field(default_factory=lambda: f"+4917{secrets.randbelow(10**8):08d}")
    street: str = field(default_factory=lambda: f"Große Straße {secrets.randbelow(10**8):08d}")
    second_line: str = field(default_factory=lambda: f"3. Stock, bei {tag()}")
    city: str = field(default_factory=lambda: f"Nürnberg {tag()}")
    state: str = field(default_factory=lambda: f"Bayern {tag()}")
    postal_code: str = field(default_factory=lambda: f"{secrets.randbelow(9000) + 1000}-{secrets.randbelow(1000):03d}")
    company: str = field(default_factory=lambda: f"Müller & Söhne {tag()}")
    password: str = field(default_factory=lambda: f"geheim-{tag()}q{tag()}")
    payment: str = field(default_factory=lambda: f"tok_{tag()}q{tag()}")
    favourite: str = field(default_factory=lambda: f"FAV-{tag().upper()}")
    page: str = field(default_factory=lambda: f"page about {tag()}")

    @property
    def values(self) -> set[str]:
        return set(vars(self).values())

    def address(self) -> dict[str, Any]:
        return {
            "name": self.name, "company": self.company, "lines": [self.street, self.second_line], "city": self.city,
            "state": self.state, "postal_code": self.postal_code, "country": "PT", "phone": self.phone,
        }  # fmt: skip

    def order(self) -> dict[str, Any]:
        sku, description, price, weight, origin, hs_code = GOODS[0]
        line = {"sku": sku, "description": description, "quantity": 1, "unit_price": price, "net_weight_g": weight,
                "origin_country": origin, "hs_code": hs_code}  # fmt: skip
        consignee = self.address() | {"email": self.email}
        return {"lines": [line], "currency": "EUR", "consignee": consignee, "gift": False, "service": "standard",
                "payment": {"token": self.payment}}  # fmt: skip


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """A system of its own: its processes are restarted with faults, and all its bytes are searched."""
    system = Stack(extra=[REVIEWS], progress=lambda _: None)
    system.overrides["account"] |= FAST_PASSWORDS
    with system:
        yield system


class Visits:
    """What the canaries do, over HTTP; answers of any status are kept to be searched as well."""

    def __init__(self, stack: Stack) -> None:
        self._http = open_http(timeout=180)
        self._stack = stack
        self.answers: list[str] = []
        self.placed = 0

    async def send(self, system: str, path: str, body: Any, token: str = "", **headers: str) -> httpx.Response:
        """Again, as the same request, while something is away for a moment: a reader of the stack is restarted meanwhile."""
        if token:
            headers["Authorization"] = f"Bearer {token}"
        headers = {"Content-Type": "application/json", "Idempotency-Key": str(uuid4())} | headers
        url, deadline = f"{self._stack.url(system)}{path}", time.monotonic() + PATIENCE
        while True:
            try:
                response = await self._http.post(url, content=json.dumps(body), headers=headers)
            except httpx.TransportError:
                if time.monotonic() > deadline:
                    raise
            else:
                if response.status_code != 503 or time.monotonic() > deadline:
                    break
            await asyncio.sleep(0.5)
        if response.status_code >= 400:
            self.answers.append(response.text)
        return response

    async def register(self, canary: Canary) -> str:
        person = {"email": canary.email, "password": canary.password, "name": canary.name, "phone": canary.phone}
        made = (await self.send("account", "/v1/accounts", person)).raise_for_status().json()
        code = code_in(text_of(await wait_for_mail(self._stack.mailbox, canary.email)))
        path = f"/v1/accounts/{made['registration_id']}/confirmation"
        (await self.send("account", path, {"code": code, "password": canary.password})).raise_for_status()
        signed_in = await self.send("account", "/v1/sign-in", {"email": canary.email, "password": canary.password})
        return str(signed_in.json()["access_token"])

    async def visit(self, canary: Canary) -> None:
        token = await self.register(canary)
        (await self.send("account", "/v1/accounts/me/addresses", canary.address(), token)).raise_for_status()
        (await self.send("account", "/v1/accounts/me/favourites", {"sku": canary.favourite}, token)).raise_for_status()
        look = {"specversion": "1.0", "id": str(uuid4()), "source": "storefront", "type": "page_viewed",
                "time": "2026-11-23T10:00:00Z", "data": {"page": canary.page}}  # fmt: skip
        kind = {"Content-Type": "application/cloudevents+json"}
        (await self.send("account", "/v1/browsing-events", look, token, **kind)).raise_for_status()
        response = await self.send("order", "/v1/orders", canary.order(), token)
        self.placed += response.status_code in (200, 201)
        # Requests that are refused, with all that is personal in them.
        await self.send("order", "/v1/orders", canary.order() | {canary.name: canary.street}, token)
        await self.send("account", "/v1/accounts", {"email": canary.email, "nonsense": canary.address()})
        await self.send("account", "/v1/sign-in", {"email": canary.email, "password": canary.street})
        await self.send("account", f"/v1/accounts/me/{canary.phone}", {}, token)

    async def close(self) -> None:
        await self._http.aclose()


async def break_driver(stack: Stack, visits: Visits, canary: Canary) -> None:
    """A constraint fails, so that the driver's error shows the whole row."""
    token = await visits.register(canary)
    owner = await asyncpg.connect(stack.owner_dsn("account"))
    await owner.execute("ALTER TABLE addresses ADD CONSTRAINT broken CHECK (false) NOT VALID")
    response = await visits.send("account", "/v1/accounts/me/addresses", canary.address(), token)
    await owner.execute("ALTER TABLE addresses DROP CONSTRAINT broken")
    await owner.close()
    assert response.status_code == 500


def break_handlers(stack: Stack) -> None:
    """Each reader's handler fails from now on, at its third batch, once for each record on its own."""
    for system in ("order", "logistics-gateway", "account", "privacy"):
        stack.overrides[system]["FAULTPOINTS"] = "consume.applied=error@3"
        stack.process(system).restart()


def send_poison(stack: Stack, poison: Canary) -> None:
    """Records that carry the poison's own values in clear, as value, key and header, onto each event topic."""
    producer = Producer(
        {
            "bootstrap.servers": stack.kafka.bootstrap,
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": stack.kafka.admin_user,
            "sasl.password": stack.kafka.admin_password,
        }
    )
    text = json.dumps(poison.address(), ensure_ascii=False)
    envelope = {
        "ce_specversion": "1.0",
        "ce_id": str(uuid4()),
        "ce_source": "order",
        "ce_time": "2026-11-23T10:00:00+00:00",
    }
    for topic in ("account.events", "order.events", "shipment.events", "carrier.meridian.replies"):
        producer.produce(topic, key=poison.email, value=text, headers={"note": poison.name.encode()})
        producer.produce(topic, key=poison.phone, value=text, headers=envelope | {"ce_type": poison.street.encode()})
        producer.produce(
            topic, key="k", value=f'{{"order_id": "{poison.name}"', headers=envelope | {"ce_type": "OrderPlaced.v1"}
        )
    assert producer.flush(120) == 0


async def quarantined(stack: Stack) -> dict[str, int]:
    counts = {}
    for system in ("account", "order", "logistics-gateway", "privacy"):
        connection = await asyncpg.connect(stack.dsn(system))
        counts[system] = await connection.fetchval("SELECT count(*) FROM kit.quarantine")
        await connection.close()
    return counts


async def search(stack: Stack, values: set[str], folder: Path) -> tuple[Findings, set[str]]:
    exports = folder / "exports"
    exports.mkdir()
    folders = {"log": stack.logs, "export": exports}
    controls = make_controls(tuple(folders))
    await plant(controls, stack.kafka, stack.postgres.admin_dsn, folders)
    planted = {control.value for control in controls}
    findings = await scan_stack(
        values | planted,
        kafka=stack.kafka.data_dir,
        postgres=stack.postgres.data_dir,
        admin_dsn=stack.postgres.admin_dsn,
        folders=folders,
    )
    return findings, planted


@pytest.mark.fault(
    28, "a driver's error shows a row, handlers fail, poison comes, while every byte is searched, metrics too"
)
@pytest.mark.parametrize("people", COUNTS)
async def test_no_value_of_a_person_stands_in_clear_anywhere(stack: Stack, tmp_path: Path, people: int) -> None:
    canaries, driver = [Canary() for _ in range(people)], Canary()
    poison = Canary()
    visits = Visits(stack)
    async with Carrier(account_of(stack, CARRIERS[0])) as carrier:
        await all_of(visits.visit, canaries[: people // 2])
        await break_driver(stack, visits, driver)
        break_handlers(stack)
        send_poison(stack, poison)
        await all_of(visits.visit, canaries[people // 2 :])
        await carrier.wait_for(visits.placed, timeout=600)
        async with asyncio.timeout(600):
            while min((await quarantined(stack)).values()) < 2:
                await asyncio.sleep(0.1)
    await visits.close()
    assert visits.placed == people

    ours = driver.values.union(*(canary.values for canary in canaries))
    answers = tmp_path / "answers"
    answers.mkdir()
    (answers / "refusals").write_text("\n".join(visits.answers))
    async with open_http() as http:
        for process in stack.processes:
            metrics = (await http.get(f"{process.health_url}/metrics")).raise_for_status().text
            assert metrics.startswith("# HELP"), process.name
            (answers / f"{process.name}.metrics").write_text(metrics)
    findings, planted = await search(stack, ours | poison.values, tmp_path)
    print(f"\ncanary_values={len(ours)} canary_hits={len(findings.values & ours)}")
    print(f"controls={len(planted)} control_hits={len(findings.values & planted)} searched={findings.searched}")
    assert findings.values & planted == planted
    assert findings.values & ours == set()
    # The mailbox is outside: there, and nowhere else, each address stands in clear.
    assert {canary.email for canary in canaries} <= {path.parent.name for path in stack.mailbox.glob("*/*.eml")}
    # The poison may stand where the test itself wrote it, and nowhere else.
    assert findings.values & poison.values
    assert {place for place, values in findings.hits.items() if values & poison.values} == {"kafka"}
    assert not any(value in answer for answer in visits.answers for value in ours)
    assert len(visits.answers) >= 4 * people
