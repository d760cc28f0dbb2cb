"""Where a reader is in a topic, on real Kafka: transactional writers, topics made anew or set back, added partitions."""
# long: all tests of positions share the fixtures of one Kafka and one database for each.

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiokafka import AIOKafkaProducer
from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewPartitions
from msgspec import structs

from deploy.local.interfaces import KafkaServer, PostgresServer
from event_contracts.privacy import PositionDecided
from event_contracts.topics import Topic
from servicekit.core.clock import FakeClock
from servicekit.core.errors import Invalid, NotFound, PartitionsDiffer
from servicekit.core.health import Progress
from servicekit.core.logs import _FIELDS
from servicekit.core.settings import Settings
from servicekit.db import outbox
from servicekit.db.inbox import REMEMBERED
from servicekit.db.outbox import Relay, roll_partitions
from servicekit.db.postgres import Tx
from servicekit.kafka import client
from servicekit.kafka.client import OutRecord, Producer
from servicekit.kafka.consuming import Consumes, Received, run_reader
from servicekit.kafka.positions_command import parse, resolve, run
from servicekit.kafka.replay import replay
from servicekit.kit import Decided, Kit
from tests.support.counters import SERVICE, Counted, counted, one_in_each_partition, produce_raw, statement
from tests.support.infra import kafka_server, postgres_server
from tests.support.kits import OpenPolicy, open_test_kit

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
    create(kafka, name, partitions)
    return name


def create(kafka: KafkaServer, name: str, partitions: int = 1) -> None:
    topics = [Topic(name, SERVICE, "counter_id", partitions, 1, (SERVICE,))]
    kafka.create_topics(topics)
    kafka.create_acls(topics)


async def make_anew(kafka: KafkaServer, name: str) -> None:
    """Deletes the topic, and creates it under its name as soon as Kafka lets it."""

    def work() -> None:
        kafka.admin.delete_topics([name])[name].result()
        while name in kafka.admin.list_topics(timeout=30).topics:
            pass
        create(kafka, name)

    await asyncio.to_thread(work)


async def delete_before(kafka: KafkaServer, topic: str, offset: int) -> None:
    """What retention does."""
    place = TopicPartition(topic, 0, offset)
    await asyncio.to_thread(kafka.admin.delete_records([place])[place].result)


async def send(kit: Kit, topic: str, counter: UUID, *given: int) -> None:
    await produce_raw(kit, [structs.replace(record, topic=topic) for record in numbered(counter, *given)])


async def note(tx: Tx, received: Sequence[Received[Any]]) -> None:
    await tx.execute(
        "INSERT INTO effects (counter_id, number) SELECT * FROM unnest($1::uuid[], $2::int[])",
        [r.event.counter_id for r in received],
        [r.event.number for r in received],
    )


READER: Consumes[Any, Any] = Consumes(topics=(), handlers={Counted: note})


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
    while (
        await kit.db.fetchval("SELECT count(*) FROM effects") < count
        or progress.lag
        or progress.stopped
        or progress.problem()
    ):
        await asyncio.sleep(0.02)


async def until_number(kit: Kit, sql: str, count: int) -> None:
    while await kit.db.fetchval(sql) < count:
        await asyncio.sleep(0.02)


async def until_stopped(progress: Progress, reason: str) -> None:
    while progress.stopped != reason:
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


@pytest.mark.fault(
    31, "a topic is made anew, with more records than were read of the old one, while its reader is down"
)
@pytest.mark.fault(31, "a topic is made anew, with fewer records than were read of the old one")
@pytest.mark.fault(31, "a topic is made anew and empty")
async def test_all_of_a_topic_that_was_made_anew_is_read(kit: Kit, kafka_server: KafkaServer) -> None:
    """Six of eight replies were never read: the old topic's position was taken for one in the new one."""
    topic, counter = new_topic(kafka_server), uuid4()
    await send(kit, topic, counter, *range(6))
    async with reading(kit, topic) as progress:
        await until_read(kit, 6, progress)
    for first, count, read in ((10, 8, 14), (20, 3, 17), (30, 0, 17)):
        await make_anew(kafka_server, topic)
        await send(kit, topic, counter, *range(first, first + count))
        async with reading(kit, topic) as progress:
            await until_read(kit, read, progress)
    async with reading(kit, topic) as progress:
        await send(kit, topic, counter, 40)
        await until_read(kit, 18, progress)
    assert await numbers(kit) == [*range(6), *range(10, 18), *range(20, 23), 40]


