"""`growth_*`: the same calls on a small system and on one with a hundred times as many people, in turns.

Two whole stacks run at once; of each pair of measurements the large one's time is divided by the small one's.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import uuid4

import asyncpg

from deploy.local.databases import execute
from deploy.local.http import open_http
from deploy.local.keys import identity_file, staff_token
from deploy.local.stack import Stack
from event_contracts.topics import Topic
from servicekit.core.clock import Clock
from servicekit.core.settings import Settings
from servicekit.db.inbox import first_time
from servicekit.db.outbox import Relay
from servicekit.db.postgres import Database
from servicekit.kafka.client import Producer
from servicekit.kafka.cloudevents import event_ids
from servicekit.vault.client import ServiceIdentity
from tests.bench.erasures import erase_all
from tests.bench.figures import Figure
from tests.bench.growth_rows import TABLES, Loaded, load_old_rows, load_people
from tests.bench.population import settle
from tests.support.staff import Staff

SMALL = 10_000
WANTED = 6_000
LEASES, FINDS, ERASED, EVENTS, BATCH = 1_500, 60, 40, 4_000, 500
FINDS_OF_ONE = 8  # as many as one member of staff may do at once
TOPIC = "bench.relay"
# For both sizes alike, and enough for all rows of a million people: with less the disk cache would be measured.
MEMORY = {"shared_buffers": "7GB", "max_wal_size": "8GB", "checkpoint_timeout": "1h"}
# Not the bodies of old events, which nobody reads and which would drive the rest out.
WARM = """
SELECT pg_prewarm(oid::regclass) FROM pg_class
WHERE (relkind = 'i' OR relkind = 'r' AND relname !~ '^(outbox|inbox)_[0-9]+$') AND relpersistence = 'p'"""
WAITING = """
INSERT INTO kit.outbox (day, slot, event_id, topic, key, headers, body)
SELECT current_date, n % 16, gen_random_uuid(), $1, gen_random_uuid(), '{}'::bytea, decode(repeat(md5(n::text), 40), 'hex')
FROM generate_series(1, $2::int) n"""


@dataclass
class Side:
    """One of the two systems."""

    stack: Stack
    people: list[Loaded]
    bytes_each: float
    times: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def take(self, count: int) -> list[Loaded]:
        """People that were not measured yet."""
        taken, self.people = self.people[:count], self.people[count:]
        return taken


async def run(rounds: int, subjects: int, old_rows: int, say: Callable[[str], None]) -> AsyncIterator[Figure]:
    with ExitStack() as running:
        sides: list[Side] = []
        for size, old in ((SMALL, SMALL), (subjects, old_rows)):
            stack = running.enter_context(Stack(progress=lambda line: None))
            await asyncio.to_thread(_give_memory, stack)
            started = time.monotonic()
            # nothing of the loading is measured, so none of it need survive a power cut
            await asyncio.to_thread(_set, stack, "SET full_page_writes = off")
            people, bytes_each = await load_people(stack, size, WANTED)
            await load_old_rows(stack, old)
            await asyncio.to_thread(_set, stack, "RESET full_page_writes")
            await asyncio.to_thread(execute, stack.postgres.admin_dsn, "CHECKPOINT")
            await _warm(stack)
            say(f"  {size:,} people and {old:,} old rows loaded in {time.monotonic() - started:.0f} s")
            sides.append(Side(stack, people, bytes_each))
            await _lease_all(sides[-1])
        measured: list[tuple[str, Callable[[Side], Awaitable[float]]]] = [
            ("lease", _lease), ("lookup", _look_up), ("erasure", _erase), ("relay", _relay), ("inbox", _inbox)
        ]  # fmt: skip
        for side in sides:
            await asyncio.to_thread(side.stack.kafka.create_topics, [Topic(TOPIC, "order", "order_id", 6, 1, ())])
            await asyncio.to_thread(side.stack.kafka.create_acls, [Topic(TOPIC, "order", "order_id", 6, 1, ())])
        for name, measure in measured:
            for turn in range(rounds + 1):
                if name == "relay" and not turn:  # from here on nobody else publishes
                    for side in sides:
                        await asyncio.to_thread(side.stack.process("order").stop)
                for side in sides[:: -1 if turn % 2 else 1]:
                    took = await measure(side)
                    if turn:  # the first round warms up
                        side.times[name].append(took)
    for name, _ in measured:
        small, large = (statistics.median(side.times[name]) for side in sides)
        sizes = f"{SMALL:,} → {old_rows if name in ('relay', 'inbox') else subjects:,}"
        note = f"{sizes} {'old rows' if name in ('relay', 'inbox') else 'people'}: {small:,.2f} → {large:,.2f} {UNITS[name]}"
        yield Figure(f"growth_{name}", large / small, "ratio", note)
    lease, relay = (statistics.median(sides[1].times[name]) for name in ("lease", "relay"))
    yield Figure("leased_keys_per_s", 1000 * BATCH / lease, "keys/s", "one caller, calls of 500, on the large system")
    yield Figure("relay_events_per_s", 1000 * BATCH / relay, "events/s", "one relay, on the large system")
    yield Figure(
        "bytes_per_subject", sides[1].bytes_each, "bytes", "vault, directory and inventory, with their indexes"
    )


UNITS = {
    "lease": f"ms a call of {BATCH} keys", "lookup": "ms to find by e-mail and read the inventory",
    "erasure": "s for one of 40", "relay": "ms a batch of 500", "inbox": "ms a batch of 500",
}  # fmt: skip


def _give_memory(stack: Stack) -> None:
    execute(stack.postgres.admin_dsn, *(f"ALTER SYSTEM SET {name} = '{value}'" for name, value in MEMORY.items()))
    for process in stack.processes:
        process.stop()
    stack.postgres.stop()
    stack.postgres.start()
    for process in stack.processes:
        process.start()


def _set(stack: Stack, change: str) -> None:
    execute(stack.postgres.admin_dsn, f"ALTER SYSTEM {change}", "SELECT pg_reload_conf()")


async def _warm(stack: Stack) -> None:
    """All tables and indexes into the buffers: what was loaded in bulk went past them, and a cold disk would be measured."""
    for system in TABLES:
        database = stack.dsn(system).rpartition("/")[2]
        connection = await asyncpg.connect(stack.postgres.admin_dsn, database=database)
        try:
            await connection.execute("CREATE EXTENSION IF NOT EXISTS pg_prewarm")
            await connection.execute(WARM)
        finally:
            await connection.close()


async def _lease_all(side: Side) -> None:
    """A connection maps each page of the server's memory when it touches it first; in life it lives for hours."""
    for _ in range(WANTED // LEASES):
        await _lease(side)


async def _lease(side: Side) -> float:
    """Milliseconds of one call for keys of 500 people; each key is asked for once, until all people have been."""
    people = side.take(LEASES)
    identity = ServiceIdentity(
        "logistics-gateway", identity_file(side.stack.keys, "logistics-gateway").read_bytes(), Clock()
    )
    headers = {"Authorization": f"Bearer {identity.token()}", "X-Holder": (holder := str(uuid4()))}
    times = []
    async with open_http(side.stack.url("vault"), timeout=30) as http:
        for start in range(0, LEASES, BATCH):
            keys = [
                {
                    "key_id": str(who.order_id),
                    "subject": str(who.subject),
                    "data_class": "delivery",
                    "anchor": str(who.order_id),
                }
                for who in people[start : start + BATCH]
            ]
            started = time.monotonic()
            answer = await http.post("/v1/keys/lease", json={"purpose": "delivery", "keys": keys}, headers=headers)
            times.append(time.monotonic() - started)
            leased = answer.raise_for_status().json()["keys"]
            assert sum(bool(key.get("key")) for key in leased) == len(keys), "not every key was leased"
        (await http.delete(f"/v1/holders/{holder}", headers=headers)).raise_for_status()
    side.people += people  # others have been asked for since, when their turn comes again
    return 1000 * statistics.median(times)


async def _look_up(side: Side) -> float:
    """Milliseconds to find a person by e-mail address and to read what is held about them."""
    times = []
    async with open_http(side.stack.url("privacy"), timeout=30) as http:
        headers: dict[str, str] = {}
        for place, who in enumerate(side.take(FINDS)):
            if place % FINDS_OF_ONE == 0:
                headers = {"Authorization": f"Bearer {staff_token(side.stack.keys, 'support')}"}
            started = time.monotonic()
            found = await http.post("/v1/find", json={"by": "email", "term": who.email}, headers=headers)
            held = await http.get(f"/v1/subjects/{who.subject}/inventory", headers=headers)
            times.append(time.monotonic() - started)
            assert [each["subject_id"] for each in found.raise_for_status().json()["items"]] == [str(who.subject)]
            assert len(held.raise_for_status().json()["items"]) == 7, "not all that is held was found"
    return 1000 * statistics.median(times)


async def _erase(side: Side) -> float:
    """Seconds for one of 40 people who are approved at once."""
    people = await settle(side.stack, ERASED)
    async with Staff(side.stack) as staff:
        per_s, unfinished = await erase_all(side.stack, staff, people)
    assert not unfinished, f"{unfinished} of {ERASED} people have no certificate"
    return 1 / per_s


async def _relay(side: Side) -> float:
    """Milliseconds of the relay for 500 events, read, published and marked."""
    stack, clock = side.stack, Clock()
    settings = Settings(
        kafka_bootstrap=stack.kafka.bootstrap,
        kafka_user="order",
        kafka_password_file=stack.keys / "kafka" / "order.password",
    )
    connection = await asyncpg.connect(stack.owner_dsn("order"))
    await connection.execute(WAITING, TOPIC, EVENTS)
    await connection.close()
    db = await Database.connect(stack.dsn("order"), "bench")
    producer = Producer(settings)
    relay = Relay(db, lambda: producer, clock, asyncio.Event())
    try:
        started, published = time.monotonic(), 0
        while count := await relay.publish_batch():
            published += count
        took = time.monotonic() - started
    finally:
        await producer.stop()
        await db.close()
    assert published >= EVENTS, f"{published} of {EVENTS} events were published"
    return 1000 * took * BATCH / published


async def _inbox(side: Side) -> float:
    """Milliseconds to note 500 events that are new."""
    db = await Database.connect(side.stack.dsn("order"), "bench")
    times = []
    try:
        for _ in range(20):
            now = datetime.now(UTC)
            events = [(now.date(), event_id) for event_id in event_ids(now, BATCH)]
            started = time.monotonic()
            new = await db.run_tx("bench", lambda tx, events=events: first_time(tx, "participant", events))  # type: ignore[misc]
            times.append(time.monotonic() - started)
            assert len(new) == BATCH, "an event counts as known"
    finally:
        await db.close()
    return 1000 * statistics.median(times)
