"""Where the benchmarks run: one stack, whose consumers are started and stopped by them."""

from __future__ import annotations

import asyncio
import re
import time
import urllib.request
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from deploy.local.stack import Stack
from event_contracts.topics import Topic
from tests.support.end_states import number
from tests.support.traffic import RawOrder, produce_orders

ORDERS = "order.events"
PARTITIONS = 6
PATIENCE = 300.0
# What changes as long as a system has work: a disclosure that is recorded is sent again after a restart.
UNDER_WAY = {
    "logistics-gateway": "SELECT count(*) FROM disclosures WHERE state = 'recorded'",
    "privacy": "SELECT count(*) FROM inventory",
}
LOOKS = 4


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


async def produce(stack: Stack, orders: Sequence[RawOrder]) -> None:
    await asyncio.to_thread(produce_orders, stack, orders)


async def consume_speed(stack: Stack, system: str, expected: int) -> float:
    """Events a second of a fresh process of the system: from its first batch on, as the baselines, which are connected when
    their time begins, until it has taken `expected`."""
    process = stack._add(stack.specs[system], "consume")
    await asyncio.to_thread(process.launch)
    try:
        async with asyncio.timeout(PATIENCE):
            while not (first := _consumed(process.url)):
                await asyncio.sleep(0.005)
            started = time.monotonic()
            while _consumed(process.url) < expected:
                await asyncio.sleep(0.05)  # each look costs the process milliseconds
        took = time.monotonic() - started
        assert first < expected * 0.8, "the process was through before it could be watched: take more records"
        await quiet(stack, system)
        return (expected - first) / took
    finally:
        await asyncio.to_thread(process.close)
        stack.processes.remove(process)


async def quiet(stack: Stack, system: str) -> None:
    """Until the system has nothing left to do that would count for what comes next."""
    seen: list[int] = []
    async with asyncio.timeout(PATIENCE):
        while len(seen) < LOOKS or len(set(seen[-LOOKS:])) > 1:
            seen.append(await number(stack, system, UNDER_WAY[system]))
            await asyncio.sleep(0.3)


def _consumed(url: str) -> int:
    """Also 0 while the process does not answer yet."""
    try:
        with urllib.request.urlopen(f"{url}/metrics") as answer:
            text = answer.read().decode()
    except OSError:
        return 0
    found = re.search(rf'^consumed_total{{topic="{re.escape(ORDERS)}"}} (\S+)$', text, re.MULTILINE)
    return int(float(found.group(1))) if found else 0
