"""Bad records at the gateway, step by step on Postgres: what stands behind them, and what does not wait for them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from event_contracts.carrier import replies_topic
from event_contracts.order import ORDER_EVENTS, CancelReason, OrderCancelled
from logistics_gateway.app import ORDERS, REPLIES
from servicekit.core.metrics import IGNORED
from servicekit.core.policy import Policy
from servicekit.kafka import quarantine_command
from servicekit.kafka.batches import Applier, Batch
from servicekit.kafka.cloudevents import RawRecord, to_headers
from servicekit.kafka.replay import discard, tend
from servicekit.kit import Kit
from tests.support.carrier import seal_reply
from tests.support.infra import postgres_server
from tests.support.ledgers import Order, Wire, apply, emitted, kit
from tests.support.positions import load_positions

__all__ = ["kit", "postgres_server"]

CARRIER = "meridian"
TOPIC = replies_topic(CARRIER)
IN_CLEAR = b'{"kind": "delivered", "consignee": "Jane Canary"}'


class Replies:
    """The carrier's topic, with its reader."""

    def __init__(self, kit: Kit) -> None:
        self.kit, self.end = kit, 0
        self.gateway = (kit.settings.carriers_dir / "gateway.json").read_text()  # type: ignore[attr-defined]
        self.order = Order(kit)
        self.reader = next(each for each in REPLIES if each.topics == (TOPIC,))
        self.applier = Applier(kit, self.reader)

    async def open(self) -> "Replies":
        self.kit.own.producer = Wire(self.kit)
        await apply(self.kit, await self.order.placed())
        self.applier.next = await load_positions(self.kit.db, self.reader.reader, [(TOPIC, 0)])
        return self

    def sealed(self, kind: str, **more: Any) -> bytes:
        return seal_reply(self.gateway, CARRIER, self.order.shipment_id, kind, datetime.now(UTC), **more)

    async def read(self, values: Sequence[bytes]) -> None:
        """One batch of records about one shipment."""
        key = str(self.order.shipment_id).encode()
        records = [RawRecord(TOPIC, 0, offset, key, value, ()) for offset, value in enumerate(values, self.end)]
        self.end += len(values)
        batch = Batch(records)
        await self.applier.apply(batch, self.applier.prepare(batch))

    async def waiting(self) -> int:
        count: int = await self.kit.db.fetchval("SELECT count(*) FROM kit.quarantine WHERE ended_at IS NULL")
        return count


@pytest.mark.attack("a carrier sends a reply in clear before its good ones", expected="the good ones count")
@pytest.mark.fault(30, "a reply in clear, then good ones about the same shipment")
async def test_a_bad_reply_keeps_none_of_the_good_ones_back(kit: Kit) -> None:
    replies = await Replies(kit).open()
    await replies.read([IN_CLEAR, *map(replies.sealed, ("acknowledged", "handed_over", "delivered"))])
    for kind in ("ShipmentAcknowledged", "ShipmentHandedOver", "ShipmentDelivered"):
        assert len(await emitted(kit, kind)) == 1
    assert (await replies.order.line())["delivered_at"] is not None
    assert await replies.waiting() == 1


@pytest.mark.fault(30, "replies of a kind that nobody knows, then a good one")
async def test_unknown_kinds_and_extra_fields_cost_nothing(kit: Kit) -> None:
    replies = await Replies(kit).open()
    ignored = IGNORED.labels(TOPIC)._value.get()
    await replies.read([replies.sealed("customs_cleared", depot="Jane Canary's") for _ in range(20)])
    await replies.read([replies.sealed("delivered", signed_by="Jane Canary", reason=["Jane Canary"])])
    assert IGNORED.labels(TOPIC)._value.get() - ignored == 20
    assert (await replies.order.line())["delivered_at"] is not None
    assert await replies.waiting() == 0


