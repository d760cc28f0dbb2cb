"""The disclosure ledger and what leaves, step by step on Postgres, with a wire in the place of Kafka."""

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from joserfc.jwk import OKPKey

from deploy.local.interfaces import PostgresServer
from logistics_gateway.app import ORDERS, SERVICE
from logistics_gateway.domain import shipment_id_of
from logistics_gateway.lanes import load_lanes
from logistics_gateway.sending import make_gateway
from logistics_gateway.settings import GatewaySettings
from servicekit.batches import Applier, Batch
from servicekit.cloudevents import RawRecord, to_headers
from servicekit.kafka import OutRecord
from servicekit.kit import Kit
from servicekit.policy import Policy
from tests.support.deliveries import make_delivery
from tests.support.gateways import CARRIERS, LeasingVault, placed
from tests.support.infra import postgres_server
from tests.support.kits import open_test_kit

__all__ = ["postgres_server"]

POLICY = Path(__file__).parents[2] / "shared" / "policy"


@dataclass
class Wire:
    """Takes messages for the carriers, and notes what the ledger says at each send, as others see it."""

    kit: Kit
    sent: list[OutRecord] = field(default_factory=list)
    recorded: list[list[tuple[UUID, str]]] = field(default_factory=list)

    async def send(self, records: Sequence[OutRecord]) -> None:
        rows = await self.kit.db.fetch("SELECT shipment_id, state::text FROM disclosures")
        self.recorded.append([(row["shipment_id"], row["state"]) for row in rows])
        self.sent += records


@pytest.fixture
async def kit(postgres_server: PostgresServer, tmp_path: Path) -> AsyncIterator[Kit]:
    for name in ("gateway", *CARRIERS):
        key = OKPKey.generate_key("X25519", parameters={"kid": f"{name}-1"}, private=True)
        (tmp_path / f"{name}.json").write_text(json.dumps(key.as_dict(private=name == "gateway")))
    settings = GatewaySettings(
        lanes_dir=POLICY / "lanes", carriers_dir=tmp_path, reply_key_file=tmp_path / "gateway.json"
    )
    dsns = postgres_server.create_system_database(f"gateway{uuid4().hex[:8]}")
    async with open_test_kit("logistics-gateway", dsns, settings, SERVICE.emits, [SERVICE.migrations]) as kit:
        own = make_gateway(settings, load_lanes(POLICY / "lanes"), kit.clock.boottime)
        vault: Any = LeasingVault()
        yield replace(kit, vault=vault, policy=Policy.load([POLICY / "policy.yaml"]), own=own)


async def apply_one_order(kit: Kit, position: int = 0) -> UUID:
    """One `OrderPlaced` as a batch. Returns the order's id."""
    order, consignee = uuid4(), uuid4()
    (sealed,) = await kit.seal_many([(make_delivery(country="GB"), consignee, order)])
    event = placed(order, consignee, sealed)
    headers = to_headers(event, event_id=uuid4(), source="order", time=datetime.now(UTC))
    key, value = str(event.partition_key).encode(), event.model_dump_json().encode()
    applier = Applier(kit, ORDERS)
    applier.next = {("order.events", 0): position}
    await kit.db.fetch("INSERT INTO kit.positions VALUES ($1, 'order.events', 0, 0)", ORDERS.reader)
    batch = Batch([RawRecord("order.events", 0, position, key, value, tuple(headers))])
    await applier.apply(batch, applier.prepare(batch))
    return order


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
