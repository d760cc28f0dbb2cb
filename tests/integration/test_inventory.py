"""The inventory on real Kafka and Postgres, from the events of several services and of a third party."""

import json
import random
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from event_contracts.account import ContactDisclosed
from event_contracts.order import CloseReason, OrderClosed, ReadReason, TaxRecordRead
from servicekit.db.postgres import Tx
from servicekit.kafka import quarantine
from servicekit.kafka.batches import Applier, Batch
from servicekit.kafka.client import OutRecord
from servicekit.kafka.quarantine_room import QuarantineFull
from tests.support.infra import kafka_server, postgres_server
from tests.support.inventories import (
    INVENTORY,
    THIRD_PARTIES,
    World,
    apply,
    forget_positions,
    reading,
    secrets_folder,
    until,
    world,
)
from tests.support.inventory_events import START, Shopper, as_read, disclosed, record_of
from tests.support.positions import load_positions

__all__ = ["kafka_server", "postgres_server", "secrets_folder", "world"]


async def test_who_holds_what_is_learned_from_the_events_of_all_systems(world: World) -> None:
    shoppers = [Shopper() for _ in range(5)]
    expected = {row for shopper in shoppers for row in shopper.holdings()}
    async with reading(world.kit):
        await world.produce([record for shopper in shoppers for record in shopper.records()])
        await until(lambda: _has(world, expected))
    mine = {row for row in await world.rows() if row[0] in {s.subject_id for s in shoppers}}
    assert mine == {row for row in expected if row[0] in {s.subject_id for s in shoppers}}
    assert world.vault.calls == 0


async def _has(world: World, expected: set[tuple[UUID, str, str, UUID]]) -> bool:
    return expected <= await world.rows()


async def test_a_gift_order_concerns_two_people(world: World) -> None:
    shopper = Shopper()
    await apply(world.kit, [record_of(shopper.order())])
    assert await world.rows() == {
        (shopper.subject_id, "order", "order_record", shopper.order_id),
        (shopper.subject_id, "order", "payment", shopper.order_id),
        (shopper.consignee_id, "order", "delivery", shopper.order_id),
    }


async def test_a_mail_names_the_mail_provider_as_recipient(world: World) -> None:
    """And the evidence has one leaf of it, however often the event comes."""
    me = uuid4()
    mailed = record_of(
        ContactDisclosed(
            mail_id=uuid4(),
            subject_id=me,
            recipient="mail-provider",
            template="mail-email-changed",
            policy_version="2026-11-30",
            data_class="contact",
            purpose="notification",
            fields=("contact.email",),
        )
    )
    for _ in range(2):
        await apply(world.kit, [mailed])
        await forget_positions(world)
    rows = await world.kit.db.fetch(
        "SELECT anchor, data_class, carrier, lane, fields FROM recipients WHERE subject_id = $1", me
    )
    assert [tuple(row) for row in rows] == [(me, "contact", "mail-provider", "mail-email-changed", ["contact.email"])]
    leaves = await world.kit.db.fetchval(
        "SELECT count(*) FROM evidence_leaves WHERE convert_from(body, 'UTF8') LIKE $1", f"%{me}%"
    )
    assert leaves == 1


async def test_a_look_that_the_order_service_reports_is_one_row_and_one_leaf(world: World) -> None:
    """However often its event is read, and whether or not the person is erased otherwise."""
    staff_id, buyer_id = uuid4(), uuid4()
    look = TaxRecordRead(
        order_id=uuid4(), buyer_id=buyer_id, staff_id=staff_id, role="accounting", reason=ReadReason.TAX_AUDIT
    )
    record = record_of(look)
    for _ in range(2):
        await apply(world.kit, [record])
        await forget_positions(world)
    rows = await world.kit.db.fetch(
        "SELECT role, kind::text, subject_id FROM staff_looks WHERE staff_id = $1", staff_id
    )
    assert [tuple(row) for row in rows] == [("accounting", "tax_record", buyer_id)]
    (leaf,) = await world.kit.db.fetch(
        "SELECT convert_from(body, 'UTF8') AS body FROM evidence_leaves WHERE convert_from(body, 'UTF8') LIKE $1",
        f"%{buyer_id}%",
    )
    assert '"reason":"tax_audit"' in leaf["body"].replace(" ", "")
    assert (await world.rows()) == set()


