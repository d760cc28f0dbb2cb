"""A baseline of the gateway: FastStream as its tutorial has it, one record, one handler call, one send that is waited for."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from faststream.kafka import KafkaBroker, KafkaMessage
from faststream.security import SASLScram512


async def pass_through(login: dict[str, Any], source: str, target: str, expected: int) -> float:
    """Records a second, from the beginning of `source`, with the same keys, values, headers and partitions."""
    security = SASLScram512(username=login["sasl_plain_username"], password=login["sasl_plain_password"], use_ssl=False)
    broker = KafkaBroker(
        login["bootstrap_servers"], security=security, acks="all", enable_idempotence=True, logger=None
    )
    copied, done = 0, asyncio.Event()
    times: list[float] = []

    @broker.subscriber(source, group_id=f"{target}.copy", auto_offset_reset="earliest")
    async def copy(body: Any, message: KafkaMessage) -> None:
        nonlocal copied
        record = message.raw_message
        assert not isinstance(record, tuple)
        times.append(time.monotonic())
        headers = {name: value.decode() for name, value in record.headers}
        await broker.publish(record.value, target, key=record.key, headers=headers, partition=record.partition)
        copied += 1
        if copied == expected:
            done.set()

    async with broker:
        await broker.start()
        async with asyncio.timeout(300):
            await done.wait()
    return expected / (time.monotonic() - times[0])
