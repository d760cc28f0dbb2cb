"""Kills processes while they have work, and says how much there was (docs/proofs.md#2-kill-under-load)."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec

from deploy.local.services import ServiceProcess
from deploy.local.stack import Stack
from tests.support.end_states import WITH_KIT, WITH_OUTBOX, rows, under_way, unpublished
from tests.support.shop_floor import Floor, until

WORK_TIMEOUT = 240.0
FAULT_TIMEOUT = 300.0
SERVERS = ("kafka", "postgres")


@dataclass(frozen=True)
class Kill:
    """`work` is what the killed process itself had before it; `orders` how many were placed and not delivered."""

    target: str
    kind: str
    work: int
    orders: int


@dataclass
class Killer:
    """Kills and brings back. A process that ends by itself is started again as well, and noted in `ended`."""

    floor: Floor
    kills: list[Kill] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    _watched: set[str] = field(default_factory=set)

    async def kill_at_work(self, process: ServiceProcess) -> None:
        """SIGSTOP, look, and SIGKILL only if there is work: what was counted is what the process had when it died."""
        await self._end_at_work(process, process.kill)
        await self._bring_back(process)

    async def stop_each_at_work(self) -> dict[str, int | None]:
        """The same with SIGTERM for one process of a system after the other, the systems at once. Exit codes by name."""
        codes: dict[str, int | None] = {}
        processes = list(self.floor.stack.processes)

        async def stop_those_of(system: str) -> None:
            for process in processes:
                if process.system == system:
                    await self._end_at_work(process, process.stop)
                    codes[process.name] = process.exit_code
                    await self._bring_back(process)

        async with asyncio.TaskGroup() as tasks:
            for system in dict.fromkeys(process.system for process in processes):
                tasks.create_task(stop_those_of(system))
        return codes

    async def _end_at_work(self, process: ServiceProcess, end: Callable[[], None]) -> None:
        kind, look = self._work_of(process)
        deadline = time.monotonic() + WORK_TIMEOUT
        while True:
            process.pause()
            try:
                orders = await under_way(self.floor.stack)
                work = await look() if orders else 0
                if work:
                    self._watched.discard(process.name)
                    await asyncio.to_thread(end)
                    self.kills.append(Kill(process.name, kind, work, orders))
                    return
            finally:
                if process.pid is not None:
                    process.resume()
            assert time.monotonic() < deadline, (
                f"{process.name} had no work for {WORK_TIMEOUT:.0f} s: the load is too low"
            )
            await asyncio.sleep(random.uniform(0.01, 0.05))

    async def _bring_back(self, process: ServiceProcess) -> None:
        await asyncio.to_thread(process.launch)
        self._watched.add(process.name)
        await asyncio.to_thread(process.wait_healthy)

    async def kill_server(self, name: str) -> None:
        """Kafka or PostgreSQL, which cannot be asked while they are stopped: looked at right before."""
        stack = self.floor.stack
        server = stack.kafka if name == "kafka" else stack.postgres
        deadline = time.monotonic() + WORK_TIMEOUT
        while not ((orders := await under_way(stack)) and (work := await work_in_all(stack))):
            assert time.monotonic() < deadline, f"nothing was under way for {WORK_TIMEOUT:.0f} s: the load is too low"
        await asyncio.to_thread(server.kill)
        self.kills.append(Kill(name, "outbox rows and unread records", work, orders))
        await asyncio.to_thread(server.start)

    async def die_at(self, process: ServiceProcess, point: str) -> None:
        """The process starts again with the fault point armed, dies there by its own hand, and is brought back."""
        self._watched.discard(process.name)
        await asyncio.to_thread(process.kill)
        await die_at_each(process, [point])
        await asyncio.to_thread(process.launch)
        self._watched.add(process.name)

    async def watch(self) -> None:
        """Starts again what ended by itself, as a supervisor does; to be cancelled."""
        processes = self.floor.stack.processes
        self._watched |= {process.name for process in processes}
        while True:
            for process in processes:
                if process.name in self._watched and process.pid is None:
                    last_words = process.log_tail().rpartition("\n")[2]
                    self.ended.append(f"{process.name} with {process.exit_code}: {last_words}")
                    await asyncio.to_thread(process.launch)
            await asyncio.sleep(0.2)

    def _work_of(self, process: ServiceProcess) -> tuple[str, Callable[[], Awaitable[int]]]:
        stack, storefront, system = self.floor.stack, self.floor.storefront, process.system

        async def requests() -> int:
            return storefront.under_way.total() if system == "vault" else storefront.under_way[system]

        if process.role == "relay" and system in WITH_OUTBOX:
            return "outbox rows", lambda: unpublished(stack, system)
        if process.role == "consume":
            return "unread records", lambda: behind(stack, system)
        if process.role == "api" and system in ("account", "order", "vault"):
            return "requests", requests
        return "orders", lambda: under_way(stack)

    def report(self) -> list[str]:
        """A line for each target: how often it was killed, how often at work, and how much of it."""
        lines = []
        for target in dict.fromkeys(kill.target for kill in self.kills):
            mine = [kill for kill in self.kills if kill.target == target]
            at_work = sum(kill.work > 0 for kill in mine)
            work, orders = "+".join(str(kill.work) for kill in mine), "+".join(str(kill.orders) for kill in mine)
            lines.append(
                f"{target:<26} {len(mine):>3} times, {at_work:>3} at work: {work} {mine[0].kind}; {orders} orders"
            )
        return lines


async def die_at_each(process: ServiceProcess, points: Sequence[str], hit: int = 1, **settings: str) -> None:
    """One run after the other, each with one point armed for this hit of it; afterwards it is down. Raises `AssertionError`."""

    async def died() -> bool:
        return process.pid is None

    for point in points:
        await asyncio.to_thread(process.launch, {"FAULTPOINTS": f"{point}=kill@{hit}", **settings})
        await until(died, f"{process.name} reaches {point}", FAULT_TIMEOUT, pause=0.05)
        ended = f"{process.name} ended with {process.exit_code} before {point}: {process.log_tail()}"
        assert process.exit_code == -signal.SIGKILL, ended


async def behind(stack: Stack, system: str) -> int:
    """Records in the topics that the system reads which no transaction of its own has taken in."""
    positions = {
        TopicPartition(row["topic"], row["partition"]): row["next"]
        for row in await rows(stack, system, "SELECT topic, partition, next FROM kit.positions")
    }
    if not positions:
        return 0
    ends = await asyncio.to_thread(_ends, stack, list(positions))
    return sum(max(0, ends[place] - following) for place, following in positions.items())


def _ends(stack: Stack, places: list[TopicPartition]) -> dict[TopicPartition, int]:
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call] # its stubs say nothing of it
    deadline = time.monotonic() + WORK_TIMEOUT
    while True:
        asked = stack.kafka.admin.list_offsets(dict.fromkeys(places, latest), request_timeout=60)
        try:
            return {place: future.result(60).offset for place, future in asked.items()}
        except KafkaException:
            # A broker that has just come back does not know yet who leads, and the client only by asking anew.
            assert time.monotonic() < deadline, "Kafka does not say where its topics end"
            with suppress(KafkaException):
                stack.kafka.admin.list_topics(timeout=10)
            time.sleep(0.1)


async def work_in_all(stack: Stack) -> int:
    """Unpublished rows and unread records."""
    return sum([await unpublished(stack, system) for system in WITH_OUTBOX]) + await behind_in_all(stack)


async def behind_in_all(stack: Stack) -> int:
    return sum([await behind(stack, system) for system in WITH_KIT])
