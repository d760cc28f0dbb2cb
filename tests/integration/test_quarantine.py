"""Quarantine: what is parked takes no effect, what bounds it, and how an operator ends it. Step by step without a Kafka."""
# long: one fixture and one idea, what waits; a second file would start a second Postgres.

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from deploy.local.interfaces import PostgresServer
from event_contracts.privacy import QuarantineDecided
from servicekit.core.clock import FakeClock
from servicekit.core.errors import Invalid, NotFound, Poison, Unavailable
from servicekit.core.metrics import NOT_KEPT
from servicekit.core.settings import Settings
from servicekit.db.postgres import Tx
from servicekit.kafka import batches, quarantine, quarantine_command
from servicekit.kafka.batches import Applier, Batch
from servicekit.kafka.cloudevents import Received, RecordId
from servicekit.kafka.quarantine_room import QuarantineFull
from servicekit.kafka.replay import discard, replay, tend
from servicekit.kit import Decided, Kit
from tests.support.infra import postgres_server
from tests.support.kits import open_test_kit
from tests.support.partitions import EFFECTS, TOPIC, Counted, Partition, apply, effects, note, ready

__all__ = ["postgres_server"]

CANARY = b"Jane Canary 4711"


@pytest.fixture(scope="module")
def dsns(postgres_server: PostgresServer) -> tuple[str, str]:
    return postgres_server.create_system_database("counter")


@pytest.fixture
async def kit(dsns: tuple[str, str], tmp_path: Path) -> AsyncIterator[Kit]:
    """All tests share the database: each has counters and a partition of its own."""
    (tmp_path / "0001_effects.sql").write_text(EFFECTS)
    async with open_test_kit("counter", dsns, Settings(), [Counted], [tmp_path]) as kit:
        yield kit


class Shipping:
    """Prepares and ships; `prepared`, `applied` and `delivered` are the numbers that each step has seen."""

    def __init__(self) -> None:
        self.prepared: list[int] = []
        self.applied: list[int] = []
        self.delivered: list[int] = []
        self.bad: set[int] = set()

    async def prepare(self, kit: Kit, events: Sequence[Received[Any]]) -> dict[RecordId, str]:
        self.prepared += [each.event.number for each in events]
        return {each.record_id: f"prepared {each.event.number}" for each in events}

    async def apply(
        self, kit: Kit, tx: Tx, events: Sequence[Received[Any]], prepared: Mapping[RecordId, str]
    ) -> list[int]:
        numbers = [each.event.number for each in events]
        assert [prepared[each.record_id] for each in events] == [f"prepared {number}" for number in numbers]
        if self.bad.intersection(numbers):
            raise LookupError
        await note(tx, events)
        return numbers

    async def deliver(self, kit: Kit, numbers: list[int]) -> None:
        self.delivered += numbers

    def at(self, kit: Kit, **more: Any) -> Partition:
        return Partition(kit, prepare=self.prepare, apply=self.apply, deliver=self.deliver, **more)


@pytest.mark.fault(36, "a poison record, then records of its aggregate, in one batch")
async def test_what_stands_behind_poison_in_its_batch_takes_no_effect(kit: Kit) -> None:
    """The later records are not even prepared; another aggregate's are."""
    shipping, bad, other = Shipping(), uuid4(), uuid4()
    partition = shipping.at(kit)
    poison = partition.record(str(bad).encode(), b"poison")
    await apply(await partition.applier(), poison, partition.event(bad, 2), partition.event(other, 3))
    assert (shipping.prepared, shipping.delivered) == ([3], [3])
    assert (await effects(kit, bad), await effects(kit, other)) == ([], [3])
    assert await partition.waiting() == [("no_cloudevent", 0), ("parked", 1)]


