"""Kafka clients with every default that loses data set by hand (docs/decisions.md#events-outbox-and-kafka).

Together with `consuming.py` and `subscription.py` the only module that imports faststream and aiokafka.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from struct import unpack_from
from typing import Any, ClassVar
from uuid import UUID

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    KafkaError,
    TopicAuthorizationFailedError,
)
from faststream.kafka import KafkaBroker
from faststream.security import SASLScram512
from msgspec import Struct

from event_contracts.topics import TOPICS, load_topics
from servicekit.core.errors import KafkaRefuses, PartitionsDiffer
from servicekit.core.logs import code, get_log
from servicekit.core.metrics import PRODUCER_REBUILDS
from servicekit.core.settings import Settings
from servicekit.kafka.cloudevents import RawRecord
from servicekit.kafka.record_hash import hash_key, is_same

MAX_RECORD_BYTES = 1024 * 1024
# A transaction and a request cost much the same for one record as for a hundred: after fewer than these, so long others may
# gather before the next are looked for. A single record never waits.
FEW = 50
GATHER_SECONDS = 0.01
SEND_TIMEOUT = 12.0
METADATA_SECONDS = 30
_MURMUR, _WORD = 0x5BD1E995, 0xFFFFFFFF


log = get_log("kafka")


class OutRecord(Struct, frozen=True):
    """A record to produce. Its repr shows no content."""

    topic: str
    key: bytes
    value: bytes
    headers: Sequence[tuple[str, bytes]]

    def __repr__(self) -> str:
        return f"<record for {self.topic}>"


def login(settings: Settings) -> dict[str, Any]:
    settings.require("kafka_bootstrap", "kafka_user", "kafka_password_file")
    return {
        "bootstrap_servers": settings.kafka_bootstrap,
        "client_id": settings.kafka_user,
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": settings.kafka_user,
        "sasl_plain_password": settings.read("kafka_password_file").decode(),
    }


def make_broker(settings: Settings) -> KafkaBroker:
    """The FastStream broker of one consuming role: it only consumes, creates no topics and logs no payloads."""
    settings.require("kafka_bootstrap", "kafka_user", "kafka_password_file")
    password = settings.read("kafka_password_file").decode()
    return KafkaBroker(
        settings.kafka_bootstrap,
        security=SASLScram512(username=settings.kafka_user, password=password, use_ssl=False),
        client_id=settings.kafka_user,
        consumer_only=True,
        allow_auto_create_topics=False,
        apply_types=False,
        logger=None,
        graceful_timeout=None,
        retry_backoff_ms=200,
        metadata_max_age_ms=METADATA_SECONDS * 1000,
    )


class Producer:
    """An idempotent producer that sends whole batches: one produce request per broker for all partitions together.

    After any failure the client is thrown away, because it can be wedged (aiokafka#1017); the next `send` builds a new one.
    """

    ERRORS: ClassVar[tuple[type[Exception], ...]] = (KafkaError, TimeoutError, OSError, PartitionsDiffer, KafkaRefuses)

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: Any = None
        self._partitions = declared_partitions(settings)
        self._starting = asyncio.Lock()

    async def send(self, records: Sequence[OutRecord]) -> None:
        """Returns when all records are acknowledged by all replicas in sync.

        Raises `PartitionsDiffer` before anything is sent, `KafkaRefuses` for a topic that is not this user's to write, or
        another one of `ERRORS`; then some records may have been written.
        """
        if not records:
            return
        try:
            async with asyncio.timeout(SEND_TIMEOUT):
                futures = await self._submit(records)
                await asyncio.gather(*futures)
        except PartitionsDiffer:
            raise  # nothing was given to the client
        except BaseException as error:
            await asyncio.shield(self._discard())
            refusal = refusal_of(error, self._settings, {record.topic for record in records}, writes=True)
            if refusal is not None:
                raise refusal from None
            raise

    async def _submit(self, records: Sequence[OutRecord]) -> list[Any]:
        client = await self._started()
        partitions = await self._partitions_of(client, {record.topic for record in records})
        by_partition: dict[tuple[str, int], list[OutRecord]] = {}
        for record in records:
            partition = key_hash(record.key) % partitions[record.topic]
            by_partition.setdefault((record.topic, partition), []).append(record)
        futures = []
        for (topic, partition), group in by_partition.items():
            batch = client.create_batch()
            for record in group:
                appended = batch.append(
                    key=record.key, value=record.value, timestamp=None, headers=list(record.headers)
                )
                if appended is None:
                    futures.append(await client.send_batch(batch, topic, partition=partition))
                    batch = client.create_batch()
                    if (
                        batch.append(key=record.key, value=record.value, timestamp=None, headers=list(record.headers))
                        is None
                    ):
                        raise ValueError("a record is larger than a batch may be")
            futures.append(await client.send_batch(batch, topic, partition=partition))
        return futures

    async def check(self, topics: Iterable[str]) -> None:
        """Raises `PartitionsDiffer`, which names all that have another number of partitions than declared, or one of `ERRORS`."""
        topics = set(topics)
        try:
            async with asyncio.timeout(SEND_TIMEOUT):
                await self._partitions_of(await self._started(), topics)
        except KafkaError as error:
            refusal = refusal_of(error, self._settings, topics, writes=True)
            if refusal is not None:
                raise refusal from None
            raise

    async def _partitions_of(self, client: Any, topics: Iterable[str]) -> dict[str, int]:
        """By topic. Asks the client each time: it learns of a change within METADATA_SECONDS."""
        found: dict[str, int] = {}
        for topic in topics:
            found[topic] = len(await client.partitions_for(topic))
            # A topic that no list names keeps the number that this producer saw first.
            self._partitions.setdefault(topic, found[topic])
        differing = [topic for topic, number in found.items() if self._partitions[topic] != number]
        for topic in differing:
            log.error("partitions_differ", topic=code(topic), declared=self._partitions[topic], found=found[topic])
        if differing:
            raise PartitionsDiffer(frozenset(differing))
        return found

    async def _started(self) -> Any:
        async with self._starting:
            if self._client is None:
                client = AIOKafkaProducer(
                    **login(self._settings),
                    acks="all",
                    enable_idempotence=True,
                    max_batch_size=MAX_RECORD_BYTES - 1024,
                    max_request_size=8 * MAX_RECORD_BYTES,
                    linger_ms=0,
                    request_timeout_ms=10_000,
                    retry_backoff_ms=100,
                    metadata_max_age_ms=METADATA_SECONDS * 1000,
                )
                try:
                    await client.start()
                except BaseException:
                    await client.stop()
                    raise
                self._client = client
            return self._client

    async def _discard(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            PRODUCER_REBUILDS.inc()
            await _end(client)

    async def stop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await _end(client)


# Kafka names the topic, the group, or nothing: a user who may write nowhere may not even begin to write.
_REFUSALS = (TopicAuthorizationFailedError, GroupAuthorizationFailedError, ClusterAuthorizationFailedError)


def refusal_of(error: BaseException, settings: Settings, topics: Iterable[str], *, writes: bool) -> KafkaRefuses | None:
    """What a refusal of this process's user means, and a line of the log about each topic; None for any other error.

    `topics` are those that it wanted to write to or read.
    """
    if not isinstance(error, _REFUSALS):
        return None
    named = error.args[0] if isinstance(error, TopicAuthorizationFailedError) and error.args else topics
    refused = [named] if isinstance(named, str) else sorted(named)
    user = settings.kafka_user
    for topic in refused:
        lacks = code(f"{'owner' if writes else 'consumers'}:{user}")
        log.error("kafka_refuses", user=code(user), topic=code(topic), entry_lacks=lacks)
    return KafkaRefuses(user, refused, writes=writes)


def declared_partitions(settings: Settings) -> dict[str, int]:
    """The number of partitions of each topic of our list, and of those that TOPICS_FILES names."""
    topics = (*TOPICS, *(topic for file in settings.topics_files for topic in load_topics(file)))
    return {topic.name: topic.partitions for topic in topics}


def key_hash(key: bytes) -> int:
    """Of a record key, for its partition: murmur2 as Kafka's own clients have it, in half the time of aiokafka's."""
    words = len(key) >> 2
    result = 0x9747B28C ^ len(key)
    for word in unpack_from(f"<{words}I", key):
        mixed = word * _MURMUR & _WORD
        result = result * _MURMUR & _WORD ^ ((mixed ^ mixed >> 24) * _MURMUR & _WORD)
    if rest := key[words << 2 :]:
        result = (result ^ int.from_bytes(rest, "little")) * _MURMUR & _WORD
    result = (result ^ result >> 13) * _MURMUR & _WORD
    return (result ^ result >> 15) & 0x7FFFFFFF


async def _end(client: Any) -> None:
    """Closes the client and drops what it has yet to send.

    Its own `stop` waits for that while the broker is away; given up half-way it is still sent: late, behind newer records.
    """
    sender = client._sender.sender_task  # noqa: SLF001 - there is no public way
    sender.cancel()
    client._message_accumulator.fail_all(KafkaError())  # noqa: SLF001
    try:
        async with asyncio.timeout(2):
            await client.client.close()
            await asyncio.wait([sender])
            await client.stop()
    except (TimeoutError, KafkaError, OSError):
        return


async def read_again(
    settings: Settings, topic: str, partition: int, offset: int, known_as: UUID | None = None
) -> RawRecord | None:
    """One record from its place. None when the topic does not keep it any more, or has another one there than that of the
    hash `known_as`: it was set back or made anew. Raises one of `Producer.ERRORS`.
    """
    consumer = AIOKafkaConsumer(
        enable_auto_commit=False, auto_offset_reset="earliest", isolation_level="read_committed", **login(settings)
    )
    place = TopicPartition(topic, partition)
    await consumer.start()
    try:
        consumer.assign([place])
        consumer.seek(place, offset)
        fetched = await consumer.getmany(place, timeout_ms=5_000, max_records=1)
        for record in fetched.get(place, ()):
            raw = to_raw(record)
            if raw.offset == offset and (known_as is None or is_same(known_as, raw, hash_key(settings))):
                return raw
        return None
    finally:
        await consumer.stop()


async def ends_of(settings: Settings, places: Sequence[tuple[str, int]]) -> dict[tuple[str, int], int]:
    """Where these partitions end: the offset of the next record. Raises one of `Producer.ERRORS`."""
    if not places:
        return {}
    consumer = AIOKafkaConsumer(enable_auto_commit=False, **login(settings))
    await consumer.start()
    try:
        async with asyncio.timeout(SEND_TIMEOUT):
            found = await consumer.end_offsets([TopicPartition(*place) for place in places])
        return {(place.topic, place.partition): end for place, end in found.items()}
    finally:
        await consumer.stop()


def to_raw(record: ConsumerRecord[Any, Any]) -> RawRecord:
    """The record without its client's type."""
    return RawRecord(record.topic, record.partition, record.offset, record.key, record.value, tuple(record.headers))
