"""The disclosure ledger and what leaves, step by step on Postgres, with a wire in the place of Kafka."""

import json
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from event_contracts.carrier import ReplyKind
from event_contracts.order import CancelReason, OrderCancelled
from logistics_gateway import replies_store
from logistics_gateway.cancellations import KEPT, cancel_late
from logistics_gateway.cancellations_store import remember
from logistics_gateway.domain import shipment_id_of
from servicekit.db.postgres import Tx
from servicekit.kit import Kit
from tests.support.infra import postgres_server
from tests.support.ledgers import Order, Wire, apply, kit

__all__ = ["kit", "postgres_server"]


async def apply_one_order(kit: Kit) -> UUID:
    """One `OrderPlaced` as a batch. Returns the order's id."""
    order = Order(kit)
    await apply(kit, await order.placed())
    return order.order_id


async def test_a_disclosure_is_committed_before_its_message_leaves(kit: Kit) -> None:
    """L9: what leaves is recorded before it is sent, so a crash between the two forgets nothing that may have left."""
    wire = Wire(kit)
    kit.own.producer = wire
    order = await apply_one_order(kit)
    assert wire.recorded == [[(shipment_id_of(order), "recorded")]]
    assert [record.topic for record in wire.sent] == ["carrier.meridian.shipments"]


async def test_what_leaves_is_sealed_to_the_carrier_and_named_by_nobody(kit: Kit) -> None:
    """L1 and L2 hold on the carrier's own topic too: a JWE, under a key that only the gateway can compute."""
    wire = kit.own.producer = Wire(kit)
    order = await apply_one_order(kit)
    (record,) = wire.sent
    assert b"SW1A 1AA" not in record.value
    assert record.value.count(b".") == 4
    line = await kit.db.fetchrow("SELECT subject_id FROM disclosures WHERE order_id = $1", order)
    assert line is not None
    assert record.key not in (line["subject_id"].bytes, str(line["subject_id"]).encode())


async def test_a_disclosure_says_what_left_to_whom_and_why(kit: Kit) -> None:
    """L6."""
    kit.own.producer = Wire(kit)
    order = await apply_one_order(kit)
    line = await kit.db.fetchrow("SELECT * FROM disclosures WHERE order_id = $1", order)
    assert line is not None
    assert {"consignee.name", "consignee.lines", "consignee.city", "consignee.phone"} <= set(line["fields"])
    assert (line["carrier"], line["lane"], line["lane_version"]) == ("meridian", "meridian-world-standard", 2)
    assert (line["data_class"], line["purpose"]) == ("delivery", "delivery")
    assert (line["policy_version"], len(line["digest"])) == (kit.policy.version, 32)
    (row,) = await kit.db.fetch("SELECT body FROM kit.outbox")
    assert json.loads(row["body"])["fields"] == line["fields"]


def cancelled(order: Order) -> OrderCancelled:
    return OrderCancelled(order_id=order.order_id, buyer_id=uuid4(), reason=CancelReason.BY_BUYER)


@pytest.mark.fault(31, "a cancellation is read before its order")
async def test_an_order_whose_cancellation_came_first_never_leaves(kit: Kit) -> None:
    """Partitions are read side by side, and added ones move keys: the order of types is nobody's promise then."""
    wire = kit.own.producer = Wire(kit)
    first, corrected, other = Order(kit), Order(kit), Order(kit)
    await apply(kit, cancelled(first), cancelled(corrected))
    await apply(kit, await other.placed(), await first.placed(), await corrected.corrected(2))
    await apply(kit, await first.corrected(2), await corrected.placed())
    await cancel_late(kit)
    for order in (first, corrected):
        line = await order.line()
        assert (line["state"], line["reason"]) == ("withheld", "cancelled")
        assert (line["recall"], line["delivery"]) == (None, None)
    assert len(wire.sent) == 1
    assert (await other.line())["recall"] is None


@pytest.mark.fault(31, "a cancellation is read beside its order")
async def test_an_order_that_is_recorded_while_its_cancellation_is_remembered_is_recalled(kit: Kit) -> None:
    kit.own.producer = Wire(kit)
    order = Order(kit)

    async def beside(tx: Tx) -> None:
        """Another process has the cancellation, and sees the order as little as this one sees the cancellation."""
        await remember(tx, [order.shipment_id], kit.clock.now())
        await apply(kit, await order.placed())

    await kit.run_tx("beside", beside)
    await cancel_late(kit)
    assert (await order.line())["recall"] == "due"


async def test_a_cancellation_is_forgotten_when_its_order_cannot_come_any_more(kit: Kit) -> None:
    old, young = uuid4(), uuid4()

    async def work(tx: Tx) -> None:
        await remember(tx, [old], kit.clock.now() - KEPT - timedelta(days=1))
        await remember(tx, [young], kit.clock.now() - KEPT + timedelta(days=1))

    await kit.run_tx("remember", work)
    await cancel_late(kit)
    assert [row["shipment_id"] for row in await kit.db.fetch("SELECT shipment_id FROM early_cancellations")] == [young]


@pytest.mark.fault(18, "a carrier speaks of endless unknown shipments")
@pytest.mark.attack(
    "fill the gateway with replies about unknown shipments", expected="so many are kept of each carrier"
)
async def test_so_many_replies_of_a_carrier_wait_for_their_shipment(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replies_store, "MOST_EARLY", 3)
    now = kit.clock.now()

    async def keep(carrier: str, count: int) -> list[str]:
        answers = [replies_store.Answer(uuid4(), carrier, now) for _ in range(count)]
        return await kit.run_tx("keep", lambda tx: replies_store.keep_early(tx, ReplyKind.ACKNOWLEDGED, answers, now))

    assert await keep("pacifica", 2) == []
    assert await keep("pacifica", 3) == ["pacifica"] * 2
    assert await keep("pacifica", 1) == ["pacifica"]
    assert await keep("meridian", 3) == []
    assert await kit.db.fetchval("SELECT count(*) FROM early_replies") == 6
