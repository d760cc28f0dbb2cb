"""The gateway step by step on a real Postgres, with a wire in the place of Kafka and a desk that opens what is on it."""

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
from event_contracts import Event
from event_contracts.carrier import CarrierReply, ReplyKind, replies_topic
from event_contracts.order import DeliveryCorrected, OrderPlaced, Registration
from event_contracts.privacy import TellRecipients
from lanes.loading import load_lanes
from logistics_gateway.app import ORDERS, RECIPIENTS, SERVICE
from logistics_gateway.domain import shipment_id_of
from logistics_gateway.erasures_store import erase
from logistics_gateway.replies import apply_replies, prepare_replies
from logistics_gateway.sending import make_gateway
from logistics_gateway.settings import GatewaySettings
from servicekit.core.policy import Policy
from servicekit.db.postgres import Tx
from servicekit.kafka.batches import Applier, Batch, Consumes
from servicekit.kafka.client import OutRecord
from servicekit.kafka.cloudevents import RawRecord, Received, to_headers
from servicekit.kit import Kit
from servicekit.participant.holdings import Erasure
from tests.support.carrier import Desk
from tests.support.deliveries import make_delivery
from tests.support.gateways import CARRIERS, LeasingVault, placed
from tests.support.kits import open_test_kit

POLICY = Path(__file__).parents[2] / "shared" / "policy"


@dataclass
class Wire:
    """Takes messages for the carriers, and notes what the ledger says at each send, as others see it.

    `is_cut` makes every send fail."""

    kit: Kit
    sent: list[OutRecord] = field(default_factory=list)
    recorded: list[list[tuple[UUID, str]]] = field(default_factory=list)
    is_cut: bool = False

    async def send(self, records: Sequence[OutRecord]) -> None:
        if self.is_cut:
            raise OSError
        rows = await self.kit.db.fetch("SELECT shipment_id, state::text FROM disclosures")
        self.recorded.append([(row["shipment_id"], row["state"]) for row in rows])
        self.sent += records


@pytest.fixture
async def kit(postgres_server: PostgresServer, tmp_path: Path) -> AsyncIterator[Kit]:
    for name in ("gateway", *CARRIERS):
        key = OKPKey.generate_key("X25519", parameters={"kid": f"{name}-1"}, private=True)
        (tmp_path / f"{name}.private").write_text(json.dumps(key.as_dict(private=True)))
        (tmp_path / f"{name}.json").write_text(json.dumps(key.as_dict(private=False)))
    settings = GatewaySettings(
        lanes_dir=POLICY / "lanes", carriers_dir=tmp_path, reply_key_file=tmp_path / "gateway.private"
    )
    dsns = postgres_server.create_system_database(f"gateway{uuid4().hex[:8]}")
    async with open_test_kit("logistics-gateway", dsns, settings, SERVICE.emits, [SERVICE.migrations]) as kit:
        own = make_gateway(settings, load_lanes(POLICY / "lanes"), kit.clock.boottime)
        vault: Any = LeasingVault()
        policy = Policy.load([POLICY / "policy.yaml"])
        own.tracking_hosts = {name: each.tracking_hosts for name, each in policy.recipients.items()}
        yield replace(kit, vault=vault, policy=policy, own=own)


