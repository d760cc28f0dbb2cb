"""A partition of a topic with a reader of its own, step by step without a Kafka; its effects stand in the table `effects`."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID, uuid4

from pydantic import Field

from event_contracts import Event
from servicekit.db.postgres import Tx
from servicekit.kafka.batches import Applier, Batch, Consumes
from servicekit.kafka.cloudevents import RawRecord, Received, to_headers
from servicekit.kit import Kit
from tests.support.positions import load_positions

TOPIC = "counted.events"
EFFECTS = "CREATE TABLE effects (counter_id uuid, number integer)"


class Counted(Event, topic=TOPIC, key="counter_id"):
    counter_id: UUID
    number: Annotated[int, Field(ge=0, le=1_000)]


async def note(tx: Tx, received: Sequence[Received[Any]]) -> None:
    for each in received:
        await tx.execute("INSERT INTO effects VALUES ($1, $2)", each.event.counter_id, each.event.number)


async def effects(kit: Kit, counter: UUID) -> list[int]:
    rows = await kit.db.fetch("SELECT number FROM effects WHERE counter_id = $1 ORDER BY number", counter)
    return [row["number"] for row in rows]


class Partition:
    """A partition with a reader of its own: its records, and appliers that begin at the database's position."""

    def __init__(self, kit: Kit, handler: Any = note, **more: Any) -> None:
        self.kit, self.number, self.end = kit, uuid4().int % 10**9, 0
        self.reader = f"reader-{self.number}"
        self.consumes: Consumes = Consumes(topics=(TOPIC,), handlers={Counted: handler}, reader=self.reader, **more)

    def event(self, counter: UUID, number: int = 1, event_id: UUID | None = None) -> RawRecord:
        event, now = Counted(counter_id=counter, number=number), datetime.now(UTC)
        headers = to_headers(event, event_id=event_id or uuid4(), source="counter", time=now)
        return self.record(str(counter).encode(), event.model_dump_json().encode(), headers)

    def record(self, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]] = ()) -> RawRecord:
        self.end += 1
        return RawRecord(TOPIC, self.number, self.end - 1, key, value, tuple(headers))

    async def applier(self) -> Applier:
        applier = Applier(self.kit, self.consumes)
        applier.next = await load_positions(self.kit.db, self.reader, [(TOPIC, self.number)])
        return applier

    async def position(self) -> int:
        return (await load_positions(self.kit.db, self.reader, [(TOPIC, self.number)]))[TOPIC, self.number]

    async def waiting(self) -> list[tuple[str, int]]:
        """What waits in quarantine: reason and offset, in the order in which it is replayed."""
        rows = await self.kit.db.fetch(
            "SELECT reason, position FROM kit.quarantine WHERE partition = $1 AND ended_at IS NULL ORDER BY number",
            self.number,
        )
        return [(row["reason"], row["position"]) for row in rows]

    async def quarantined(self) -> list[bytes]:
        sql = "SELECT record FROM kit.quarantine WHERE partition = $1 ORDER BY number"
        rows = await self.kit.db.fetch(sql, self.number)
        return [row["record"] for row in rows]


async def ready(batch: Batch) -> Batch:
    """A batch that was prepared before, as the applier takes it."""
    return batch


async def apply(applier: Applier, *records: RawRecord) -> None:
    batch = Batch(records)
    await applier.apply(batch, applier.prepare(batch))