@pytest.mark.fault(31, "a topic is made anew under a running reader")
async def test_all_of_a_topic_that_was_made_anew_under_its_reader_is_read(
    kit: Kit, kafka_server: KafkaServer, caplog: pytest.LogCaptureFixture
) -> None:
    topic, counter = new_topic(kafka_server), uuid4()
    async with reading(kit, topic) as progress:
        await send(kit, topic, counter, *range(6))
        await until_read(kit, 6, progress)
        await make_anew(kafka_server, topic)
        await send(kit, topic, counter, *range(10, 18))
        await until_read(kit, 14, progress)
    assert await numbers(kit) == [*range(6), *range(10, 18)]
    assert "topic_made_anew" in {vars(record).get(_FIELDS, {}).get("event") for record in caplog.records}


@pytest.mark.fault(31, "retention takes records that were not read")
async def test_a_reader_stops_where_records_are_gone_until_an_operator_decides(
    kit: Kit, kafka_server: KafkaServer
) -> None:
    """The decision is on record with the one who made it."""
    topic, counter = new_topic(kafka_server), uuid4()
    decisions: list[Decided] = []

    async def record(kit: Kit, tx: Tx, decided: Decided) -> None:
        decisions.append(decided)

    await send(kit, topic, counter, *range(4))
    async with reading(kit, topic) as progress:
        await until_read(kit, 4, progress)
    await delete_before(kafka_server, topic, 4)
    async with reading(kit, topic) as progress:
        await send(kit, topic, counter, *range(4, 6))
        await until_read(kit, 6, progress)
    await send(kit, topic, counter, *range(6, 9))
    await delete_before(kafka_server, topic, 7)
    async with reading(kit, topic) as progress:
        await until_stopped(progress, "records_gone")
        deciding = replace(kit, record_decision=record)
        assert await resolve(deciding, READER, topic, "skip", "nobody_has_it", "jane.operator") == 1
        await until_read(kit, 8, progress)
    assert await numbers(kit) == [0, 1, 2, 3, 4, 5, 7, 8]
    (row,) = await kit.db.fetch("SELECT action, reason, since, onto, operator FROM kit.position_decisions")
    assert tuple(row.values()) == ("skip", "nobody_has_it", 6, 7, "jane.operator")
    assert len(decisions) == 1
    decided = decisions[0]
    assert isinstance(decided, PositionDecided)
    said = (decided.system, decided.reader, decided.at_topic, decided.partition, decided.action)
    assert said == (SERVICE, READER.reader, topic, 0, "skip")
    assert (decided.since, decided.onto, decided.reason, decided.operator) == (6, 7, "nobody_has_it", "jane.operator")


@pytest.mark.fault(31, "a topic was set back, and has gone on past the position")
async def test_a_reader_stops_where_another_record_stands_than_it_read(kit: Kit, kafka_server: KafkaServer) -> None:
    """The other partitions go on. After `reset` all that Kafka has comes again."""
    topic = new_topic(kafka_server, 3)
    others = one_in_each_partition()
    for each in others:
        await send(kit, topic, each, 0, 1)
    async with reading(kit, topic) as progress:
        await until_read(kit, 6, progress)
    await kit.run_tx("behind", statement("UPDATE kit.positions SET next = 1 WHERE partition = 0"))
    async with reading(kit, topic) as progress:
        await until_stopped(progress, "records_rewritten")
        for each in others:
            await send(kit, topic, each, 2)
        await until_number(kit, "SELECT count(*) FROM effects", 8)
        assert progress.stopped == "records_rewritten"
        assert await resolve(kit, READER, topic, "reset", "drill") == 1
        await until_read(kit, 11, progress)
    rows = await kit.db.fetch("SELECT counter_id, array_agg(number ORDER BY place) AS n FROM effects GROUP BY 1")
    assert sorted(row["n"] for row in rows) == [[0, 1, 0, 1, 2], [0, 1, 2], [0, 1, 2]]


