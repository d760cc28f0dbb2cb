"""A gateway on real Kafka and Postgres with its carriers' accounts, and a vault that is a fake of the test's process."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from deploy.local.interfaces import KafkaServer
from event_contracts import Event, Sealed
from event_contracts.order import Delivery, OrderPlaced, OrderRecord, Payment
from event_contracts.topics import TOPICS
from logistics_gateway.app import ORDERS, REPLIES
from logistics_gateway.sending import Gateway
from logistics_gateway.settings import GatewaySettings
from servicekit.core.health import Progress
from servicekit.kafka.client import OutRecord, Producer
from servicekit.kafka.cloudevents import to_headers
from servicekit.kafka.consuming import Consumes, run_reader
from servicekit.kit import Kit
from tests.support.carrier import Account
from tests.support.deliveries import make_delivery
from tests.support.kits import FakeVault

PASSWORD = "a-password-of-a-test"
CARRIERS = ("meridian", "pacifica")


class LeasingVault(FakeVault):
    """`live` tells whether leases still run."""

    live = True

    def is_live(self, purpose: str, key_ids: Any) -> bool:
        return self.live


@dataclass
class World:
    """One test's gateway, with a producer of orders and the two carriers' accounts."""

    kit: Kit
    vault: LeasingVault
    orders: Producer
    accounts: dict[str, Account]

    @property
    def gateway(self) -> Gateway:
        return self.kit.context(Gateway)

    async def order(self, order_id: UUID | None = None, **delivery: Any) -> UUID:
        """Publishes one `OrderPlaced` with a sealed delivery. Returns the order's id."""
        (order_id,) = await self.order_many([order_id or uuid4()], **delivery)
        return order_id

    async def order_many(self, order_ids: Sequence[UUID], **delivery: Any) -> Sequence[UUID]:
        consignees = [uuid4() for _ in order_ids]
        parts = [(make_delivery(**delivery), c, o) for c, o in zip(consignees, order_ids, strict=True)]
        sealed = await self.kit.seal_many(parts)
        await self.publish(*(placed(o, c, s) for o, c, s in zip(order_ids, consignees, sealed, strict=True)))
        return order_ids

    async def publish(self, *events: Event) -> None:
        now = datetime.now(UTC)
        records = []
        for event in events:
            headers = to_headers(event, event_id=uuid4(), source="order", time=now)
            key = str(event.partition_key).encode()
            records.append(OutRecord(event.topic, key, event.model_dump_json().encode(), headers))
        await self.orders.send(records)

    async def line(self, order_id: UUID) -> dict[str, Any]:
        row = await self.kit.db.fetchrow("-- test\nSELECT * FROM disclosures WHERE order_id = $1", order_id)
        return dict(row) if row is not None else {}

    async def emitted(self) -> list[str]:
        rows = await self.kit.db.fetch("-- test\nSELECT headers FROM kit.outbox ORDER BY number")
        return [json.loads(row["headers"])["ce_type"] for row in rows]


def placed(order_id: UUID, consignee_id: UUID, delivery: Sealed[Delivery]) -> OrderPlaced:
    never_opened: Sealed[OrderRecord] = Sealed(delivery.token)
    payment: Sealed[Payment] = Sealed(delivery.token)
    return OrderPlaced(
        order_id=order_id,
        buyer_id=uuid4(),
        consignee_id=consignee_id,
        placed_at=datetime.now(UTC),
        delivery=delivery,
        record=never_opened,
        payment=payment,
    )


def accounts_of(settings: GatewaySettings) -> dict[str, Account]:
    folder = settings.carriers_dir
    assert folder is not None
    return {
        name: Account(
            name,
            settings.kafka_bootstrap,
            name,
            PASSWORD,
            (folder / f"{name}.private").read_text(),
            (folder / "gateway.json").read_text(),
        )
        for name in CARRIERS
    }


async def skip_to_end(kit: Kit, kafka: KafkaServer) -> None:
    """What earlier tests wrote is not read again."""
    from confluent_kafka import TopicPartition
    from confluent_kafka.admin import OffsetSpec

    readers: list[Consumes] = [ORDERS, *REPLIES]
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call] # its stubs say nothing of it
    wanted = [(c.reader, topic) for c in readers for topic in c.topics]
    for reader, topic in wanted:
        count = next(t.partitions for t in TOPICS if t.name == topic)
        ends = kafka.admin.list_offsets({TopicPartition(topic, p): latest for p in range(count)})
        for place, end in ends.items():
            await kit.db.fetch(
                "-- test\nINSERT INTO kit.positions VALUES ($1, $2, $3, $4)",
                reader,
                topic,
                place.partition,
                end.result().offset,
            )


@asynccontextmanager
async def running(world: World, *readers: Any) -> AsyncIterator[None]:
    """The gateway's readers, until the block ends."""
    stopping = asyncio.Event()
    tasks = [
        asyncio.create_task(run_reader(world.kit, reader, stopping, Progress(world.kit.clock, 60)))
        for reader in readers or (ORDERS, *REPLIES)
    ]
    try:
        yield
    finally:
        stopping.set()
        await asyncio.wait_for(asyncio.gather(*tasks), 120)


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(120):
        while not await true():
            await asyncio.sleep(0.05)