@pytest.mark.fault(30, "hundreds of replies of one kind about one parcel, then its end")
async def test_a_carrier_that_repeats_itself_costs_one_event_and_its_end_is_read(kit: Kit) -> None:
    replies = await Replies(kit).open()
    again = replies.sealed("in_transit", depot="Jane Canary's")
    for _ in range(5):
        await replies.read([again] * 200)
    await replies.read([replies.sealed("delivered")])
    assert len(await emitted(kit, "ShipmentProgressed")) == 1
    assert (await replies.order.line())["progress"] == "delivered"
    assert await replies.waiting() == 0


@pytest.mark.attack("a carrier floods its replies with garbage", expected="its next good reply counts; nobody waits")
@pytest.mark.fault(30, "1,100 records in clear, then a good reply; the operator puts the bad ones away")
async def test_a_flood_of_bad_replies_leaves_the_good_one_readable_and_can_be_put_away(
    kit: Kit, capsys: pytest.CaptureFixture[str]
) -> None:
    replies = await Replies(kit).open()
    for _ in range(11):
        await replies.read([IN_CLEAR] * 100)
    await replies.read([replies.sealed("delivered")])
    assert (await replies.order.line())["delivered_at"] is not None
    assert await replies.waiting() == 1_000
    given = f"discard --reader {replies.reader.reader} --cause reply_not_sealed_to_us --reason not_for_us --by operator"
    await quarantine_command.run(kit, REPLIES, quarantine_command.parse("gateway", given.split()))
    assert capsys.readouterr().out == "1000 discarded\n"
    assert await replies.waiting() == 0


async def test_replies_about_another_carriers_parcel_are_set_aside_in_one_go(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever their number: a batch is not halved down to each of them."""
    tries, transact = [], Applier._transact

    async def counted(applier: Applier, batch: Batch) -> Any:
        tries.append(len(batch.records))
        return await transact(applier, batch)

    replies = await Replies(kit).open()
    await kit.db.fetch("UPDATE disclosures SET carrier = 'pacifica'")
    foreign = [replies.sealed("delivered") for _ in range(10)]
    replies.order.order_id = uuid4()
    await apply(kit, await replies.order.placed())
    monkeypatch.setattr(Applier, "_transact", counted)
    await replies.read([*foreign, replies.sealed("delivered")])
    assert tries == [11, 11]
    assert ((await replies.order.line())["delivered_at"] is not None, await replies.waiting()) == (True, 10)


@pytest.mark.fault(36, "poison, then an order and its cancellation, in one batch of the gateway")
async def test_an_order_behind_poison_does_not_leave_and_its_cancellation_is_not_lost(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is sent before the operator decides; then both take their effect in their order."""
    wire = kit.own.producer = Wire(kit)
    bad, other = Order(kit), Order(kit)
    cancelled = OrderCancelled(order_id=bad.order_id, buyer_id=uuid4(), reason=CancelReason.BY_BUYER)
    records = [RawRecord(ORDER_EVENTS, 0, 0, str(bad.order_id).encode(), b"poison", ())]
    for offset, event in enumerate((await bad.placed(), cancelled, await other.placed()), 1):
        headers = to_headers(event, event_id=uuid4(), source="order", time=datetime.now(UTC))
        key, value = str(event.partition_key).encode(), event.model_dump_json().encode()
        records.append(RawRecord(ORDER_EVENTS, 0, offset, key, value, tuple(headers)))
    applier = Applier(kit, ORDERS)
    applier.next = await load_positions(kit.db, ORDERS.reader, [(ORDER_EVENTS, 0)])
    batch = Batch(records)
    await applier.apply(batch, applier.prepare(batch))
    assert (await bad.line(), len(wire.sent)) == ({}, 1)
    number = await kit.db.fetchval("SELECT min(number) FROM kit.quarantine")
    await discard(kit, ORDERS.reader, [number], "operator", "unreadable")
    # The gateway may not open its own quarantine, and there is no Kafka here to read from again.
    monkeypatch.setattr(Policy, "may_open", lambda *_: True)
    await tend(kit, [ORDERS])
    line = await bad.line()
    assert (line["state"], line["recall"], line["reason"]) == ("sent", "due", "cancelled")
    assert await kit.db.fetchval("SELECT count(*) FROM kit.quarantine WHERE ended_at IS NULL") == 0
