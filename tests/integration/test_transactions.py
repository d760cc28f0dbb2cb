"""What is committed together and what is not: outbox, relay, positions, inbox, quarantine, step by step without a Kafka."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from aiokafka.errors import KafkaConnectionError

from deploy.local.interfaces import PostgresServer
from event_contracts import Event
from servicekit.core import faults
from servicekit.core.errors import PartitionsDiffer, PositionLost, Unavailable
from servicekit.core.faults import Fault, InjectedFault
from servicekit.core.health import Progress
from servicekit.core.metrics import PARTITIONS_DIFFER
from servicekit.core.settings import Settings
from servicekit.db import outbox, postgres
from servicekit.db.outbox import Relay
from servicekit.db.postgres import Database, Tx
from servicekit.kafka import batches
from servicekit.kafka.client import OutRecord, Producer
from servicekit.kafka.cloudevents import Received
from servicekit.kit import Kit
from tests.support.infra import postgres_server
from tests.support.kits import open_test_kit
from tests.support.partitions import EFFECTS, Counted, Partition, apply, effects, note

__all__ = ["postgres_server"]

CANARY = b"Jane Canary 4711"


@pytest.fixture(scope="module")
def dsns(postgres_server: PostgresServer) -> tuple[str, str]:
    return postgres_server.create_system_database("counter")


@pytest.fixture
async def kit(dsns: tuple[str, str], tmp_path: Path) -> AsyncIterator[Kit]:
    """All tests share the database: each has counters and a partition of its own, and leaves no unsent event."""
    (tmp_path / "0001_effects.sql").write_text(EFFECTS)
    async with open_test_kit("counter", dsns, Settings(), [Counted, Stuck], [tmp_path]) as kit:
        yield kit
        await kit.run_tx("clean", lambda tx: tx.execute("UPDATE kit.outbox SET published_at = now()"))


# --- outbox and relay ---


class Wire:
    """Stands for Kafka: keeps what was sent, and its keys; refuses while `is_down`, and what goes to a topic of `differing`."""

    def __init__(self) -> None:
        self.keys: list[UUID] = []
        self.batches: list[Sequence[OutRecord]] = []
        self.is_down = False
        self.differing: set[str] = set()

    async def check(self, topics: Iterable[str]) -> None:
        if differing := self.differing & set(topics):
            raise PartitionsDiffer(frozenset(differing))

    async def stop(self) -> None:
        return

    async def send(self, records: Sequence[OutRecord]) -> None:
        if self.is_down:
            raise KafkaConnectionError
        await self.check([record.topic for record in records])
        self.batches.append(records)
        self.keys += [UUID((record.key or b"").decode()) for record in records]


class Stuck(Event, topic="stuck.events", key="counter_id"):
    counter_id: UUID


def relay_of(kit: Kit, wire: Wire) -> Relay:
    return Relay(kit.db, lambda: cast(Producer, wire), kit.clock, asyncio.Event())


async def count(tx: Tx, counter: UUID) -> None:
    """A state change with its event."""
    await tx.execute("INSERT INTO effects VALUES ($1, 1)", counter)
    await tx.emit(Counted(counter_id=counter, number=1))


async def test_an_event_that_commits_late_is_sent_though_a_later_number_is_out(kit: Kit) -> None:
    """Numbers are drawn before the commit, so they do not become visible in their order."""
    early, late, wire = uuid4(), uuid4(), Wire()
    drawn, go_on = asyncio.Event(), asyncio.Event()

    async def commits_late(tx: Tx) -> None:
        await count(tx, late)
        drawn.set()
        await go_on.wait()

    relay = relay_of(kit, wire)
    slow = asyncio.create_task(kit.run_tx("commits_late", commits_late))
    await drawn.wait()
    await kit.run_tx("count", lambda tx: count(tx, early))
    await relay.publish_batch()
    assert wire.keys == [early]
    go_on.set()
    await slow
    await relay.publish_batch()
    assert wire.keys == [early, late]


@pytest.mark.fault(2, "the broker refuses a batch of the relay")
async def test_what_could_not_be_sent_is_sent_the_next_time(kit: Kit) -> None:
    counter, wire = uuid4(), Wire()
    relay = relay_of(kit, wire)
    await kit.run_tx("count", lambda tx: count(tx, counter))
    wire.is_down = True
    with pytest.raises(KafkaConnectionError):
        await relay.publish_batch()
    wire.is_down = False
    await relay.publish_batch()
    assert wire.keys == [counter]
    assert await relay.publish_batch() == 0


async def test_rows_of_a_topic_whose_partitions_differ_wait_and_all_others_go_on(kit: Kit) -> None:
    """Also while more rows wait than a batch holds."""
    stuck, free, wire = uuid4(), uuid4(), Wire()
    relay, progress = relay_of(kit, wire), Progress(kit.clock, 60)

    async def work(tx: Tx) -> None:
        await tx.emit(*(Stuck(counter_id=stuck) for _ in range(outbox.BATCH + 1)))
        await count(tx, free)

    await kit.run_tx("emit", work)
    wire.differing = {Stuck.topic}
    assert await run_until(relay, progress, lambda: wire.keys) == [free], "one topic stopped the whole outbox"
    assert (progress.problem(), progress.stopped) == (None, "partitions_differ")
    assert PARTITIONS_DIFFER.labels(Stuck.topic)._value.get() == 1
    wire.differing.clear()
    relay._checked_at = float("-inf")
    assert await run_until(relay, progress, lambda: wire.keys[outbox.BATCH + 1 :]) == [stuck]
    assert progress.stopped is None
    assert PARTITIONS_DIFFER.labels(Stuck.topic)._value.get() == 0


async def run_until(relay: Relay, progress: Progress, is_there: Callable[[], list[UUID]]) -> list[UUID]:
    """Runs the relay until there are such rows."""
    stopping = asyncio.Event()
    task = asyncio.create_task(relay.run(stopping, progress))
    while not is_there() and not task.done():
        await asyncio.sleep(0.01)
    stopping.set()
    await task
    return is_there()


def in_slot(slot: int) -> UUID:
    return UUID(int=uuid4().int // outbox.SLOTS * outbox.SLOTS + slot)


async def test_a_batch_of_the_relay_is_bounded_in_bytes_and_keeps_the_order(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """500 events of the largest size were read, and given to the producer, at once: 250 MB."""
    limit, counter, wire = 1_500, uuid4(), Wire()
    monkeypatch.setattr(outbox, "MAX_BATCH_BYTES", limit)
    relay = relay_of(kit, wire)
    await kit.run_tx("count", lambda tx: tx.emit(*(Counted(counter_id=counter, number=n) for n in range(12))))
    while await relay.publish_batch():
        pass
    numbers = [json.loads(record.value)["number"] for batch in wire.batches for record in batch]
    assert numbers == list(range(12))
    assert max(len(batch) for batch in wire.batches) > 1
    stored = await kit.db.fetchval("SELECT min(length(headers) + length(body)) FROM kit.outbox WHERE key = $1", counter)
    assert all((len(batch) - 1) * stored < limit for batch in wire.batches)


async def test_a_backlog_is_read_in_equal_shares_of_the_slots_and_leaves_none_behind(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole batch was read of each slot, and most of it thrown away: eight times too much."""
    monkeypatch.setattr(outbox, "BATCH", 8)
    full, other, wire = in_slot(3), in_slot(5), Wire()
    relay = relay_of(kit, wire)
    for counter in (*[full] * 9, *[other] * 2):
        await kit.run_tx("count", lambda tx, counter=counter: count(tx, counter))
    assert await relay.publish_batch() == 6
    assert wire.keys == [full] * 4 + [other] * 2
    assert await run_until(relay, Progress(kit.clock, 60), lambda: wire.keys[10:])


