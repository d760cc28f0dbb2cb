"""The baseline of the gateway: raw aiokafka that copies records from one topic to another, batch by batch."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

BATCH = 2_000  # as the product's own readers
# What the kit's own producer and consumer use as well.
PRODUCER = {"acks": "all", "enable_idempotence": True, "max_batch_size": 1_000_000}
CONSUMER = {"enable_auto_commit": False, "auto_offset_reset": "earliest"}


async def pass_through(login: dict[str, Any], source: str, target: str, begin: dict[int, int], expected: int) -> float:
    """Records a second, from the offsets `begin` by partition, with the same keys, values, headers and partitions."""
    consumer = AIOKafkaConsumer(**CONSUMER, **login)
    await consumer.start()
    places = {TopicPartition(source, number): offset for number, offset in begin.items()}
    consumer.assign(list(places))
    for place, offset in places.items():
        consumer.seek(place, offset)
    async with AIOKafkaProducer(**PRODUCER, **login) as producer:
        started, copied = time.monotonic(), 0
        while copied < expected:
            futures = []
            for place, records in (await consumer.getmany(timeout_ms=500, max_records=BATCH)).items():
                batch = producer.create_batch()
                for record in records:
                    batch.append(key=record.key, value=record.value, timestamp=None, headers=list(record.headers))
                copied += len(records)
                futures.append(await producer.send_batch(batch, target, partition=place.partition))
            await asyncio.gather(*futures)
        took = time.monotonic() - started
    await consumer.stop()
    return copied / took