@pytest.mark.fault(36, "a record whose handler fails, then records of its aggregate, in one batch; then the replay")
async def test_what_stands_behind_a_failing_record_takes_effect_with_the_replay_and_in_order(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "FIRST_PAUSE", 0.0)
    shipping, bad, other = Shipping(), uuid4(), uuid4()
    shipping.bad = {2}
    partition = shipping.at(kit)
    records = [partition.event(bad, 1), partition.event(bad, 2), partition.event(other, 3), partition.event(bad, 4)]
    await apply(await partition.applier(), *records)
    assert (sorted(shipping.delivered), await effects(kit, bad)) == ([1, 3], [1])
    assert await partition.waiting() == [("handler_failed", 1), ("parked", 3)]
    shipping.bad.clear()
    assert await replay(kit, [partition.consumes]) == (2, 0)
    assert (shipping.delivered[-2:], await effects(kit, bad)) == ([2, 4], [1, 2, 4])


@pytest.mark.fault(36, "a batch that was prepared before the one in front of it put its aggregate into quarantine")
async def test_a_batch_that_was_prepared_too_early_lets_nothing_through(kit: Kit) -> None:
    shipping, bad, other = Shipping(), uuid4(), uuid4()
    partition = shipping.at(kit)
    applier = await partition.applier()
    first = Batch([partition.record(str(bad).encode(), b"poison")])
    second = Batch([partition.event(bad, 2), partition.event(other, 3)])
    early = await applier.prepare(second)
    assert shipping.prepared == [2, 3]
    await applier.apply(first, applier.prepare(first))
    await applier.apply(second, ready(early))
    assert (shipping.delivered, await effects(kit, bad)) == ([3], [])
    assert await partition.waiting() == [("no_cloudevent", 0), ("parked", 1)]


async def test_a_batch_that_was_prepared_behind_quarantine_is_free_when_that_is_empty(kit: Kit) -> None:
    """Else its record would be parked with nothing in front of it."""
    shipping, counter = Shipping(), uuid4()
    partition = shipping.at(kit)
    applier = await partition.applier()
    await apply(applier, partition.record(str(counter).encode(), b"poison"))
    batch = Batch([partition.event(counter, 2)])
    early = await applier.prepare(batch)
    assert early.is_all_rejected
    await kit.run_tx("end", lambda tx: tx.execute("UPDATE kit.quarantine SET ended_at = now(), outcome = 'discarded'"))
    await applier.apply(batch, ready(early))
    assert (shipping.delivered, await effects(kit, counter)) == ([2], [2])


@pytest.mark.fault(36, "the records of an aggregate that wait, then poison of the same one")
async def test_quarantine_keeps_the_order_of_the_records(kit: Kit) -> None:
    partition, counter = Partition(kit), uuid4()
    key = str(counter).encode()
    applier = await partition.applier()
    await apply(applier, partition.record(key, b"poison"))
    await apply(applier, partition.event(counter, 1), partition.record(key, b"poison"), partition.event(counter, 2))
    assert [offset for _, offset in await partition.waiting()] == [0, 1, 2, 3]


async def test_a_handler_that_names_the_bad_records_loses_none_of_the_others(kit: Kit) -> None:
    """One transaction more, and no halving."""
    good, bad, runs = uuid4(), uuid4(), []

    async def names(kit: Kit, tx: Tx, events: Sequence[Received[Any]], _: Mapping[RecordId, None]) -> None:
        runs.append(len(events))
        wrong = [each.record_id for each in events if each.event.counter_id == bad]
        if wrong:
            raise Poison("wrong_counter", wrong)
        await note(tx, events)

    partition = Partition(kit, apply=names)
    records = [partition.event(bad, 1), partition.event(good, 2), partition.event(bad, 3), partition.event(good, 4)]
    await apply(await partition.applier(), *records)
    assert (runs, await effects(kit, good)) == ([4, 2], [2, 4])
    assert await partition.waiting() == [("wrong_counter", 0), ("wrong_counter", 2)]


@pytest.mark.fault(6, "an event comes again, where the whole batch is applied and delivered at once")
async def test_with_an_inbox_a_duplicate_is_neither_applied_nor_delivered(kit: Kit) -> None:
    shipping, counter, event_id = Shipping(), uuid4(), uuid4()
    partition = shipping.at(kit, inbox=True)
    applier = await partition.applier()
    await apply(applier, *(partition.event(counter, event_id=event_id) for _ in range(2)))
    await apply(applier, partition.event(counter, event_id=event_id), partition.event(counter, 2))
    assert (shipping.delivered, await effects(kit, counter)) == ([1, 2], [1, 2])


