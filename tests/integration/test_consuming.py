"""Outbox, relay, positions, batches and quarantine, on real Kafka and Postgres."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from deploy.local.interfaces import KafkaServer, PostgresServer
from event_contracts.topics import Topic
from servicekit.app.republish import republish
from servicekit.core.health import Progress
from servicekit.core.settings import Settings
from servicekit.db.outbox import Relay
from servicekit.db.postgres import Tx
from servicekit.kafka.client import OutRecord, Producer
from servicekit.kafka.consuming import BATCHES_AHEAD, Consumes, Received, RecordId, run_reader
from servicekit.kafka.replay import replay
from servicekit.kafka.subscription import BATCH
from servicekit.kit import Kit
from tests.support.counters import (
    NO_EVENTS,
    SERVICE,
    Counted,
    Reset,
    counted,
    one_in_each_partition,
    produce_raw,
    skip_to_end,
    statement,
)
from tests.support.infra import kafka_server, postgres_server
from tests.support.kits import OpenPolicy, open_test_kit

__all__ = ["kafka_server", "postgres_server"]


@pytest.fixture(scope="module")
def password_file(kafka_server: KafkaServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The user and the topic that all tests of this module share."""
    file = tmp_path_factory.mktemp("secrets") / "password"
    file.write_text("a-password-of-a-test")
    kafka_server.create_users({SERVICE: file.read_text()})
    topics = [Topic("counted.events", SERVICE, "counter_id", 3, 1, (SERVICE,))]
    kafka_server.create_topics(topics)
    kafka_server.create_acls(topics)
    return file


@pytest.fixture
async def kit(
    kafka_server: KafkaServer, postgres_server: PostgresServer, password_file: Path, tmp_path: Path
) -> AsyncIterator[Kit]:
    """A database of its own for each test, with a table that notes every effect."""
    (tmp_path / "0001_effects.sql").write_text(
        "CREATE TABLE effects (place bigint GENERATED ALWAYS AS IDENTITY, counter_id uuid, number integer)"
    )
    settings = Settings(kafka_bootstrap=kafka_server.bootstrap, kafka_user=SERVICE, kafka_password_file=password_file)
    dsns = postgres_server.create_system_database(f"{SERVICE}{uuid4().hex[:8]}")
    async with open_test_kit(SERVICE, dsns, settings, [Counted, Reset], [tmp_path]) as kit:
        await skip_to_end(kit, kafka_server)
        yield kit


async def note(tx: Tx, received: Sequence[Received[Any]]) -> None:
    await tx.execute(
        "INSERT INTO effects (counter_id, number) SELECT * FROM unnest($1::uuid[], $2::int[])",
        [r.event.counter_id for r in received],
        [r.event.number for r in received],
    )


def consumes(handler: Any = note, **more: Any) -> Consumes:
    return Consumes(topics=("counted.events",), handlers={Counted: handler, Reset: handler}, **more)


@asynccontextmanager
async def running(kit: Kit, *readers: Consumes, relays: int = 1) -> AsyncIterator[None]:
    stopping = asyncio.Event()
    parts = [run_reader(kit, reader, stopping, Progress(kit.clock, 60)) for reader in readers]
    for _ in range(relays if kit.outbox else 0):
        relay = Relay(kit.db, lambda: Producer(kit.settings), kit.clock, kit.outbox.wake)  # type: ignore[union-attr]
        parts.append(relay.run(stopping, Progress(kit.clock, 60)))
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        yield
    finally:
        stopping.set()
        await asyncio.gather(*tasks)


async def until(kit: Kit, expected: int, sql: str = "SELECT count(*) FROM effects") -> None:
    """Waits until the count is there; the test's own time-out ends a wait in vain."""
    while await kit.db.fetchval(sql) < expected:
        await asyncio.sleep(0.02)


async def emit_numbers(kit: Kit, counters: Sequence[UUID], numbers: range) -> None:
    async def work(tx: Tx) -> None:
        for number in numbers:
            contract = Reset if number % 3 == 0 else Counted
            await tx.emit(*[contract(counter_id=counter, number=number) for counter in counters])

    await kit.run_tx("emit_numbers", work)


async def numbers_of(kit: Kit) -> dict[UUID, list[int]]:
    rows = await kit.db.fetch("SELECT counter_id, array_agg(number ORDER BY place) n FROM effects GROUP BY 1")
    return {row["counter_id"]: list(row["n"]) for row in rows}