async def test_an_order_that_staff_close_is_one_leaf_of_the_evidence(world: World) -> None:
    closed = OrderClosed(
        decision_id=uuid4(),
        order_id=uuid4(),
        buyer_id=uuid4(),
        staff_id=uuid4(),
        role="support",
        reason=CloseReason.LOST,
    )
    for _ in range(2):
        await apply(world.kit, [record_of(closed)])
        await forget_positions(world)
    rows = await world.kit.db.fetch(
        "SELECT convert_from(body, 'UTF8') AS leaf FROM evidence_leaves WHERE kind = 'order_closing'"
    )
    (leaf,) = [json.loads(row["leaf"]) for row in rows]
    assert (leaf["order_id"], leaf["staff_id"], leaf["role"], leaf["reason"]) == (
        str(closed.order_id),
        str(closed.staff_id),
        "support",
        "lost",
    )


@pytest.mark.fault(6, "the inventory reads all again")
async def test_a_replay_from_the_first_record_changes_nothing(world: World) -> None:
    shoppers = [Shopper() for _ in range(3)]
    expected = {row for shopper in shoppers for row in shopper.holdings()}
    async with reading(world.kit):
        await world.produce([record for shopper in shoppers for record in shopper.records()])
        await until(lambda: _has(world, expected))
    before = await world.content()
    ends = await world.kit.db.fetch("SELECT topic, partition, next FROM kit.positions ORDER BY 1, 2")
    await forget_positions(world)
    async with reading(world.kit):
        again = "SELECT topic, partition, next FROM kit.positions ORDER BY 1, 2"
        await until(lambda: _same(world, again, ends))
    assert await world.content() == before


async def _same(world: World, query: str, expected: Any) -> bool:
    return [tuple(row) for row in await world.kit.db.fetch(query)] == [tuple(row) for row in expected]


@pytest.mark.fault(6, "the inventory reads all in another order")
async def test_any_order_of_the_same_events_gives_the_same_rows(world: World) -> None:
    shopper = Shopper()
    order = shopper.order()
    times = [START + timedelta(hours=hour) for hour in (0, 5, 2, 5)]
    records = [*shopper.records(), *(record_of(shopper.order(), time) for time in times)]
    records += [record_of(shopper.registered(), time) for time in times]
    records += [record_of(disclosed(order, f"consignee.part{n}"), time) for n, time in enumerate(times)]
    seen = []
    for seed in range(4):
        random.Random(seed).shuffle(records)
        await _empty(world)
        for start in range(0, len(records), 3):
            await apply(world.kit, records[start : start + 3])
            await forget_positions(world)
        seen.append([row[:-1] for row in await world.content()])
    assert seen[0] == seen[1] == seen[2] == seen[3]
    fields = await world.kit.db.fetchval("SELECT fields FROM recipients")
    assert fields == sorted([f"consignee.part{n}" for n in range(4)] + ["consignee.name", "consignee.city"])


async def _empty(world: World) -> None:
    await world.sql("DELETE FROM inventory")
    await world.sql("DELETE FROM recipients")


