"""The order service in a test's process, on a real Postgres, with its buyers and the events of its shipments."""

import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

import httpx
import pytest

from deploy.local import keys
from deploy.local.interfaces import PostgresServer
from deploy.local.keys import StaffRole
from deploy.local.stack import POLICY_DIR
from event_contracts import Event
from event_contracts.logistics_gateway import (
    ShipmentAcknowledged,
    ShipmentDelivered,
    ShipmentHandedOver,
    ShipmentRefused,
)
from lanes.choice import make_routes
from lanes.loading import load_lanes
from order_service.app import SERVICE, SHIPMENTS
from order_service.quotes import OrderContext
from servicekit.core.health import Health
from servicekit.core.settings import Settings
from servicekit.db.postgres import Tx
from servicekit.http.app import make_app
from servicekit.kafka.cloudevents import Received
from servicekit.kit import Kit
from servicekit.vault.client import IndexEntry
from servicekit.vault.leases import KeyName
from servicekit.vault.token import SealingKey
from tests.support.asgi import open_client
from tests.support.ids import order_id_of
from tests.support.kits import FakeVault, open_test_kit

ROUTES = make_routes(load_lanes(POLICY_DIR / "lanes"))
CANARY = "Zoe Canary 7731"
HANDED_OVER_AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
HANDLERS: Mapping[type[Event], Any] = SHIPMENTS.handlers


def a_line(**fields: Any) -> dict[str, Any]:
    return {
        "sku": "TEA-POT-1",
        "description": f"Tea pot of {CANARY}",
        "quantity": 2,
        "unit_price": 1999,
        "net_weight_g": 1500,
        "origin_country": "JP",
        "hs_code": "691110",
    } | fields


def a_purchase(**fields: Any) -> dict[str, Any]:
    consignee = {
        "name": CANARY,
        "lines": [f"{CANARY} Street 1", "Back door"],
        "city": "Łódź",
        "postal_code": "90-001",
        "country": "PL",
        "phone": "+48421234567",
    }
    return {
        "lines": [a_line()],
        "currency": "EUR",
        "consignee": consignee,
        "gift": False,
        "service": "express",
        "payment": {"token": "tok_verified_0001"},
    } | fields


@dataclass
class Vault(FakeVault):
    """Remembers the index entries and hands out index keys."""

    index: list[tuple[KeyName, str, bytes]] = field(default_factory=list)

    async def ensure(self, wanted: Any, index: Any = (), new: Any = None) -> list[SealingKey]:
        entry: IndexEntry
        for entry in index:
            self.index.append((wanted[entry.key], entry.kind, entry.digest))
        return await super().ensure(wanted, index, new)

    async def find(self, kind: str, digest: bytes) -> list[KeyName]:
        return [name for name, its_kind, its_digest in self.index if (its_kind, its_digest) == (kind, digest)]

    async def index_key(self, kind: str) -> bytes:
        return hashlib.sha256(kind.encode()).digest()


@dataclass
class Shop:
    """The service in this process, and a client of it."""

    kit: Kit
    http: httpx.AsyncClient
    keys: Path

    @property
    def vault(self) -> Vault:
        return cast(Vault, self.kit.vault)

    def buyer(self) -> "Buyer":
        subject_id = uuid4()
        return Buyer(self, subject_id, {"Authorization": f"Bearer {keys.customer_token(self.keys, subject_id)}"})

    def staff(self, role: StaffRole) -> "Buyer":
        """A staff member, who asks as buyers do."""
        staff_id = uuid4()
        return Buyer(self, staff_id, {"Authorization": f"Bearer {keys.staff_token(self.keys, role, staff_id)}"})

    async def events(self, order_id: str) -> list[tuple[str, dict[str, Any]]]:
        """Type and body of what was emitted about an order, in order."""
        rows = await self.kit.db.fetch(
            "SELECT headers, body FROM kit.outbox WHERE key = $1 ORDER BY number", UUID(order_id)
        )
        return [(json.loads(row["headers"])["ce_type"], json.loads(row["body"])) for row in rows]

    async def types(self, order_id: str) -> list[str]:
        return [name.removesuffix(".v1") for name, _ in await self.events(order_id)]

    async def receive(self, *events: Event) -> None:
        """Hands the events, all of one type, to their handler as one batch."""

        async def work(tx: Tx) -> None:
            await HANDLERS[type(events[0])](tx, [received(event) for event in events])

        await self.kit.run_tx("consume", work)


@dataclass
class Buyer:
    shop: Shop
    subject_id: UUID
    headers: dict[str, str]

    @property
    def token(self) -> str:
        return self.headers["Authorization"].removeprefix("Bearer ")

    async def post(self, path: str, body: Any = None, **headers: str) -> httpx.Response:
        return await self.shop.http.post(path, json=body, headers=self.headers | headers)

    async def get(self, path: str) -> httpx.Response:
        return await self.shop.http.get(path, headers=self.headers)

    async def place(self, key: UUID | None = None, **fields: Any) -> httpx.Response:
        chosen = {"Idempotency-Key": str(key)} if key else {}
        return await self.post("/v1/orders", a_purchase(**fields), **chosen)

    def order_id(self, key: UUID) -> UUID:
        """The id of the order that is placed under this Idempotency-Key."""
        return order_id_of(self.shop.keys, self.subject_id, key)

    async def placed(self, **fields: Any) -> str:
        """The id of a new order."""
        answer = await self.place(**fields)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["order_id"])

    async def status(self, order_id: str) -> str:
        return str((await self.get(f"/v1/orders/{order_id}")).json()["status"])


def received(event: Event) -> Received[Any]:
    return Received(event, uuid4(), HANDED_OVER_AT, "logistics-gateway", event.topic, 0, 0)


def acknowledged(order_id: str) -> Event:
    return ShipmentAcknowledged(order_id=UUID(order_id), shipment_id=uuid4(), carrier="meridian")


def refused(order_id: str) -> Event:
    return ShipmentRefused(order_id=UUID(order_id), shipment_id=uuid4(), carrier="meridian")


def handed_over(order_id: str, at: datetime = HANDED_OVER_AT) -> Event:
    return ShipmentHandedOver(order_id=UUID(order_id), shipment_id=uuid4(), at=at)


def delivered(order_id: str) -> Event:
    return ShipmentDelivered(order_id=UUID(order_id), shipment_id=uuid4(), at=HANDED_OVER_AT + timedelta(days=2))


@pytest.fixture(scope="module")
def order_dsns(postgres_server: PostgresServer) -> tuple[str, str]:
    return postgres_server.create_system_database("order")


@pytest.fixture(scope="module")
def order_keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stack") / "keys"
    keys.write_keys(folder, ["order"], [])
    return folder


@pytest.fixture
async def shop(order_dsns: tuple[str, str], order_keys: Path) -> AsyncIterator[Shop]:
    settings = Settings(
        customer_public_key_file=order_keys / "customer.pub.pem",
        staff_public_key_file=order_keys / "staff.pub.pem",
        id_key_file=keys.id_key_file(order_keys, "order"),
    )
    async with open_test_kit("order", order_dsns, settings, SERVICE.publishes, [SERVICE.migrations]) as bare:
        kit = replace(bare, vault=cast(Any, Vault()), own=OrderContext(ROUTES))
        assert SERVICE.router is not None
        app = make_app(
            settings, kit.clock, Health("order", "api", "1", kit.clock), [SERVICE.router(kit)], limits=kit.limits
        )
        async with open_client(app) as http:
            yield Shop(kit, http, order_keys)