async def test_every_committed_event_has_one_effect_in_order_per_aggregate(kit: Kit) -> None:
    counters = [uuid4() for _ in range(20)]
    async with running(kit, consumes(), relays=2):
        for start in range(0, 60, 20):
            await emit_numbers(kit, counters, range(start, start + 20))
        await until(kit, 20 * 60)
    assert await numbers_of(kit) == {counter: list(range(60)) for counter in counters}
    assert await kit.db.fetchval("SELECT count(*) FROM kit.outbox WHERE published_at IS NULL") == 0


async def test_an_event_of_a_transaction_that_rolled_back_is_never_published(kit: Kit) -> None:
    counter = uuid4()

    async def fails(tx: Tx) -> None:
        await tx.emit(Counted(counter_id=counter, number=1))
        raise LookupError

    with pytest.raises(LookupError):
        await kit.run_tx("fails", fails)
    async with running(kit, consumes()):
        await emit_numbers(kit, [counter], range(2, 3))
        await until(kit, 1)
    assert await numbers_of(kit) == {counter: [2]}


@pytest.mark.fault(9, "bodies that are no event; missing, doubled and unreadable headers, wrong key, unknown version")
async def test_poison_is_quarantined_and_the_partition_moves_on(kit: Kit) -> None:
    counter = uuid4()
    key = str(counter).encode()
    good = [("ce_specversion", b"1.0"), ("ce_id", str(uuid4()).encode()), ("ce_source", b"test"),
            ("ce_time", b"2026-01-01T00:00:00+00:00")]  # fmt: skip
    poison = {
        "no_cloudevent": OutRecord("counted.events", b"someone@else.example", b"{}", []),
        "unreadable_header": OutRecord("counted.events", b"1", b"{}", [("ce_id", b"\xff")]),
        "breaks_contract": OutRecord("counted.events", b"2", b"{not json", [*good, ("ce_type", b"Counted.v1")]),
        "unknown_version": OutRecord("counted.events", b"3", b"{}", [*good, ("ce_type", b"Counted.v9")]),
        "wrong_key": OutRecord(
            "counted.events", b"4", b'{"counter_id":"%s","number":1}' % key, [*good, ("ce_type", b"Counted.v1")]
        ),
        "doubled_header": OutRecord("counted.events", b"5", b"{}", [*good, good[0], ("ce_type", b"Counted.v1")]),
    }
    bodies = [OutRecord("counted.events", b"6", body, [*good, ("ce_type", b"Counted.v1")]) for body in NO_EVENTS]
    await produce_raw(kit, [*poison.values(), *bodies])
    async with running(kit, consumes()):
        await emit_numbers(kit, [counter], range(5))
        await until(kit, 5)
        await until(kit, len(poison) + len(bodies), "SELECT count(*) FROM kit.quarantine")
    rows = await kit.db.fetch("SELECT reason, record FROM kit.quarantine")
    assert Counter(row["reason"] for row in rows) == Counter(poison.keys()) + Counter(breaks_contract=len(bodies))
    assert not any(b"someone@else.example" in row["record"] for row in rows)
    assert await numbers_of(kit) == {counter: list(range(5))}


@pytest.mark.fault(9, "a record whose handler fails, and its replay from quarantine")
async def test_a_failing_record_parks_its_aggregate_and_replay_restores_the_order(kit: Kit) -> None:
    bad, other = uuid4(), uuid4()
    broken = True

    async def fails_at_two(tx: Tx, received: Sequence[Received[Any]]) -> None:
        await note(tx, received)
        if broken and any(r.event.counter_id == bad and r.event.number == 2 for r in received):
            raise ZeroDivisionError

    async with running(kit, consumes(fails_at_two)):
        await emit_numbers(kit, [bad, other], range(6))
        await until(kit, 6 + 2)
        await until(kit, 4, "SELECT count(*) FROM kit.quarantine")
    assert await numbers_of(kit) == {bad: [0, 1], other: list(range(6))}
    reasons = await kit.db.fetch("SELECT reason FROM kit.quarantine ORDER BY number")
    assert sorted(row["reason"] for row in reasons) == ["handler_failed", "parked", "parked", "parked"]

    assert await replay(kit, [consumes(fails_at_two)]) == (0, 4)
    broken = False
    assert await replay(kit, [consumes(fails_at_two)]) == (4, 0)
    assert await numbers_of(kit) == {bad: list(range(6)), other: list(range(6))}


