"""What a reader must get right at its edges: rebalances, a Kafka that was set back, records that nobody can process."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from aiokafka import TopicPartition
from prometheus_client import REGISTRY

from deploy.local.interfaces import PostgresServer
from servicekit.core.errors import LookAgain, Unavailable
from servicekit.core.health import Progress
from servicekit.core.settings import Settings
from servicekit.db.inbox import Place, Position
from servicekit.db.postgres import Tx
from servicekit.kafka import batches, consuming
from servicekit.kafka.cloudevents import RawRecord, Received, RecordId
from servicekit.kafka.consuming import Reader
from servicekit.kafka.places import Look
from servicekit.kafka.replay import replay
from servicekit.kit import Kit
from tests.support.infra import postgres_server
from tests.support.kits import open_test_kit
from tests.support.partitions import EFFECTS, TOPIC, Counted, Partition, apply, effects, note

__all__ = ["postgres_server"]


@pytest.fixture(scope="module")
def dsns(postgres_server: PostgresServer) -> tuple[str, str]:
    return postgres_server.create_system_database("counter")


@pytest.fixture
async def kit(dsns: tuple[str, str], tmp_path: Path) -> AsyncIterator[Kit]:
    (tmp_path / "0001_effects.sql").write_text(EFFECTS)
    async with open_test_kit("counter", dsns, Settings(), [Counted], [tmp_path]) as kit:
        yield kit


class Client:
    """Stands for the consumer of one partition that ends at `end`."""

    def __init__(self, partition: Partition, end: int = 0) -> None:
        self._places = {TopicPartition(TOPIC, partition.number)}
        self.end = end

    def assignment(self) -> set[TopicPartition]:
        return self._places

    def highwater(self, place: TopicPartition) -> int:
        return self.end

    def last_stable_offset(self, place: TopicPartition) -> int:
        return self.end

    def pause(self, *places: TopicPartition) -> None:
        """Nothing is fetched here."""

    async def position(self, place: TopicPartition) -> int:
        return 0

    def last_poll_timestamp(self, place: TopicPartition) -> int:
        return 0

    def seek(self, place: TopicPartition, offset: int) -> None:
        """The test decides what is fetched."""

    async def commit(self, offsets: Any) -> None:
        """For lag only."""


@pytest.fixture(autouse=True)
def no_kafka(monkeypatch: pytest.MonkeyPatch) -> None:
    """The topics are what they were."""

    async def ends_at_the_position(settings: Settings, positions: Mapping[Place, Position]) -> dict[Place, Look]:
        return {place: Look(None, at.next, at.next) for place, at in positions.items()}

    monkeypatch.setattr(consuming, "look", ends_at_the_position)
    monkeypatch.setattr(consuming, "LOOK_SECONDS", float("inf"))


def reader_of(partition: Partition, client: Client) -> Reader:
    reader = Reader(partition.kit, partition.consumes, Progress(partition.kit.clock, 60))
    reader._subscriber = SimpleNamespace(consumer=client)
    return reader


def fetched(record: RawRecord) -> Any:
    return SimpleNamespace(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        key=record.key,
        value=record.value,
        headers=record.headers,
    )


@pytest.mark.fault(7, "a rebalance in the middle of a batch")
async def test_a_batch_that_outlives_its_assignment_has_no_second_effect(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The drain gives up, and the partition comes back, at the position from before the batch, while that is prepared."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(kit: Kit, events: Sequence[Received[Any]]) -> dict[RecordId, None]:
        begun.set()
        await go_on.wait()
        return {}

    monkeypatch.setattr(consuming, "DRAIN_SECONDS", 0.01)
    partition, counter = Partition(kit, prepare=slow), uuid4()
    client, record = Client(partition, end=1), partition.event(counter)
    reader = reader_of(partition, client)
    await reader.on_partitions_assigned(client.assignment())
    stopping = asyncio.Event()
    running = asyncio.create_task(reader.run(stopping))
    await reader._take([fetched(record)])
    await begun.wait()

    await reader.on_partitions_revoked(client.assignment())
    await reader.on_partitions_assigned(client.assignment())
    await reader._take([fetched(record)])
    go_on.set()
    while not await effects(kit, counter):
        await asyncio.sleep(0.01)
    stopping.set()
    await running
    assert (await effects(kit, counter), await partition.position()) == ([1], 1)


@pytest.mark.fault(12, "Kafka is set back behind a reader's position")
async def test_a_topic_that_ends_before_the_position_stops_the_reader(kit: Kit) -> None:
    """Kafka was restored from before: what is new there would be taken for what was read already."""
    partition = Partition(kit)
    await apply(await partition.applier(), *(partition.event(uuid4()) for _ in range(3)))
    client = Client(partition, end=2)
    reader = reader_of(partition, client)
    await reader.on_partitions_assigned(client.assignment())
    with pytest.raises(LookAgain):
        await reader.run(asyncio.Event())


def shown_lag(partition: Partition) -> float | None:
    labels = {"reader": partition.reader, "topic": TOPIC, "partition": str(partition.number)}
    return REGISTRY.get_sample_value("consumer_lag", labels)


async def test_readers_of_one_topic_in_one_process_show_their_lag_each_until_they_lose_the_partition(kit: Kit) -> None:
    """One overwrote the other's figure, and a partition that had gone to another process kept its last one."""
    partitions = [Partition(kit), Partition(kit)]
    clients = [Client(partition, end) for partition, end in zip(partitions, (3, 5), strict=True)]
    readers = [reader_of(partition, client) for partition, client in zip(partitions, clients, strict=True)]
    for reader, client in zip(readers, clients, strict=True):
        await reader.on_partitions_assigned(client.assignment())
        await reader._idle()
    assert [shown_lag(partition) for partition in partitions] == [3, 5]
    await readers[0].on_partitions_revoked(clients[0].assignment())
    readers[1].close()
    assert [shown_lag(partition) for partition in partitions] == [None, None]


