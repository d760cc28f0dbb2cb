"""A topic of counters: its events, records of them past any outbox, and where a reader begins."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID, uuid4

from aiokafka.partitioner import DefaultPartitioner
from confluent_kafka import TopicPartition
from confluent_kafka.admin import OffsetSpec
from pydantic import Field

from deploy.local.interfaces import KafkaServer
from event_contracts import Event
from servicekit.db.postgres import Tx
from servicekit.kafka.client import OutRecord, Producer
from servicekit.kafka.cloudevents import to_headers
from servicekit.kit import Kit

SERVICE = "counter"
# Nesting, NaN, a number without an end, a doubled key, bad UTF-8, no object.
NO_EVENTS = (
    b'{"number":' + b"[" * 100_000,
    b'{"counter_id":"00000000-0000-4000-8000-000000000000","number":NaN}',
    b'{"counter_id":"00000000-0000-4000-8000-000000000000","number":1e400}',
    b'{"counter_id":"00000000-0000-4000-8000-000000000000","number":1,"number":"one"}',
    b'{"counter_id":"00000000-0000-4000-8000-000000000000","number":1,"\xff\xfe":1}',
    b"[]",
    b"",
)


class Counted(Event, topic="counted.events", key="counter_id"):
    counter_id: UUID
    number: Annotated[int, Field(ge=0, le=1_000_000)]


class Reset(Event, topic="counted.events", key="counter_id"):
    counter_id: UUID
    number: Annotated[int, Field(ge=0, le=1_000_000)]


async def skip_to_end(kit: Kit, kafka: KafkaServer, reader: str = "main") -> None:
    """What earlier tests wrote is not read again."""
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call] # its stubs say nothing of it
    ends = kafka.admin.list_offsets({TopicPartition("counted.events", p): latest for p in range(3)})
    for place, end in ends.items():
        await kit.run_tx(
            "skip",
            statement(
                "INSERT INTO kit.positions VALUES ($1, $2, $3, $4)",
                reader,
                place.topic,
                place.partition,
                end.result().offset,
            ),
        )


def statement(sql: str, *args: Any) -> Callable[[Tx], Awaitable[str]]:
    return lambda tx: tx.execute(sql, *args)


async def produce_raw(kit: Kit, records: Sequence[OutRecord]) -> None:
    producer = Producer(kit.settings)
    await producer.send(records)
    await producer.stop()


def counted(counter: UUID, number: int) -> OutRecord:
    """An event as the relay would send it."""
    event, now = Counted(counter_id=counter, number=number), datetime.now(UTC)
    headers = to_headers(event, event_id=uuid4(), source=SERVICE, time=now)
    return OutRecord(event.topic, str(counter).encode(), event.model_dump_json().encode(), headers)


def one_in_each_partition() -> list[UUID]:
    """A counter for each of the topic's partitions."""
    choose, found = DefaultPartitioner(), dict[int, UUID]()
    while len(found) < 3:
        counter = uuid4()
        found.setdefault(choose(str(counter).encode(), [0, 1, 2], []), counter)
    return list(found.values())