@pytest.mark.fault(7, "a zombie consumer applies behind the next owner")
async def test_a_zombie_rolls_back_because_its_position_has_moved(kit: Kit) -> None:
    from servicekit.core.errors import PositionLost
    from servicekit.kafka.batches import Applier, Batch
    from servicekit.kafka.cloudevents import RawRecord
    from tests.support.positions import load_positions

    places = [("counted.events", 0)]
    zombie, owner = Applier(kit, consumes()), Applier(kit, consumes())
    for applier in (zombie, owner):
        applier.next = await load_positions(kit.db, "main", places)
    start = owner.next[places[0]]
    record = RawRecord("counted.events", 0, start, str(uuid4()).encode(), b"{", ())
    batch = Batch([record])
    await owner.apply(batch, owner.prepare(batch))
    late = Batch([record])
    with pytest.raises(PositionLost):
        await zombie.apply(late, zombie.prepare(late))
    assert await kit.db.fetchval("SELECT count(*) FROM kit.quarantine") == 1


@pytest.mark.fault(27, "the group is deleted, with its offsets")
async def test_lost_group_offsets_change_nothing(kit: Kit, kafka_server: KafkaServer) -> None:
    counter = uuid4()
    async with running(kit, consumes()):
        await emit_numbers(kit, [counter], range(10))
        await until(kit, 10)
    for future in kafka_server.admin.delete_consumer_groups([f"{kit.name}.main"]).values():
        future.result()
    async with running(kit, consumes()):
        await emit_numbers(kit, [counter], range(10, 12))
        await until(kit, 12)
    assert await numbers_of(kit) == {counter: list(range(12))}


@pytest.mark.fault(5, "the relay's marks are lost: all is produced twice")
async def test_the_inbox_drops_what_the_producer_sent_twice(kit: Kit) -> None:
    counter = uuid4()
    async with running(kit, consumes(inbox=True)):
        await emit_numbers(kit, [counter], range(5))
        await until(kit, 5)
        # The relay's mark is lost: everything is sent a second time.
        await kit.run_tx("unmark", statement("UPDATE kit.outbox SET published_at = NULL"))
        await emit_numbers(kit, [counter], range(5, 6))
        await until(kit, 6)
    assert await numbers_of(kit) == {counter: list(range(6))}


async def test_what_was_published_since_a_time_is_published_again_in_its_order(kit: Kit) -> None:
    """The readers of this service have forgotten all: what they see comes from Kafka alone."""
    counter = uuid4()
    async with running(kit, consumes()):
        await emit_numbers(kit, [counter], range(5))
        await until(kit, 5)
    since = kit.clock.now()
    async with running(kit, consumes()):
        await emit_numbers(kit, [counter], range(5, 10))
        await until(kit, 10)
    await kit.run_tx("ahead", statement("UPDATE kit.positions SET next = next + 1000"))
    await kit.run_tx("forget", statement("DELETE FROM effects"))
    assert await republish(kit, since) == (3, 5)
    async with running(kit, consumes()):
        await until(kit, 5)
    assert await numbers_of(kit) == {counter: list(range(5, 10))}


@pytest.mark.fault(7, "a second reader joins")
async def test_two_readers_share_the_partitions(kit: Kit) -> None:
    counters = [uuid4() for _ in range(12)]
    async with running(kit, consumes(), consumes()):
        for start in range(0, 50, 10):
            await emit_numbers(kit, counters, range(start, start + 10))
        await until(kit, 12 * 50)
    assert await numbers_of(kit) == {counter: list(range(50)) for counter in counters}


@pytest.mark.fault(1, "the step after the commit fails")
async def test_a_send_that_fails_after_the_commit_does_not_apply_the_batch_again(kit: Kit) -> None:
    counter = uuid4()
    failed = []

    async def deliver(kit: Kit, result: None) -> None:
        if not failed:
            failed.append(True)
            raise LookupError

    async with running(kit, consumes(deliver=deliver)):
        await emit_numbers(kit, [counter], range(4))
        await until(kit, 4)
        await emit_numbers(kit, [counter], range(4, 6))
        await until(kit, 6)
    assert failed
    assert await numbers_of(kit) == {counter: list(range(6))}