@pytest.mark.fault(12, "Kafka is set back behind a reader's position, and goes on")
async def test_a_reader_stops_where_its_topic_ends_before_its_position(kit: Kit, kafka_server: KafkaServer) -> None:
    """Else what is published next, up to its old position, would be taken for what it has read already."""
    topic, counter = new_topic(kafka_server), uuid4()
    await send(kit, topic, counter, *range(3))
    async with reading(kit, topic) as progress:
        await until_read(kit, 3, progress)
    await kit.run_tx("ahead", statement("UPDATE kit.positions SET next = next + 5"))
    async with reading(kit, topic) as progress:
        await until_stopped(progress, "positions_set_back")
        await send(kit, topic, counter, *range(3, 5))
        assert await resolve(kit, READER, topic, "skip", "sent_again") == 1
        await until_number(kit, "SELECT count(*) FROM kit.positions WHERE next = 5", 1)
        await send(kit, topic, counter, 5)
        await until_read(kit, 4, progress)
    assert await numbers(kit) == [0, 1, 2, 5]


async def test_a_reset_behind_what_the_inbox_remembers_is_refused(kit: Kit, kafka_server: KafkaServer) -> None:
    """A command of ten days ago would take a second effect. Without an inbox effects are idempotent by themselves."""
    topic, counter = new_topic(kafka_server), uuid4()
    with_inbox = replace(READER, inbox=True)
    await send(kit, topic, counter, *range(3))
    async with reading(kit, topic) as progress:
        await until_read(kit, 3, progress)
    later = replace(kit, clock=FakeClock(kit.clock.now() + REMEMBERED + timedelta(hours=1)))
    await kit.run_tx("ahead", statement("UPDATE kit.positions SET next = next + 5"))
    with pytest.raises(Invalid, match="9 days"):
        await resolve(later, with_inbox, topic, "reset", "drill")
    assert await kit.db.fetchval("SELECT count(*) FROM kit.position_decisions") == 0
    assert await resolve(kit, with_inbox, topic, "reset", "drill") == 1
    await kit.run_tx("ahead", statement("UPDATE kit.positions SET next = next + 5"))
    assert await resolve(later, READER, topic, "reset", "drill") == 1


async def test_nothing_is_decided_about_a_reader_that_goes_on(
    kit: Kit, kafka_server: KafkaServer, capsys: pytest.CaptureFixture[str]
) -> None:
    topic, counter = new_topic(kafka_server), uuid4()
    await send(kit, topic, counter, 0)
    async with reading(kit, topic) as progress:
        await until_read(kit, 1, progress)
    with pytest.raises(NotFound):
        await resolve(kit, READER, topic, "reset", "drill")
    with pytest.raises(Invalid):
        await resolve(kit, READER, topic, "reset", "Jane Doe asked for it")
    await run(kit, [Consumes(topics=(topic,), handlers={Counted: note})], parse(SERVICE, ["list"]))
    assert capsys.readouterr().out.split() == ["main", f"{topic}/0", "1", "0", "1", "same"]


