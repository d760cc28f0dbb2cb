"""Where a reader is in a topic, on real Kafka: transactional writers, topics made anew or set back, added partitions."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiokafka import AIOKafkaProducer

from deploy.local.interfaces import KafkaServer, PostgresServer
from event_contracts.topics import Topic
from servicekit.consuming import Consumes, Received, run_reader
from servicekit.health import Progress
from servicekit.kafka import OutRecord
from servicekit.kit import Kit
from servicekit.postgres import Tx
from servicekit.settings import Settings
from tests.support.counters import SERVICE, Counted, counted
from tests.support.infra import kafka_server, postgres_server
from tests.support.kits import open_test_kit

__all__ = ["kafka_server", "postgres_server"]


@pytest.fixture(scope="module")
def password_file(kafka_server: KafkaServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("secrets") / "password"
    file.write_text("a-password-of-a-test")
    kafka_server.create_users({SERVICE: file.read_text()})
    return file


@pytest.fixture
async def kit(
    kafka_server: KafkaServer, postgres_server: PostgresServer, password_file: Path, tmp_path: Path
) -> AsyncIterator[Kit]:
    """A database of its own for each test, with a table that notes every effect."""
    (tmp_path / "0001_effects.sql").write_text(
        "CREATE TABLE effects (place bigint GENERATED ALWAYS AS IDENTITY, counter_id uuid, number integer)"
    )
    settings = Settings(kafka_bootstrap=kafka_server.bootstrap, kafka_user=SERVICE, kafka_password_file=password_file)
    dsns = postgres_server.create_system_database(f"{SERVICE}{uuid4().hex[:8]}")
    async with open_test_kit(SERVICE, dsns, settings, [Counted], [tmp_path]) as kit:
        yield kit


def new_topic(kafka: KafkaServer, partitions: int = 1) -> str:
    name = f"counted.{uuid4().hex[:8]}"
    topics = [Topic(name, SERVICE, "counter_id", partitions, 1, (SERVICE,))]
    kafka.create_topics(topics)
    kafka.create_acls(topics)
    return name


async def note(tx: Tx, received: Sequence[Received[Any]]) -> None:
    await tx.execute(
        "INSERT INTO effects (counter_id, number) SELECT * FROM unnest($1::uuid[], $2::int[])",
        [r.event.counter_id for r in received],
        [r.event.number for r in received],
    )


@asynccontextmanager
async def reading(kit: Kit, topic: str, **more: Any) -> AsyncIterator[Progress]:
    """A reader of the topic, until the block ends; yields how it gets on."""
    stopping, progress = asyncio.Event(), Progress(kit.clock, 60)
    reader = Consumes(topics=(topic,), handlers={Counted: note}, **more)
    task = asyncio.ensure_future(run_reader(kit, reader, stopping, progress))
    try:
        yield progress
    finally:
        stopping.set()
        await task


async def until_read(kit: Kit, count: int, progress: Progress) -> None:
    """Until there are so many effects and nothing is left to read; the test's own time-out ends a wait in vain."""
    while await kit.db.fetchval("SELECT count(*) FROM effects") < count or progress.lag or progress.problem():
        await asyncio.sleep(0.02)


async def numbers(kit: Kit) -> list[int]:
    return [row["number"] for row in await kit.db.fetch("SELECT number FROM effects ORDER BY place")]


@asynccontextmanager
async def transactional(kafka: KafkaServer) -> AsyncIterator[AIOKafkaProducer]:
    """A mirroring tool: it writes in transactions."""
    producer = AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap,
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_plain_username=kafka.admin_user,
        sasl_plain_password=kafka.admin_password,
        transactional_id=uuid4().hex,
    )
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def write(producer: AIOKafkaProducer, topic: str, records: Sequence[OutRecord]) -> None:
    for record in records:
        await producer.send_and_wait(topic, record.value, record.key, 0, headers=list(record.headers))


def numbered(counter: UUID, *given: int) -> list[OutRecord]:
    return [counted(counter, number) for number in given]


@pytest.mark.fault(31, "aborted transactions and commit markers")
async def test_what_a_transaction_aborted_is_never_read_and_lag_still_ends_at_zero(
    kit: Kit, kafka_server: KafkaServer
) -> None:
    """Commit and abort markers are offsets as well: the database's position never comes to the topic's end."""
    topic, counter = new_topic(kafka_server), uuid4()
    async with transactional(kafka_server) as writer, reading(kit, topic) as progress:
        async with writer.transaction():
            await write(writer, topic, numbered(counter, 0, 1))
        await until_read(kit, 2, progress)
        await writer.begin_transaction()
        await write(writer, topic, numbered(counter, 2, 3))
        await writer.abort_transaction()
        async with writer.transaction():
            await write(writer, topic, numbered(counter, 4))
        await until_read(kit, 3, progress)
        await writer.begin_transaction()
        await write(writer, topic, numbered(counter, 5))
        await writer.abort_transaction()
        await until_read(kit, 3, progress)
    async with reading(kit, topic) as progress:
        await until_read(kit, 3, progress)
    assert await numbers(kit) == [0, 1, 4]