async def test_a_reader_that_is_told_to_stop_takes_nothing_more_and_waits_for_nobody(kit: Kit) -> None:
    stopping = asyncio.Event()

    async def away(tx: Tx, received: Sequence[Received[Any]]) -> None:
        stopping.set()
        raise Unavailable

    partition, counter = Partition(kit, away), uuid4()
    client = Client(partition, end=2)
    reader = reader_of(partition, client)
    await reader.on_partitions_assigned(client.assignment())
    await reader._take([fetched(partition.event(counter))])
    await asyncio.wait_for(reader.run(stopping), 60)
    await reader._take([fetched(partition.event(counter))])
    assert (reader._queue.empty(), await partition.position()) == (True, 0)


async def test_an_aggregate_in_quarantine_stays_in_order_when_a_later_record_is_poison(kit: Kit) -> None:
    partition, counter = Partition(kit), uuid4()
    applier, key = await partition.applier(), str(counter).encode()
    await apply(applier, partition.record(key, b"poison"))
    await apply(applier, partition.event(counter, 1), partition.record(key, b"poison"), partition.event(counter, 2))
    assert (await effects(kit, counter), len(await partition.quarantined())) == ([], 4)


async def test_where_order_means_nothing_nobody_waits_behind_a_quarantined_record(kit: Kit) -> None:
    partition, counter = Partition(kit, ordered=False), uuid4()
    applier = await partition.applier()
    await apply(applier, partition.record(str(counter).encode(), b"poison"), partition.event(counter, 1))
    await apply(applier, partition.event(counter, 2))
    assert (await effects(kit, counter), len(await partition.quarantined())) == ([1, 2], 1)


async def test_a_record_that_cannot_be_prepared_goes_to_quarantine_without_being_applied(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`apply` finds nothing prepared then, and must not be asked."""

    async def fails(kit: Kit, events: Sequence[Received[Any]]) -> dict[RecordId, None]:
        raise LookupError

    async def applies(kit: Kit, tx: Tx, events: Sequence[Received[Any]], prepared: Mapping[RecordId, None]) -> None:
        raise AssertionError

    monkeypatch.setattr(batches, "FIRST_PAUSE", 0.0)
    partition = Partition(kit, prepare=fails, apply=applies)
    await apply(await partition.applier(), partition.event(uuid4()))
    assert (await partition.position(), len(await partition.quarantined())) == (1, 1)


@pytest.mark.fault(9, "a thousand headers")
async def test_no_number_of_headers_keeps_a_record_out_of_quarantine(kit: Kit) -> None:
    partition = Partition(kit)
    many = [(f"h{number}", b"1") for number in range(1_001)]
    await apply(await partition.applier(), partition.record(b"k", b"v", many))
    assert (await partition.position(), len(await partition.quarantined())) == (1, 1)


@pytest.mark.fault(25, "two replays of quarantine at once")
async def test_two_replays_at_once_have_one_effect(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = True

    async def fails(tx: Tx, received: Sequence[Received[Any]]) -> None:
        if broken:
            raise LookupError
        await note(tx, received)

    monkeypatch.setattr(batches, "FIRST_PAUSE", 0.0)
    partition, counter = Partition(kit, fails), uuid4()
    await apply(await partition.applier(), partition.event(counter))
    broken = False
    await asyncio.gather(replay(kit, [partition.consumes]), replay(kit, [partition.consumes]))
    assert await effects(kit, counter) == [1]


@pytest.mark.fault(31, "a topic is made anew and has poison where the old one had some")
async def test_another_record_in_the_place_of_a_quarantined_one_is_quarantined_too(kit: Kit) -> None:
    """The same one that comes again is there already, also where it came before hashes were kept."""
    partition = Partition(kit)
    old, new = partition.record(b"k", b"poison"), RawRecord(TOPIC, partition.number, 0, b"k", b"other poison", ())
    for record in (old, new, old, new):
        await apply(await partition.applier(), record)
        await kit.db.fetch("UPDATE kit.positions SET next = 0 WHERE partition = $1", partition.number)
    assert len(await partition.quarantined()) == 2
    await kit.db.fetch("DELETE FROM kit.quarantine WHERE reader = $1", partition.reader)
    for _ in range(2):
        await apply(await partition.applier(), old)
        await kit.db.fetch("UPDATE kit.quarantine SET hash = NULL WHERE reader = $1", partition.reader)
        await kit.db.fetch("UPDATE kit.positions SET next = 0 WHERE partition = $1", partition.number)
    assert len(await partition.quarantined()) == 1


async def test_a_reader_whose_partitions_all_wait_for_an_operator_is_alive(kit: Kit) -> None:
    """Kafka is asked about none of them, so its silence says nothing."""
    partition = Partition(kit)
    client = Client(partition)
    reader = reader_of(partition, client)
    await reader.on_partitions_assigned(client.assignment())
    assert (reader._hears(), reader._hears()) == (True, False), "a reader that Kafka does not answer looks alive"
    reader._stopped = {(TOPIC, partition.number): Position(0)}
    assert (reader._hears(), reader._hears()) == (True, True)
