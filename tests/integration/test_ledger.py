"""The disclosure ledger and what leaves, step by step on Postgres, with a wire in the place of Kafka."""

import json
from uuid import UUID

from logistics_gateway.domain import shipment_id_of
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
    assert (line["carrier"], line["lane"], line["lane_version"]) == ("meridian", "meridian-world-standard", 1)
    assert (line["data_class"], line["purpose"]) == ("delivery", "delivery")
    assert (line["policy_version"], len(line["digest"])) == (kit.policy.version, 32)
    (row,) = await kit.db.fetch("SELECT body FROM kit.outbox")
    assert json.loads(row["body"])["fields"] == line["fields"]