async def test_a_full_quarantine_stops_the_reader(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many aggregates as that fail within a day with a bad release. An operator's decision lets the reader go on."""
    monkeypatch.setattr(quarantine, "MAX_AGGREGATES", 2)
    partition = Partition(kit)
    applier = await partition.applier()
    for _ in range(2):
        await apply(applier, partition.record(str(uuid4()).encode(), CANARY))
    bad, good = partition.record(str(uuid4()).encode(), CANARY), uuid4()
    with pytest.raises(QuarantineFull, match="Repair the cause"):
        await apply(applier, bad)
    assert (await partition.position(), len(await partition.quarantined())) == (2, 2)
    numbers = [line.number for line in await quarantine.load_waiting(kit.db, partition.reader)]
    assert await discard(kit, partition.reader, numbers[:1], "operator", "test_data") == 1
    await apply(applier, bad)
    await apply(applier, partition.event(good))
    assert (await partition.position(), await effects(kit, good)) == (4, [1])


@pytest.mark.fault(30, "poison by the thousand in one aggregate")
async def test_one_aggregates_poison_stops_nobody_else(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past its limit no content is kept, only the places; in their order, so that a replay finds them in Kafka."""
    monkeypatch.setattr(quarantine, "MAX_AGGREGATES", 3)
    monkeypatch.setattr(quarantine, "MAX_PER_AGGREGATE", 2)
    partition, bad, other = Partition(kit), uuid4(), uuid4()
    applier = await partition.applier()
    stops = 0
    for number in range(6):
        try:
            await apply(applier, partition.record(str(bad).encode(), CANARY), partition.event(other, number))
        except QuarantineFull:
            stops += 1
    assert (stops, await effects(kit, other)) == (0, [0, 1, 2, 3, 4, 5])
    stored = await partition.quarantined()
    assert [content is None for content in stored] == [False, False, True, True, True, True]
    assert [offset for _, offset in await partition.waiting()] == [0, 2, 4, 6, 8, 10]


@pytest.mark.fault(30, "poison by the thousand from outside, then a good record of the same aggregate")
async def test_bad_records_from_outside_park_nothing_and_stop_nobody(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine, "MAX_AGGREGATES", 1)
    monkeypatch.setattr(quarantine, "MAX_OUTSIDE", 3)
    partition, sender = Partition(kit, outside=True), uuid4()
    key, applier = str(sender).encode(), await partition.applier()
    await apply(applier, *(partition.record(key, CANARY) for _ in range(5)), partition.event(sender, 1))
    await apply(applier, *(partition.record(key, CANARY) for _ in range(5)), partition.event(sender, 2))
    assert (await effects(kit, sender), len(await partition.waiting())) == ([1, 2], 3)
    assert NOT_KEPT.labels(TOPIC, "no_cloudevent")._value.get() >= 7


@pytest.mark.fault(30, "a stuck request is asked again and again: each answer fails")
async def test_a_repeat_takes_the_place_of_the_one_before(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "FIRST_PAUSE", 0.0)
    is_broken, stuck, other = True, uuid4(), uuid4()

    async def fails(tx: Tx, received: Sequence[Received[Any]]) -> None:
        if is_broken and any(each.event.counter_id == stuck for each in received):
            raise LookupError
        await note(tx, received)

    partition = Partition(kit, fails, repeats=True)
    applier = await partition.applier()
    await apply(applier, partition.event(stuck, 1))
    for number in range(2, 5):
        repeats = [partition.event(stuck, number) for _ in range(10)]
        await apply(applier, *repeats, partition.event(other, number))
        assert len(await partition.waiting()) == 1
    assert (await partition.waiting(), await effects(kit, other)) == ([("parked", 32)], [2, 3, 4])
    # Nothing is left in front of the last one, so it is tried by itself.
    await tend(kit, [partition.consumes])
    assert await partition.waiting() == [("handler_failed", 32)]
    is_broken = False
    await apply(applier, partition.event(stuck, 5))
    await tend(kit, [partition.consumes])
    assert (await partition.waiting(), await effects(kit, stuck)) == ([], [5])


async def test_the_work_on_a_stuck_aggregate_does_not_grow(kit: Kit) -> None:
    """One of its records is read and locked for each batch, however many wait behind it."""
    partition, stuck = Partition(kit), uuid4()
    applier = await partition.applier()
    await apply(applier, partition.record(str(stuck).encode(), CANARY))
    for _ in range(4):
        await apply(applier, *(partition.event(stuck) for _ in range(10)))

    async def work(tx: Tx) -> None:
        assert await quarantine.blocked_aggregates(tx, partition.reader, [(TOPIC, stuck)], lock=True) == {
            (TOPIC, stuck)
        }
        free = await kit.db.fetch(
            "SELECT FROM kit.quarantine WHERE reader = $1 AND ended_at IS NULL FOR UPDATE SKIP LOCKED", partition.reader
        )
        assert len(free) == 40, "each record of the aggregate is locked"

    await kit.run_tx("locks", work)
    full = quarantine.full_aggregates(kit.db, partition.reader, [(TOPIC, stuck), (TOPIC, uuid4())])
    assert await full == frozenset()
    quarantined = await kit.db.fetchval("SELECT count(*) FROM kit.quarantine WHERE reader = $1", partition.reader)
    assert quarantined == 41


async def waiting_number(kit: Kit, partition: Partition) -> int:
    return (await quarantine.load_waiting(kit.db, partition.reader))[0].number


async def test_what_waits_behind_a_discarded_record_takes_its_effect_in_order(kit: Kit) -> None:
    partition, counter = Partition(kit), uuid4()
    applier = await partition.applier()
    await apply(applier, partition.record(str(counter).encode(), CANARY))
    await apply(applier, partition.event(counter, 2), partition.event(counter, 3))
    number = await waiting_number(kit, partition)
    decisions: list[Decided] = []

    async def record(kit: Kit, tx: Tx, decided: Decided) -> None:
        decisions.append(decided)

    kit = replace(kit, record_decision=record)
    assert await discard(kit, partition.reader, [number], "jane.operator", "sent_again") == 1
    assert await discard(kit, partition.reader, [number], "jane.operator", "sent_again") == 0
    (decided,) = decisions
    assert isinstance(decided, QuarantineDecided)
    said = (decided.action, decided.number, decided.reason, decided.operator, decided.reader)
    assert said == ("discarded", number, "sent_again", "jane.operator", partition.reader)
    await tend(kit, [partition.consumes])
    assert (await effects(kit, counter), await partition.waiting()) == ([2, 3], [])
    assert await kit.db.fetchval("SELECT count(*) FROM kit.quarantine WHERE record IS NOT NULL AND partition = $1",
                                 partition.number) == 0  # fmt: skip


@pytest.mark.fault(30, "nobody acts until the key of a waiting record dies")
async def test_a_record_expires_with_its_key_and_those_behind_it_are_tried(kit: Kit) -> None:
    partition, counter = Partition(kit), uuid4()
    applier = await partition.applier()
    await apply(applier, partition.record(str(counter).encode(), CANARY))
    key = await kit.db.fetchval("SELECT key_id FROM kit.quarantine WHERE partition = $1", partition.number)
    # The next day has another key, which lives.
    later = replace(kit, clock=FakeClock(kit.clock.now() + timedelta(days=1)))
    tomorrow = Applier(later, partition.consumes)
    tomorrow.next, tomorrow.waiting = applier.next, True
    await apply(tomorrow, partition.event(counter, 2))
    await kit.run_tx("die", lambda tx: tx.execute("INSERT INTO kit.revoked_keys VALUES ($1, $2, 1)", key, uuid4()))
    decisions: list[tuple[str, int]] = []

    async def record(kit: Kit, tx: Tx, decided: Decided) -> None:
        assert isinstance(decided, QuarantineDecided)
        decisions.append((decided.action, decided.count))

    await tend(replace(kit, record_decision=record), [partition.consumes])
    assert decisions == [("expired", 1)]
    assert (await effects(kit, counter), await partition.waiting()) == ([2], [])


async def test_the_operators_list_and_show_tell_places_and_codes_and_no_content(
    kit: Kit, capsys: pytest.CaptureFixture[str]
) -> None:
    partition, counter = Partition(kit), uuid4()
    await apply(
        await partition.applier(),
        partition.record(str(counter).encode(), CANARY, [(CANARY.decode(), CANARY)]),
        partition.event(counter, 2),
    )
    first = await waiting_number(kit, partition)
    for given in (["list"], ["show", str(first)], ["show", str(first + 1)]):
        await quarantine_command.run(kit, [partition.consumes], quarantine_command.parse("counter", given))
    shown = capsys.readouterr().out
    assert "Canary" not in shown
    assert [f"{TOPIC}/{partition.number}/0", "no_cloudevent", "parked", "Counted.v1"] == [
        word for word in (f"{TOPIC}/{partition.number}/0", "no_cloudevent", "parked", "Counted.v1") if word in shown
    ]
    # The order of the aggregate is kept: what is parked is not tried before what it waits for.
    call = quarantine_command.parse("counter", ["replay", str(first + 1), "--by", "operator"])
    with pytest.raises(Invalid, match=f"Record {first} of the same aggregate"):
        await quarantine_command.run(kit, [partition.consumes], call)
    for wrong in ("discard 1 --reason Jane --by operator", f"discard {first} --reason Jane"):
        with pytest.raises((Invalid, NotFound)):
            await quarantine_command.run(kit, [], quarantine_command.parse("counter", wrong.split()))


async def _too_few_values(tx: Tx) -> None:
    await tx.fetch("SELECT $1::integer")


async def _never_ends(tx: Tx) -> None:
    await tx.execute("SET LOCAL statement_timeout = '20ms'")
    await tx.execute("SELECT pg_sleep(60)")


@pytest.mark.fault(
    30, "a record for which a statement is wrong, or always times out, though the database answers others"
)
@pytest.mark.parametrize("fails", [_too_few_values, _never_ends])
async def test_a_statement_that_always_fails_is_the_fault_of_its_record(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, fails: Callable[[Tx], Awaitable[None]]
) -> None:
    """It looks like a database that is away, so the reader waits a few times; then it takes the record out."""
    monkeypatch.setattr(batches, "FIRST_PAUSE", 0.0)
    bad, good = uuid4(), uuid4()

    async def handle(tx: Tx, received: Sequence[Received[Any]]) -> None:
        if any(each.event.counter_id == bad for each in received):
            await fails(tx)
        await note(tx, received)

    partition = Partition(kit, handle)
    applier, records = (
        await partition.applier(),
        [partition.event(good, 1), partition.event(bad), partition.event(good, 2)],
    )
    for _ in range(batches.DOUBTS - 1):
        with pytest.raises(Unavailable):
            await apply(applier, *records)
    assert await partition.position() == 0
    await apply(applier, *records)
    assert (await effects(kit, good), await partition.waiting()) == ([1, 2], [("handler_failed", 1)])


async def test_a_value_that_no_statement_can_take_is_no_outage(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "FIRST_PAUSE", 0.0)

    async def handle(tx: Tx, received: Sequence[Received[Any]]) -> None:
        await tx.execute("SELECT $1::integer", 2**40)

    partition = Partition(kit, handle)
    await apply(await partition.applier(), partition.event(uuid4()))
    assert await partition.waiting() == [("handler_failed", 0)]


async def test_a_statement_that_fails_after_the_commit_blames_no_record(kit: Kit) -> None:
    """The position would go back, and the batch would be applied again."""
    counter = uuid4()

    async def deliver(kit: Kit, result: None) -> None:
        await kit.run_tx("fails", _too_few_values)

    partition = Partition(kit, deliver=deliver)
    applier = await partition.applier()
    for number in range(batches.DOUBTS + 1):
        with pytest.raises(Unavailable):
            await apply(applier, partition.event(counter, number), partition.event(counter, number + 100))
    assert await partition.position() == 2 * (batches.DOUBTS + 1)
    assert len(await effects(kit, counter)) == 2 * (batches.DOUBTS + 1)
    assert await partition.waiting() == []