@pytest.mark.fault(31, "partitions are added")
async def test_a_producer_refuses_a_topic_whose_number_of_partitions_is_another(
    kit: Kit, kafka_server: KafkaServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys would move: a cancellation was read before its order, and nine cancelled orders were shipped."""
    topic, counter = new_topic(kafka_server), uuid4()
    listed = {
        "name": topic,
        "owner": SERVICE,
        "key": "counter_id",
        "partitions": 1,
        "retention_hours": 1,
        "consumers": [],
    }
    (tmp_path / "topics.json").write_text(json.dumps([listed]))
    settings = kit.settings.model_copy(update={"topics_files": (tmp_path / "topics.json",)})
    monkeypatch.setattr(client, "METADATA_SECONDS", 0.5)
    producers = Producer(settings), Producer(kit.settings)
    for producer in producers:
        await producer.send([structs.replace(counted(counter, 1), topic=topic)])
    await add_partitions(kafka_server, topic, 4)
    for producer in producers:
        with pytest.raises(PartitionsDiffer):
            await send_for_ever(producer, structs.replace(counted(counter, 2), topic=topic))
        with pytest.raises(PartitionsDiffer):
            await producer.check([topic])
        await producer.stop()
    fresh = Producer(settings)
    with pytest.raises(PartitionsDiffer):
        await fresh.check([topic])
    await fresh.stop()
    async with reading(kit, topic) as progress:
        await until_read(kit, 2, progress)
    partitions = await kit.db.fetch("SELECT partition FROM kit.positions WHERE next > 0")
    assert [row["partition"] for row in partitions] == [0]


async def send_for_ever(producer: Producer, record: OutRecord) -> None:
    while True:
        await producer.send([record])


async def add_partitions(kafka: KafkaServer, topic: str, count: int) -> None:
    await asyncio.to_thread(kafka.admin.create_partitions([NewPartitions(topic, count)])[topic].result)


@pytest.mark.fault(31, "partitions are added while an outbox has rows")
async def test_a_relay_keeps_what_it_may_not_send(
    kit: Kit, kafka_server: KafkaServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows wait, in their order; the relay waits for an operator until topic and list agree."""
    create(kafka_server, Counted.topic, 2)
    listed = {
        "name": Counted.topic,
        "owner": SERVICE,
        "key": "id",
        "partitions": 3,
        "retention_hours": 1,
        "consumers": [],
    }
    (tmp_path / "topics.json").write_text(json.dumps([listed]))
    settings = kit.settings.model_copy(update={"topics_files": (tmp_path / "topics.json",)})
    monkeypatch.setattr(client, "METADATA_SECONDS", 0.5)
    monkeypatch.setattr(outbox, "CHECK_SECONDS", 0.1)
    counter, stopping, progress = uuid4(), asyncio.Event(), Progress(kit.clock, 60)
    assert kit.outbox is not None

    async def work(tx: Tx) -> None:
        await tx.emit(*(Counted(counter_id=counter, number=number) for number in range(3)))

    await kit.run_tx("emit", work)
    relay = Relay(kit.db, lambda: Producer(settings), kit.clock, kit.outbox.wake, topics=kit.outbox.topics)
    task = asyncio.ensure_future(relay.run(stopping, progress))
    async with reading(kit, Counted.topic) as reader:
        while progress.stopped is None:
            await asyncio.sleep(0.02)
        assert await kit.db.fetchval("SELECT count(*) FROM kit.outbox WHERE published_at IS NULL") == 3
        await add_partitions(kafka_server, Counted.topic, 3)
        await until_read(kit, 3, reader)
    stopping.set()
    await task
    assert await numbers(kit) == [0, 1, 2]


async def test_partitions_are_rolled_by_several_processes_at_once(kit: Kit) -> None:
    later = kit.clock.now().date() + timedelta(days=60)
    rolls = [kit.run_tx("roll", lambda tx: roll_partitions(tx, later, 10)) for _ in range(8)]
    await asyncio.gather(*rolls)
    days = "SELECT count(*) FROM pg_class WHERE relname = $1 AND relkind = 'r'"
    for parent in ("outbox", "inbox"):
        assert await kit.db.fetchval(days, f"{parent}_{later:%Y%m%d}") == 1


async def test_replay_takes_no_other_record_for_the_one_in_quarantine(
    kit: Kit, kafka_server: KafkaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that may not open its quarantine reads Kafka again, where another topic may stand by now."""
    topic, counter = new_topic(kafka_server), uuid4()
    poison = structs.replace(counted(counter, 0), topic=topic, value=b"{")
    await produce_raw(kit, [poison])
    async with reading(kit, topic):
        await until_number(kit, "SELECT count(*) FROM kit.quarantine", 1)
    await make_anew(kafka_server, topic)
    await send(kit, topic, counter, 1)
    monkeypatch.setattr(OpenPolicy, "may_open", lambda *_: False)
    assert await replay(kit, [Consumes(topics=(topic,), handlers={Counted: note})]) == (0, 1)
    assert await numbers(kit) == []
