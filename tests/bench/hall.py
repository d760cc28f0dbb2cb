"""Where the benchmarks run: one stack, whose consumers are started and stopped by them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition

from deploy.local.stack import Stack
from event_contracts.topics import Topic
from tests.support.end_states import number, rows
from tests.support.traffic import RawOrder, produce_orders

ORDERS = "order.events"
PARTITIONS = 6
PATIENCE = 300.0
# A disclosure that is not marked as sent is sent again after a restart.
UNSENT = {"logistics-gateway": "SELECT count(*) FROM disclosures WHERE state = 'recorded'"}
TAKEN = "SELECT coalesce(sum(next), 0) FROM kit.positions WHERE topic = $1"
Count = Callable[[], Awaitable[int]]


def login_of(stack: Stack) -> dict[str, Any]:
    """The administrator's, as aiokafka takes it: only the baselines use it."""
    return {
        "bootstrap_servers": stack.kafka.bootstrap,
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": stack.kafka.admin_user,
        "sasl_plain_password": stack.kafka.admin_password,
    }


async def make_topic(stack: Stack, name: str) -> None:
    topic = Topic(name, stack.kafka.admin_user, "order_id", PARTITIONS, 1, ())
    await asyncio.to_thread(stack.kafka.create_topics, [topic])


async def ends(stack: Stack, topic: str) -> dict[int, int]:
    """The next offset of each partition."""
    consumer = AIOKafkaConsumer(topic, **login_of(stack))
    await consumer.start()
    try:
        numbers = sorted(consumer.partitions_for_topic(topic) or ())
        assert numbers, f"no partitions of {topic}"
        found = await consumer.end_offsets([TopicPartition(topic, number) for number in numbers])
    finally:
        await consumer.stop()
    return {place.partition: offset for place, offset in found.items()}


async def values_since(stack: Stack, topic: str, begin: dict[int, int]) -> list[bytes]:
    """The values of a topic's records from these offsets on."""
    end = await ends(stack, topic)
    expected = sum(end.values()) - sum(begin.values())
    if not expected:
        return []
    consumer = AIOKafkaConsumer(**login_of(stack))
    await consumer.start()
    values: list[bytes] = []
    try:
        consumer.assign([TopicPartition(topic, number) for number in end])
        for number, offset in begin.items():
            consumer.seek(TopicPartition(topic, number), offset)
        async with asyncio.timeout(PATIENCE):
            while len(values) < expected:
                for records in (await consumer.getmany(timeout_ms=500)).values():
                    values += [record.value for record in records]
    finally:
        await consumer.stop()
    return values


class Watch:
    """Counts a topic's records, or several topics', without fetching them."""

    def __init__(self, stack: Stack, *topics: str) -> None:
        self._stack, self._topics = stack, topics
        self._client = AIOKafkaConsumer(**login_of(stack))

    async def __aenter__(self) -> Self:
        self._places = [
            TopicPartition(topic, number) for topic in self._topics for number in await ends(self._stack, topic)
        ]
        await self._client.start()
        self._client.assign(self._places)
        self._client.pause(*self._places)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.stop()

    async def count(self) -> int:
        return sum((await self._client.end_offsets(self._places)).values())


async def produce(stack: Stack, orders: Sequence[RawOrder], topic: str = ORDERS) -> None:
    login = None if topic == ORDERS else (stack.kafka.admin_user, stack.kafka.admin_password)
    await asyncio.to_thread(produce_orders, stack, orders, topic, login)


class Consumer:
    """A fresh process of a system that only consumes. `count` says how far it is, for which the process need do nothing."""

    def __init__(self, stack: Stack, system: str, count: Count) -> None:
        self._stack, self._system, self._count = stack, system, count

    async def __aenter__(self) -> Self:
        self._process = self._stack._add(self._stack.specs[self._system], "consume")
        try:
            await asyncio.to_thread(self._process.start)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._process.close)
        self._stack.processes.remove(self._process)

    async def speed(self, orders: Sequence[RawOrder]) -> float:
        """Events a second, from the time at which all of them are there, and the process connected as the baselines are, until
        all are through. Returns when it has nothing left to do."""
        before = await self._count()
        await asyncio.to_thread(self._process.pause)
        try:
            await produce(self._stack, orders)
        finally:
            started = time.monotonic()
            await asyncio.to_thread(self._process.resume)
        async with asyncio.timeout(PATIENCE):
            while await self._count() < before + len(orders):
                await asyncio.sleep(0.01)
        took = time.monotonic() - started
        await quiet(self._stack, self._system)
        return len(orders) / took


@asynccontextmanager
async def positions(stack: Stack, system: str) -> AsyncIterator[Count]:
    """How many orders' events a system has taken, by its database."""
    connection = await asyncpg.connect(stack.owner_dsn(system))

    async def count() -> int:
        return int(await connection.fetchval(TAKEN, ORDERS))

    try:
        yield count
    finally:
        await connection.close()


@asynccontextmanager
async def without(stack: Stack, systems: Sequence[str]) -> AsyncIterator[None]:
    """The stack's own processes of these systems are stopped once they have caught up, one after the other."""
    for system in systems:
        await quiet(stack, system)
        await asyncio.to_thread(stack.process(system).stop)
    try:
        yield
    finally:
        for system in systems:
            await asyncio.to_thread(stack.process(system).start)


async def quiet(stack: Stack, system: str) -> None:
    """Until the system has read all its topics, and has nothing left to send."""
    async with asyncio.timeout(PATIENCE):
        while await _behind(stack, system) or await number(stack, system, UNSENT.get(system, "SELECT 0")):
            await asyncio.sleep(0.3)


async def _behind(stack: Stack, system: str) -> int:
    """Records that a reader of the system has not taken."""
    readers = await rows(
        stack, system, "SELECT topic, sum(next)::bigint AS taken FROM kit.positions GROUP BY topic, reader"
    )
    end = {topic: sum((await ends(stack, topic)).values()) for topic in {row["topic"] for row in readers}}
    return sum(end[row["topic"]] - int(row["taken"]) for row in readers)