@pytest.mark.fault(9, "headers that make no sense")
async def test_what_is_no_sensible_event_waits_in_quarantine_and_the_rest_is_noted(world: World) -> None:
    shopper = Shopper()
    good = record_of(shopper.registered())
    attributes = dict(good.headers)

    def spoilt(reason: str, headers: Sequence[tuple[str, Any]], record: OutRecord = good) -> tuple[str, OutRecord]:
        return reason, OutRecord(record.topic, str(uuid4()).encode(), record.value, headers)

    sealed = attributes["ce_sealed"]
    letter = record_of(disclosed(shopper.order(), "consignee.name"))
    poison = [
        spoilt("no_cloudevent", []),
        spoilt("null_header", [*good.headers, ("extra", None)]),
        spoilt("doubled_header", [*good.headers, ("ce_id", b"again")]),
        spoilt("unreadable_header", [*good.headers, ("extra", "é".encode())]),
        spoilt("bad_envelope", list({**attributes, "ce_sealed": b"[[[["}.items())),
        spoilt("bad_envelope", list({**attributes, "ce_time": b"yesterday"}.items())),
        spoilt("bad_envelope", list({**attributes, "ce_sealed": sealed.replace(b"identity", b'"')}.items())),
        spoilt("unknown_class", list({**attributes, "ce_sealed": sealed.replace(b"identity", b"shoe_size")}.items())),
        spoilt("wrong_producer", list({**attributes, "ce_source": b"order"}.items())),
        ("breaks_contract", OutRecord(letter.topic, letter.key, b"{}", letter.headers)),
    ]
    others = [Shopper() for _ in range(4)]
    async with reading(world.kit):
        records = [record for _, record in poison]
        await world.produce([*records, *(record for other in others for record in other.records()), good])
        await until(lambda: _has(world, {row for other in others for row in other.holdings()}))
        await until(lambda: _count(world, "SELECT count(*) FROM kit.quarantine", len(poison)))
    reasons = await world.kit.db.fetch("SELECT reason FROM kit.quarantine")
    assert sorted(row["reason"] for row in reasons) == sorted(reason for reason, _ in poison)


@pytest.mark.parametrize("source", ["own", "third_party"])
async def test_no_bad_record_of_our_own_services_is_dropped(
    world: World, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    """Third parties' are only counted beyond a limit; our own reader keeps each, and stops at its limit."""
    monkeypatch.setattr(quarantine, "MAX_OUTSIDE", 2)
    monkeypatch.setattr(quarantine, "MAX_AGGREGATES", 4)
    good = record_of(Shopper().registered())
    is_own = source == "own"
    topic, consumes = (good.topic, INVENTORY) if is_own else ("review.events", THIRD_PARTIES)
    bad = [OutRecord(topic, str(uuid4()).encode(), good.value, []) for _ in range(7)]
    applier = Applier(world.kit, consumes)
    applier.next[topic, 0] = 0
    await load_positions(world.kit.db, consumes.reader, [(topic, 0)])
    read, is_full = as_read(bad), False
    for batch in (Batch(read[:3]), Batch(read[3:6]), Batch(read[6:])):
        try:
            await applier.apply(batch, applier.prepare(batch))
        except QuarantineFull:
            is_full = True
    kept = await world.kit.db.fetchval("SELECT count(*) FROM kit.quarantine")
    # Six before it stopped, and the seventh is still to be read; or two kept, and five counted.
    assert (kept, applier.next[topic, 0], is_full) == ((6, 6, True) if is_own else (2, 7, False))


async def _count(world: World, query: str, at_least: int) -> bool:
    return int(await world.kit.db.fetchval(query)) >= at_least


async def test_five_hundred_records_take_one_commit_and_two_statements(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Registrations first: the positions exist, and every later row is new.
    await apply(world.kit, [record_of(Shopper().registered())])
    await forget_positions(world)
    records = [record_of(Shopper().registered()) for _ in range(500)]
    statements: list[str] = []
    execute = Tx.execute

    async def counted(tx: Tx, sql: str, *args: Any) -> str:
        statements.append(sql.splitlines()[0])
        return await execute(tx, sql, *args)

    applier = Applier(world.kit, INVENTORY)
    applier.next[("account.events", 0)] = 0
    batch = Batch(as_read(records))
    with monkeypatch.context() as patched:
        patched.setattr(Tx, "execute", counted)
        await applier.apply(batch, applier.prepare(batch))
    assert statements == ["-- move_positions", "-- write_facts"]
    # All that was written, the position too, bears the number of one transaction.
    transactions = await world.kit.db.fetch(
        "SELECT xmin::text, count(*) AS rows FROM inventory GROUP BY 1"
        " UNION ALL SELECT xmin::text, 0 FROM kit.positions WHERE topic = 'account.events' ORDER BY 2"
    )
    position, first, batch_rows = transactions
    assert (first["rows"], batch_rows["rows"]) == (2, 1000)
    assert position["xmin"] == batch_rows["xmin"] != first["xmin"]
    assert world.vault.calls == 0