async def test_a_service_that_may_not_open_its_quarantine_replays_from_kafka(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = uuid4()
    broken = True

    async def fails_at_one(tx: Tx, received: Sequence[Received[Any]]) -> None:
        await note(tx, received)
        if broken and any(r.event.number == 1 for r in received):
            raise ZeroDivisionError

    async with running(kit, consumes(fails_at_one)):
        await emit_numbers(kit, [counter], range(3))
        await until(kit, 2, "SELECT count(*) FROM kit.quarantine")
    broken = False
    monkeypatch.setattr(OpenPolicy, "may_open", lambda *_: False)
    vault: Any = kit.vault
    calls = vault.calls
    assert await replay(kit, [consumes(fails_at_one)]) == (2, 0)
    assert await numbers_of(kit) == {counter: [0, 1, 2]}
    assert vault.calls == calls


@pytest.mark.fault(9, "an oversize record")
async def test_a_record_as_large_as_kafka_lets_in_is_quarantined_too(kit: Kit) -> None:
    counter = uuid4()
    await produce_raw(kit, [OutRecord("counted.events", b"large", b"x" * 1_000_000, [])])
    async with running(kit, consumes()):
        await emit_numbers(kit, [counter], range(2))
        await until(kit, 2)
        await until(kit, 1, "SELECT count(*) FROM kit.quarantine")


MANY = 12_000


@pytest.mark.fault(8, "a hot subject: thousands of events of one aggregate")
@pytest.mark.fault(8, "a slow consumer with a backlog")
async def test_a_hot_subject_and_a_reader_that_hangs_hold_nobody_up(kit: Kit, kafka_server: KafkaServer) -> None:
    """One reader is held at its first batch until another one has read all. It takes no more than its queue lets in."""
    await skip_to_end(kit, kafka_server, "slow")
    hot, *others = one_in_each_partition()
    await produce_raw(kit, [counted(hot, number) for number in range(MANY)])
    await produce_raw(kit, [counted(other, number) for other in others for number in range(10)])
    go_on, under_way, most = asyncio.Event(), 0, 0

    async def take(kit: Kit, events: Sequence[Received[Any]]) -> dict[RecordId, None]:
        nonlocal under_way, most
        under_way += len(events)
        most = max(most, under_way)
        return {}

    async def hang(tx: Tx, received: Sequence[Received[Any]]) -> None:
        nonlocal under_way
        await go_on.wait()
        under_way -= len(received)

    async with running(kit, consumes(), consumes(hang, prepare=take, reader="slow")):
        await until(kit, MANY + 20)
        read_by_slow = "SELECT sum(next)::bigint FROM kit.positions WHERE reader = 'slow'"
        start = await kit.db.fetchval(read_by_slow)
        go_on.set()
        await until(kit, start + MANY + 20, read_by_slow)
    assert 0 < most <= (BATCHES_AHEAD + 2) * BATCH
    assert under_way == 0
    assert await numbers_of(kit) == {hot: list(range(MANY)), **{other: list(range(10)) for other in others}}
    last = await kit.db.fetch("SELECT counter_id = $1 AS is_hot, max(place) AS place FROM effects GROUP BY 1", hot)
    places = {row["is_hot"]: row["place"] for row in last}
    assert places[False] < places[True], "nobody waits for the end of somebody else's backlog"


@pytest.mark.fault(8, "a slow handler")
async def test_who_has_another_partition_does_not_wait_for_a_handler_that_is_slow(kit: Kit) -> None:
    hot, *others = one_in_each_partition()
    go_on, hangs = asyncio.Event(), asyncio.Event()
    assigned: list[set[int]] = [set(), set()]

    async def slow_at_hot(tx: Tx, received: Sequence[Received[Any]]) -> None:
        if any(r.event.counter_id == hot for r in received):
            hangs.set()
            await go_on.wait()
        await note(tx, received)

    def one_of_two(number: int) -> Consumes:
        async def mine(kit: Kit, places: Sequence[tuple[str, int]]) -> None:
            assigned[number] = {partition for _, partition in places}

        return consumes(slow_at_hot, assigned=mine)

    async with running(kit, one_of_two(0), one_of_two(1)):
        while not (all(assigned) and assigned[0].isdisjoint(assigned[1])):
            await asyncio.sleep(0.02)
        await produce_raw(kit, [counted(hot, 0)])
        await hangs.wait()
        await produce_raw(kit, [counted(each, number) for each in (hot, *others) for number in range(1, 10)])
        await until(kit, 9)
        assert hot not in await numbers_of(kit)
        go_on.set()
        await until(kit, 28)
    assert await numbers_of(kit) == {hot: list(range(10)), **{other: list(range(1, 10)) for other in others}}