@dataclass
class Order:
    """One order at the gateway: its buyer is nobody's business here."""

    kit: Kit
    order_id: UUID = field(default_factory=uuid4)
    subject_id: UUID = field(default_factory=uuid4)
    key_id: UUID = field(default_factory=uuid4)
    registration_key_id: UUID = field(default_factory=uuid4)

    @property
    def shipment_id(self) -> UUID:
        return shipment_id_of(self.order_id)

    async def placed(self, **delivery: Any) -> Event:
        (sealed,) = await self.kit.seal_many(
            [(make_delivery(**{"country": "GB"} | delivery), self.subject_id, self.order_id)]
        )
        self.key_id = sealed.key_id
        return placed(self.order_id, self.subject_id, sealed)

    async def placed_with(self, registration: Registration, **delivery: Any) -> OrderPlaced:
        """Its numbers are sealed apart, under a key of their own."""
        event = await self.placed(**delivery)
        (sealed,) = await self.kit.seal_many([(registration, self.subject_id, self.order_id)])
        self.registration_key_id = sealed.key_id
        assert isinstance(event, OrderPlaced)
        return event.model_copy(update={"registration": sealed})

    async def corrected(self, number: int, **delivery: Any) -> Event:
        (sealed,) = await self.kit.seal_many(
            [(make_delivery(**{"country": "GB"} | delivery), self.subject_id, self.order_id)]
        )
        return DeliveryCorrected(
            order_id=self.order_id, buyer_id=uuid4(), consignee_id=self.subject_id, number=number, delivery=sealed
        )

    async def erase(self, request_id: UUID) -> int:
        """What the kit does when the list of revocations names the delivery's key."""
        vault: Any = self.kit.vault
        vault.erased.add(self.key_id)

        async def work(tx: Tx) -> int:
            erasure = Erasure(request_id, self.subject_id, [self.key_id], is_final=True)
            return (await erase(tx, [erasure])).get(self.subject_id, 0)

        return await self.kit.run_tx("erase", work)

    async def line(self) -> dict[str, Any]:
        row = await self.kit.db.fetchrow("SELECT * FROM disclosures WHERE order_id = $1", self.order_id)
        return dict(row) if row is not None else {}


async def apply(kit: Kit, *events: Event, reader: Consumes = ORDERS) -> None:
    """The events as one batch of the reader, from wherever it is."""
    (topic,) = reader.topics
    await kit.db.fetch("INSERT INTO kit.positions VALUES ($1, $2, 0, 0) ON CONFLICT DO NOTHING", reader.reader, topic)
    begin: int = await kit.db.fetchval("SELECT next FROM kit.positions WHERE reader = $1", reader.reader)
    records = []
    for position, event in enumerate(events, start=begin):
        source = "privacy" if reader is RECIPIENTS else "order"
        headers = to_headers(event, event_id=uuid4(), source=source, time=datetime.now(UTC))
        key, value = str(event.partition_key).encode(), event.model_dump_json().encode()
        records.append(RawRecord(topic, 0, position, key, value, tuple(headers)))
    applier = Applier(kit, reader)
    applier.next = {(topic, 0): begin}
    batch = Batch(records)
    await applier.apply(batch, applier.prepare(batch))


async def ask(kit: Kit, request_id: UUID, subject_id: UUID) -> None:
    """The privacy service's `TellRecipients`."""
    await apply(kit, TellRecipients(request_id=request_id, subject_id=subject_id), reader=RECIPIENTS)


async def answer(kit: Kit, shipment_id: UUID, kind: ReplyKind, carrier: str = "meridian", **more: Any) -> None:
    """A carrier's reply, opened already."""
    await answer_all(kit, [CarrierReply(reply_id=uuid4(), kind=kind, shipment_id=shipment_id, **_now(more))], carrier)


async def answer_all(kit: Kit, replies: Sequence[CarrierReply], carrier: str = "meridian") -> None:
    """A carrier's replies in one batch."""
    received = [
        Received(reply, reply.reply_id, reply.at, carrier, replies_topic(carrier), 0, offset)
        for offset, reply in enumerate(replies)
    ]
    trackings = await prepare_replies(kit, received)

    async def work(tx: Tx) -> None:
        await apply_replies(kit, tx, received, trackings)

    await kit.run_tx("replies", work)


def _now(more: dict[str, Any]) -> dict[str, Any]:
    return {"at": datetime.now(UTC)} | more


def desk_of(kit: Kit, wire: Wire, carrier: str = "meridian") -> Desk:
    """A carrier's desk that has received all that is on the wire."""
    folder = kit.settings.carriers_dir  # type: ignore[attr-defined] # of the gateway's own settings
    desk = Desk((folder / f"{carrier}.private").read_text())
    for record in wire.sent:
        desk.receive(record.value, record.key)
    return desk


async def emitted(kit: Kit, kind: str) -> list[dict[str, Any]]:
    """The bodies of all events of a type, in order."""
    rows = await kit.db.fetch("SELECT headers, body FROM kit.outbox ORDER BY number")
    return [json.loads(r["body"]) for r in rows if json.loads(r["headers"])["ce_type"] == f"{kind}.v1"]
