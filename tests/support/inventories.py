"""The privacy service's kit on real Kafka and Postgres, with a fake vault that has a directory. Fixtures: `world`."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from deploy.local import keys
from deploy.local.interfaces import KafkaServer, PostgresServer
from event_contracts.topics import TOPICS, load_topics
from privacy_service.app import SERVICE, service_under
from servicekit.core.health import Health, Progress
from servicekit.core.policy import Policy
from servicekit.core.settings import Settings
from servicekit.db.postgres import Tx
from servicekit.http.app import make_app
from servicekit.kafka.batches import Applier, Batch
from servicekit.kafka.client import OutRecord, Producer
from servicekit.kafka.consuming import Consumes, run_reader
from servicekit.kit import Kit
from servicekit.vault.leases import KeyName
from tests.support.asgi import open_client
from tests.support.inventory_events import as_read
from tests.support.kits import FakeVault, open_test_kit
from tests.support.positions import load_positions

ROOT = Path(__file__).resolve().parents[2]
REVIEWS = ROOT / "tests" / "support" / "reviews"
POLICY = Policy.load([ROOT / "shared" / "policy" / "policy.yaml", REVIEWS / "policy.yaml"])
ALL_TOPICS = (*TOPICS, *load_topics(REVIEWS / "topics.json"))
INVENTORY, THIRD_PARTIES, ANSWERS = service_under(POLICY).consumes
TEST_WRITER = "writer"


@dataclass
class DirectoryVault(FakeVault):
    """A fake vault with a directory: whoever is behind a digest of the index key `kind`."""

    directory: dict[tuple[str, bytes], list[KeyName]] = field(default_factory=dict)

    async def index_key(self, kind: str) -> bytes:
        return kind.encode()

    async def find(self, kind: str, digest: bytes) -> list[KeyName]:
        self.calls += 1
        return self.directory.get((kind, digest), [])


@dataclass(frozen=True)
class World:
    """A kit of the privacy service, and who may write into every topic for the test."""

    kit: Kit
    vault: DirectoryVault
    writer: Settings
    keys: Path
    dsns: tuple[str, str]

    async def produce(self, records: Sequence[OutRecord]) -> None:
        producer = Producer(self.writer)
        await producer.send(records)
        await producer.stop()

    async def rows(self) -> set[tuple[UUID, str, str, UUID]]:
        found = await self.kit.db.fetch("SELECT subject_id, system, data_class, anchor FROM inventory")
        return {tuple(row) for row in found}

    async def content(self) -> list[tuple[Any, ...]]:
        """All there is, also which transaction wrote each row last."""
        inventory = await self.kit.db.fetch("SELECT i.*, xmin::text FROM inventory i ORDER BY 1, 2, 3, 4")
        recipients = await self.kit.db.fetch("SELECT r.*, xmin::text FROM recipients r ORDER BY 1, 2, 3, 4, 5, 6")
        return [tuple(row) for row in (*inventory, *recipients)]

    async def sql(self, statement: str, *args: Any) -> str:
        async def work(tx: Tx) -> str:
            return await tx.execute(statement, *args)

        return await self.kit.run_tx("test", work)

    def client(self) -> httpx.AsyncClient:
        health = Health("privacy", "api", "0", self.kit.clock)
        assert SERVICE.router is not None
        return open_client(
            make_app(self.kit.settings, self.kit.clock, health, [SERVICE.router(self.kit)], limits=self.kit.limits)
        )

    def staff(self, role: Any = "support", staff_id: UUID | None = None) -> dict[str, str]:
        return {"Authorization": f"Bearer {keys.staff_token(self.keys, role, staff_id)}"}


@pytest.fixture(scope="module")
def secrets_folder(kafka_server: KafkaServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Topics with the ACLs of the system, a user who stands for all producers, and the keys of a stack."""
    folder = tmp_path_factory.mktemp("inventory")
    keys.write_keys(folder / "keys", ["privacy"], [])
    passwords = {"privacy": "a-password", TEST_WRITER: "another-password"}
    for user, password in passwords.items():
        (folder / user).write_text(password)
    kafka_server.create_users(passwords)
    kafka_server.create_topics(ALL_TOPICS)
    kafka_server.create_acls([*ALL_TOPICS, *(replace(topic, owner=TEST_WRITER) for topic in ALL_TOPICS)])
    return folder


@pytest.fixture
async def world(
    kafka_server: KafkaServer, postgres_server: PostgresServer, secrets_folder: Path
) -> AsyncIterator[World]:
    """A database of its own for each test; the topics are shared, so a reader meets the records of earlier tests too."""

    def settings(user: str) -> Settings:
        return Settings(
            kafka_bootstrap=kafka_server.bootstrap,
            limits_factor=1,
            kafka_user=user,
            kafka_password_file=secrets_folder / user,
            customer_public_key_file=secrets_folder / "keys" / "customer.pub.pem",
            staff_public_key_file=secrets_folder / "keys" / "staff.pub.pem",
            id_key_file=keys.id_key_file(secrets_folder / "keys", "privacy"),
        )

    dsns = postgres_server.create_system_database(f"privacy{uuid4().hex[:8]}")
    async with open_test_kit("privacy", dsns, settings("privacy"), migrations=[SERVICE.migrations]) as kit:
        vault = DirectoryVault()
        kit = replace(kit, policy=POLICY, vault=vault)  # type: ignore[arg-type]
        yield World(kit, vault, settings(TEST_WRITER), secrets_folder / "keys", dsns)


@asynccontextmanager
async def reading(kit: Kit, *readers: Consumes) -> AsyncIterator[None]:
    """These readers, by default those of the inventory."""
    stopping = asyncio.Event()
    runs = [run_reader(kit, each, stopping, Progress(kit.clock, 60)) for each in readers or (INVENTORY, THIRD_PARTIES)]
    tasks = [asyncio.ensure_future(run) for run in runs]
    try:
        yield
    finally:
        stopping.set()
        await asyncio.gather(*tasks)


async def until(check: Callable[[], Any]) -> None:
    """Waits until it is so; the test's own time-out ends a wait in vain."""
    while not await check():
        await asyncio.sleep(0.05)


async def apply(kit: Kit, records: list[OutRecord]) -> None:
    """Applies the records as one batch, without a reader around it."""
    batch = Batch(as_read(records))
    places = [(topic, 0) for topic in {record.topic for record in records}]
    applier = Applier(kit, INVENTORY)
    applier.next.update(await load_positions(kit.db, INVENTORY.reader, places))
    await applier.apply(batch, applier.prepare(batch))


async def forget_positions(world: World) -> None:
    await world.sql("UPDATE kit.positions SET next = 0")
