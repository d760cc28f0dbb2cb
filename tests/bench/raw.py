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


async def pass_through(login: dict[str, Any], source: str, target: str, expected: int) -> float:
    """Records a second, from the beginning of `source`, with the same keys, values, headers and partitions."""
    async with AIOKafkaProducer(**PRODUCER, **login) as producer, AIOKafkaConsumer(**CONSUMER, **login) as consumer:
        numbers = await producer.partitions_for(source)
        consumer.assign([TopicPartition(source, number) for number in numbers])
        started, copied = time.monotonic(), 0
        while copied < expected:
            futures = []
            for place, records in (await consumer.getmany(timeout_ms=500, max_records=BATCH)).items():
                batch = producer.create_batch()
                for record in records:
                    content = {"key": record.key, "value": record.value, "headers": list(record.headers)}
                    if batch.append(timestamp=None, **content) is None:
                        futures.append(await producer.send_batch(batch, target, partition=place.partition))
                        batch = producer.create_batch()
                        batch.append(timestamp=None, **content)
                copied += len(records)
                futures.append(await producer.send_batch(batch, target, partition=place.partition))
            await asyncio.gather(*futures)
        return copied / (time.monotonic() - started)