async def test_while_one_relay_sends_an_aggregates_events_another_leaves_them_alone(kit: Kit) -> None:
    counter, busy, idle = uuid4(), Wire(), Wire()
    sending, go_on = asyncio.Event(), asyncio.Event()

    async def send_slowly(records: Sequence[OutRecord]) -> None:
        sending.set()
        await go_on.wait()
        await Wire.send(busy, records)

    busy.send = send_slowly  # type: ignore[method-assign]
    await kit.run_tx("count", lambda tx: count(tx, counter))
    slow = asyncio.create_task(relay_of(kit, busy).publish_batch())
    await sending.wait()
    await kit.run_tx("count", lambda tx: count(tx, counter))
    await relay_of(kit, idle).publish_batch()
    go_on.set()
    await slow
    assert (busy.keys, idle.keys) == ([counter], [])


@pytest.mark.fault(7, "a process stands still between preparing a statement and sending it")
async def test_a_process_that_stands_still_inside_a_statement_keeps_nobody_locked_out(
    dsns: tuple[str, str], kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its successor waits for the row until the server gives the first one up; that one finds out when it wakes."""
    if await kit.db.fetchval("SELECT current_setting('server_version_num')::integer") < 170_000:
        pytest.skip("Postgres before 17 has no time-out that ends it: docs/decisions.md")
    partition = Partition(kit)
    monkeypatch.setattr(postgres, "TRANSACTION_SECONDS", 3)
    sleeper = await Database.connect(dsns[0], "sleeper")
    asleep, awake = asyncio.Event(), asyncio.Event()

    async def stand_still(tx: Tx) -> None:
        await tx.execute("UPDATE kit.positions SET next = 100 WHERE partition = $1", partition.number)
        await tx._connection.prepare("SELECT $1::integer")
        asleep.set()
        await awake.wait()
        await tx.execute("UPDATE kit.positions SET next = 200 WHERE partition = $1", partition.number)

    await partition.applier()
    standing = asyncio.create_task(sleeper.run_tx("sleeper", stand_still))
    await asleep.wait()
    # A statement waits five seconds for a lock.
    go_on = "UPDATE kit.positions SET next = 1 WHERE partition = $1"
    await kit.run_tx("successor", lambda tx: tx.execute(go_on, partition.number))
    awake.set()
    with pytest.raises(Unavailable):
        await standing
    assert await partition.position() == 1
    await sleeper.close()


@pytest.mark.fault(7, "a statement that takes longer than its time-out, on a server that is slow")
async def test_a_slow_server_is_not_the_fault_of_what_was_asked(kit: Kit) -> None:
    """A reader waits on `Unavailable`; anything else would set the record aside."""

    async def slow(tx: Tx) -> None:
        await tx.execute("SET LOCAL statement_timeout = '20ms'")
        await tx.fetchval("SELECT pg_sleep(60)")

    with pytest.raises(Unavailable):
        await kit.run_tx("slow", slow)


@pytest.mark.fault(4, "a crash right before and right after the commit")
async def test_a_crash_at_the_commit_leaves_both_state_and_event_or_none(kit: Kit) -> None:
    for point, expected in (("tx.commit", 0), ("tx.committed", 1)):
        counter = uuid4()
        faults.arm({point: Fault("error")})
        with pytest.raises(InjectedFault):
            await kit.run_tx("count", lambda tx, counter=counter: count(tx, counter))  # type: ignore[misc]
        faults.arm({})
        events = await kit.db.fetchval("SELECT count(*) FROM kit.outbox WHERE key = $1", counter)
        assert (len(await effects(kit, counter)), events) == (expected, expected)


# --- positions, inbox, quarantine ---


@pytest.mark.fault(19, "a handler's service is away in the middle of a batch")
async def test_the_position_moves_with_the_effects_or_not_at_all(kit: Kit) -> None:
    is_away = True

    async def fails_while_away(tx: Tx, received: Sequence[Received[Any]]) -> None:
        await note(tx, received)
        if is_away:
            raise Unavailable

    partition, counter = Partition(kit, fails_while_away), uuid4()
    record = partition.event(counter)
    with pytest.raises(Unavailable):
        await apply(await partition.applier(), record)
    assert (await partition.position(), await effects(kit, counter)) == (0, [])
    is_away = False
    await apply(await partition.applier(), record)
    assert (await partition.position(), await effects(kit, counter)) == (1, [1])


@pytest.mark.fault(7, "two owners of one partition")
async def test_of_two_owners_of_a_partition_only_the_first_has_an_effect(kit: Kit) -> None:
    partition, counter = Partition(kit), uuid4()
    owner, zombie, record = await partition.applier(), await partition.applier(), partition.event(counter)
    await apply(owner, record)
    with pytest.raises(PositionLost):
        await apply(zombie, record)
    assert await effects(kit, counter) == [1]


@pytest.mark.fault(6, "an event comes again in its batch and in the next")
async def test_with_an_inbox_an_event_has_one_effect_wherever_it_comes_again(kit: Kit) -> None:
    partition, counter, event_id = Partition(kit, inbox=True), uuid4(), uuid4()
    applier = await partition.applier()
    await apply(applier, *(partition.event(counter, event_id=event_id) for _ in range(2)))
    await apply(applier, partition.event(counter, event_id=event_id), partition.event(counter, 2))
    assert await effects(kit, counter) == [1, 2]


@pytest.mark.fault(9, "poison with a value in its key, headers and body")
@pytest.mark.fault(28, "a malformed event with a value in it")
async def test_quarantine_holds_nothing_in_clear(kit: Kit) -> None:
    partition = Partition(kit)
    await apply(await partition.applier(), partition.record(CANARY, CANARY, [(CANARY.decode(), CANARY)]))
    (stored,) = await partition.quarantined()
    assert CANARY not in stored
    assert b"SmFuZSBDYW5hcn" not in stored  # the same in base64


@pytest.mark.fault(19, "the vault is away when a record must be quarantined")
async def test_while_the_vault_is_away_nothing_is_skipped(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that must go to quarantine cannot be sealed: the reader waits in front of it."""

    async def away(*_: object) -> Any:
        raise Unavailable

    partition = Partition(kit)
    record = partition.record(CANARY, CANARY)
    with monkeypatch.context() as patched:
        patched.setattr(kit.vault, "ensure", away)
        with pytest.raises(Unavailable):
            await apply(await partition.applier(), record)
    assert (await partition.position(), await partition.quarantined()) == (0, [])
    await apply(await partition.applier(), record)
    assert (await partition.position(), len(await partition.quarantined())) == (1, 1)


@pytest.mark.fault(19, "what a handler needs is away")
async def test_what_a_service_lacks_puts_no_record_into_quarantine(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    async def needs_the_vault(tx: Tx, received: Sequence[Received[Any]]) -> None:
        raise Unavailable

    monkeypatch.setattr(batches, "FIRST_PAUSE", 0.0)
    partition = Partition(kit, needs_the_vault)
    with pytest.raises(Unavailable):
        await apply(await partition.applier(), partition.event(uuid4()))
    assert await partition.quarantined() == []
