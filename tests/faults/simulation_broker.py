"""A broker inside the test's process: a log per topic and partition, a producer that loses requests and answers, and readers.

Records go through the kit's own `Applier` and positions; only Kafka's client and FastStream are not there.
"""

from __future__ import annotations

import random
import zlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from msgspec import structs

from event_contracts.topics import TOPICS
from servicekit.db.inbox import Place
from servicekit.kafka.batches import AWAY, UNHELPED, Applier, Batch, Consumes
from servicekit.kafka.client import OutRecord, Producer
from servicekit.kafka.cloudevents import RawRecord
from servicekit.kafka.quarantine import waiting
from servicekit.kit import Kit
from tests.support.positions import load_positions

# Two are enough for records to overtake each other; more only make the lists of operations longer.
MOST_PARTITIONS = 2
Logs = dict[str, list[list[RawRecord]]]
PARTITIONS = {topic.name: min(topic.partitions, MOST_PARTITIONS) for topic in TOPICS}


class Lost(OSError):
    """A produce whose request or answer was lost, as the kit's producer would say it."""


class Broker:
    """The logs. `losses` says of the next produces what is lost: `request`, `reply`, or `half` of the records and the reply."""

    def __init__(self, repeats: random.Random | None = None) -> None:
        """With `repeats` up to four earlier records of its partition come again with each."""
        self._logs: Logs = {name: [[] for _ in range(count)] for name, count in PARTITIONS.items()}
        self._repeats = repeats
        self.losses: deque[str] = deque()

    @property
    def logs(self) -> Logs:
        """All records, by topic and partition."""
        return self._logs

    async def write(self, records: Sequence[OutRecord]) -> None:
        """What a service produces."""
        for record in records:
            self.append(record.topic, record.key, record.value, record.headers)

    async def close(self) -> None:
        return

    def append(self, topic: str, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes | None]]) -> None:
        partition = zlib.crc32(key) % PARTITIONS[topic]
        log = self._logs[topic][partition]
        log.append(RawRecord(topic, partition, len(log), key, value, tuple(headers)))
        if self._repeats is not None:
            for again in self._repeats.choices(log, k=self._repeats.randint(0, 4)):
                log.append(structs.replace(again, offset=len(log)))

    def repeat(self, topic: str, number: int) -> None:
        """A record comes a second time, behind all that came since: what a producer does that starts anew."""
        records = [record for log in self.logs[topic] for record in log]
        if records:
            again = records[number % len(records)]
            self.append(topic, again.key or b"", again.value or b"", again.headers)

    def places(self, topics: Sequence[str]) -> list[Place]:
        return [(topic, partition) for topic in topics for partition in range(PARTITIONS[topic])]

    def after(self, place: Place, offset: int, limit: int) -> list[RawRecord]:
        topic, partition = place
        return self.logs[topic][partition][offset : offset + limit]

    def end(self, place: Place) -> int:
        topic, partition = place
        return len(self.logs[topic][partition])

    @property
    def size(self) -> int:
        return sum(len(log) for logs in self.logs.values() for log in logs)


class SimulatedProducer(Producer):
    """The kit's producer with the broker in the place of its client."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def send(self, records: Sequence[OutRecord]) -> None:
        if not records:
            return
        lost = self._broker.losses.popleft() if self._broker.losses else ""
        if lost == "request":
            raise Lost
        await self._broker.write(records[: len(records) // 2] if lost == "half" else records)
        if lost:
            raise Lost

    async def stop(self) -> None:
        return


class Reader:
    """One subscription of one process, all partitions of its topics: joins, reads in any order of partitions, and rejoins."""

    def __init__(self, kit: Kit, consumes: Consumes, broker: Broker) -> None:
        self._kit, self._broker = kit, broker
        self.consumes = replace(consumes, deliver=self._hold_or(consumes.deliver)) if consumes.deliver else consumes
        self.applier: Applier | None = None
        self.undelivered: list[Any] = []
        self.stalls_before_delivery = False

    @property
    def places(self) -> list[Place]:
        return self._broker.places(self.consumes.topics)

    def _hold_or(self, deliver: Callable[[Kit, Any], Awaitable[None]]) -> Callable[[Kit, Any], Awaitable[None]]:
        async def delivering(kit: Kit, result: Any) -> None:
            if self.stalls_before_delivery:
                self.undelivered.append(result)
            else:
                await deliver(kit, result)

        self._deliver = deliver
        return delivering

    async def join(self) -> Applier:
        """What `servicekit.kafka.consuming.Reader` does when partitions are assigned."""
        applier = Applier(self._kit, self.consumes)
        positions = await load_positions(self._kit.db, self.consumes.reader, self.places)
        applier.waiting = await waiting(self._kit.db, self.consumes.reader)
        if self.consumes.assigned is not None:
            async with self._kit.work():
                await self.consumes.assigned(self._kit, self.places)
        applier.next.update(positions)
        self.applier = applier
        return applier

    def fetch(self, applier: Applier, limit: int, shuffle: int) -> list[RawRecord]:
        """At most `limit` records, in order within each partition; `shuffle` says which partition comes first."""
        places = sorted(applier.next)
        start = shuffle % max(1, len(places))
        found: list[RawRecord] = []
        for place in places[start:] + places[:start]:
            found += self._broker.after(place, applier.next[place], limit - len(found))
        return found

    async def step(self, limit: int = 500, shuffle: int = 0) -> int:
        """Takes one batch to its end, or idles. Returns how many records it had. Whatever is away is tried again next time."""
        if not self._kit.gate.is_open:
            return 0
        try:
            applier = self.applier or await self.join()
            records = self.fetch(applier, limit, shuffle)
            async with self._kit.work():
                if records:
                    batch = Batch(records)
                    await applier.apply(batch, applier.prepare(batch))
                elif self.consumes.idle is not None:
                    await self.consumes.idle(self._kit)
        except AWAY:
            return 0
        except UNHELPED:
            self.applier = None
            return 0
        return len(records)

    async def stall(self, limit: int, *, delivers: bool) -> Callable[[], Awaitable[Any]] | None:
        """Stops in the middle of a batch, before its transaction or, with `delivers`, before its delivery; returns the rest."""
        if not self._kit.gate.is_open:
            return None
        try:
            applier = self.applier or await self.join()
            records = self.fetch(applier, limit, 0)
            if not records:
                return None
            batch = Batch(records)
            prepared = await applier.prepare(batch)
            if not delivers or not self.consumes.deliver:
                return lambda: applier.apply(batch, _ready(prepared))
            self.stalls_before_delivery = True
            await applier.apply(batch, _ready(prepared))
        except UNHELPED:
            return None

        async def deliver_late() -> None:
            for held in self.undelivered:
                await self._deliver(self._kit, held)

        return deliver_late

    def is_at_end(self) -> bool:
        return self.applier is not None and all(
            offset == self._broker.end(place) for place, offset in self.applier.next.items()
        )


async def _ready(batch: Batch) -> Batch:
    return batch
