"""The subscription of a reader: FastStream owns it, with every default that loses data set by hand.

See docs/decisions.md#events-outbox-and-kafka.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, Union

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord
from aiokafka.errors import GroupAuthorizationFailedError, TopicAuthorizationFailedError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from faststream.kafka.message import FAKE_CONSUMER, KafkaMessage

from event_contracts import Event
from servicekit.kafka.batches import Consumes
from servicekit.kafka.client import MAX_RECORD_BYTES

BATCH = 2_000
POLL_MS = 500
# What one answer of Kafka may hold, of all partitions.
MAX_FETCH_BYTES = 8 * MAX_RECORD_BYTES


async def _raw_message(records: Any) -> KafkaMessage:
    # The default parser decodes headers before any error handling: a null header would be skipped silently.
    return KafkaMessage(body=records, raw_message=records, consumer=FAKE_CONSUMER)


async def _as_it_came(message: KafkaMessage) -> Any:
    return message.raw_message


def subscribe(
    broker: KafkaBroker,
    service: str,
    consumes: Consumes,
    take: Any,
    listener: ConsumerRebalanceListener | None,
    member: str = "",
    fail: Callable[[Exception], None] | None = None,
) -> Any:
    """`fail` hears of what FastStream would meet by trying again in silence: Kafka refuses this user the topic or group."""
    subscriber: Any = broker.subscriber(
        *consumes.topics,
        group_id=f"{service}.{consumes.reader}",
        group_instance_id=member or None,
        batch=True,
        ack_policy=AckPolicy.MANUAL,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        fetch_max_wait_ms=500,
        max_partition_fetch_bytes=MAX_RECORD_BYTES,
        fetch_max_bytes=MAX_FETCH_BYTES,
        session_timeout_ms=10_000,
        heartbeat_interval_ms=1_000,
        max_poll_interval_ms=120_000,
        listener=listener,
        parser=_raw_message,
        decoder=_as_it_came,
        no_reply=True,
        title=f"{service}.{consumes.reader}",
    )

    async def get_batch(consumer: AIOKafkaConsumer) -> tuple[ConsumerRecord[Any, Any], ...]:
        try:
            found = await consumer.getmany(timeout_ms=POLL_MS, max_records=BATCH)
        except (TopicAuthorizationFailedError, GroupAuthorizationFailedError) as error:
            if fail is not None:
                fail(error)
            raise
        return tuple(chain.from_iterable(found.values()))

    # FastStream's own sleeps for another POLL_MS after each poll that found nothing: what came then had to wait.
    subscriber.get_msg = get_batch

    async def on_records(records: Any) -> None:
        await take(records)

    # Only for the AsyncAPI document: nothing is parsed by it.
    model: Any = Union.__getitem__(consumes.types) if consumes.types else bytes
    on_records.__annotations__["records"] = list[model]
    subscriber(on_records)
    return subscriber


def describe(broker: KafkaBroker, service: str, consumes: Sequence[Consumes], emits: Sequence[type[Event]]) -> None:
    """Declares the subscriptions and publications on a broker that is never started, for the AsyncAPI document."""

    async def nothing(records: Any) -> None:
        raise AssertionError("this broker only describes")

    for each in consumes:
        subscribe(broker, service, each, nothing, None)
    for topic in sorted({event.topic_of(service) for event in emits}):
        contracts = tuple(event for event in emits if event.topic_of(service) == topic)
        broker.publisher(topic, schema=Union.__getitem__(contracts), title=f"{service}.{topic}")
