"""The loop between FastStream and the applier, with neither of them."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from faststream.kafka import KafkaBroker

from servicekit.core.clock import FakeClock
from servicekit.core.health import Progress
from servicekit.kafka.batches import Batch
from servicekit.kafka.cloudevents import RawRecord
from servicekit.kafka.consuming import BATCHES_AHEAD, Consumes, Reader
from servicekit.kafka.subscription import BATCH, POLL_MS, subscribe
from servicekit.kit import Kit

BLANK: dict[str, Any] = {"topic": "x", "partition": 0, "key": None, "value": None, "headers": ()}


class _NoClient:
    consumer = None


def a_kit() -> Kit:
    unused: Any = None
    return Kit("test", unused, FakeClock(), unused, unused, unused)


async def test_a_batch_that_arrives_while_the_reader_is_idle_is_not_lost() -> None:
    """The idle hook takes a while; a batch was once taken from the queue meanwhile and dropped."""
    stopping, idle, applied = asyncio.Event(), asyncio.Event(), []

    async def slow_idle(kit: Any) -> None:
        idle.set()
        await asyncio.sleep(0.05)

    reader = Reader(a_kit(), Consumes(topics=("x",), idle=slow_idle), Progress(FakeClock(), 60))
    reader._subscriber = _NoClient()

    class Applies:
        next: dict[Any, int] = {}  # noqa: RUF012 - as the applier has it

        async def apply(self, batch: Batch, prepared: Any) -> None:
            applied.append(await prepared)
            stopping.set()

    applier: Any = Applies()
    reader._applier = applier
    running = asyncio.create_task(reader.run(stopping))
    await idle.wait()
    batch = Batch([RawRecord("x", 0, 0, None, None, ())])
    await reader._queue.put((applier, batch, asyncio.ensure_future(asyncio.sleep(0, batch))))
    await asyncio.wait_for(running, 60)
    assert applied == [batch]


async def test_an_idle_reader_never_sleeps_while_something_may_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """FastStream does, for as long as it has polled in vain."""

    async def slept(seconds: float) -> None:
        raise AssertionError(f"asleep for {seconds} s")

    class Quiet:
        async def getmany(self, **options: Any) -> dict[Any, Any]:
            assert options == {"timeout_ms": POLL_MS, "max_records": BATCH}
            return {}

    monkeypatch.setattr("anyio.sleep", slept)
    subscriber = subscribe(KafkaBroker(), "test", Consumes(topics=("x",)), None, None)
    assert await subscriber.get_msg(Quiet()) == ()


async def test_no_more_is_taken_than_may_be_under_way() -> None:
    """L12: while nothing is applied, fetching waits, however much there is to read."""
    reader = Reader(a_kit(), Consumes(topics=("x",)), Progress(FakeClock(), 60))
    reader._fetched[("x", 0)] = 0
    reader._subscriber, reader._looked_at = _NoClient(), float("inf")
    records = (SimpleNamespace(**BLANK, offset=offset) for offset in range(10 * BATCHES_AHEAD))
    taken = [asyncio.create_task(reader._take([record])) for record in records]
    await asyncio.sleep(0.05)
    ended = [take.done() for take in taken]
    for take in taken:
        take.cancel()
    assert ended == [True] * BATCHES_AHEAD + [False] * 9 * BATCHES_AHEAD
