"""Sending what is recorded. A line goes from `recorded` to `sent` in the transaction after the send.

See docs/protocols.md#leaving-the-system.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from msgspec import Struct

from event_contracts import Erased, Sealed
from event_contracts.carrier import MessageKind, shipments_topic
from event_contracts.order import Delivery
from lanes.choice import Routes, make_routes
from lanes.lane import Lane, in_force
from lanes.loading import load_lanes
from lanes.projection import Route
from lanes.refusal import CannotShip
from logistics_gateway import erasures_store as erasures
from logistics_gateway import store
from logistics_gateway.carriers import Envelopes, ReplyKey, read_jwk
from logistics_gateway.domain import (
    DATA_CLASS,
    PURPOSE,
    Decision,
    State,
    decide,
    erasure_message,
    lane_kept,
    recall_message,
    shipment_message,
)
from logistics_gateway.erasures import tell
from logistics_gateway.registrations import Wanted, open_registrations
from logistics_gateway.settings import GatewaySettings
from logistics_gateway.stuck_events import emit_blocked, reasons
from servicekit import Kit, Opening, Record, Tx, get_log
from servicekit.core.errors import Misconfigured, Poison
from servicekit.core.faults import declare, faultpoint
from servicekit.core.logs import code
from servicekit.kafka.client import OutRecord, Producer

log = get_log("sending")
HEADERS = (("content-type", b"application/jose"),)
Place = tuple[str, int]

declare("gateway.sent", "gateway.caught_up", "gateway.stale_sent")


class Outgoing(Struct, frozen=True):
    """One message on its way out. `key_ids` are the keys whose leases allow it; none for a recall and for a notice of erasure.

    `number` is the version of the delivery in it."""

    shipment_id: UUID
    record: OutRecord
    key_ids: tuple[UUID, ...] = ()
    number: int = 1
    kind: MessageKind = MessageKind.SHIPMENT


@dataclass
class Marks:
    """What was sent and is yet to be marked in the ledger: versions of shipments, recalls, notices of erasure."""

    sent: list[tuple[UUID, int]] = field(default_factory=list)
    recalled: list[UUID] = field(default_factory=list)
    told: list[UUID] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.sent or self.recalled or self.told)

    def add(self, messages: Iterable[Outgoing]) -> None:
        for message in messages:
            if message.kind is MessageKind.RECALL:
                self.recalled.append(message.shipment_id)
            elif message.kind is MessageKind.ERASURE:
                self.told.append(message.shipment_id)
            else:
                self.sent.append((message.shipment_id, message.number))

    def copy(self) -> Marks:
        return Marks([*self.sent], [*self.recalled], [*self.told])

    def forget(self, marked: Marks) -> None:
        """What is marked in the database need not be remembered."""
        sent, recalled, told = set(marked.sent), set(marked.recalled), set(marked.told)
        self.sent[:] = [version for version in self.sent if version not in sent]
        self.recalled[:] = [shipment_id for shipment_id in self.recalled if shipment_id not in recalled]
        self.told[:] = [shipment_id for shipment_id in self.told if shipment_id not in told]


@dataclass
class Gateway:
    """What one process of the gateway holds: lanes, keys, a producer, and what it sent but has yet to mark."""

    settings: GatewaySettings
    routes: Routes
    reply_key: ReplyKey
    envelopes: Mapping[str, Envelopes]
    record_keys: Mapping[str, Callable[[UUID], bytes]]
    producer: Producer
    tracking_hosts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    places: list[Place] = field(default_factory=list)
    marks: Marks = field(default_factory=Marks)
    behind: bool = False
    sending: asyncio.Lock = field(default_factory=asyncio.Lock)

    def seal_for(self, carrier: str, subject_id: UUID, message: bytes) -> OutRecord:
        """The record for a carrier's topic: key, JWE, and no header that says anything."""
        key = self.record_keys[carrier](subject_id)
        return OutRecord(shipments_topic(carrier), key, self.envelopes[carrier].seal(message), HEADERS)

    def recall(self, row: Record) -> Outgoing:
        message = recall_message(row["shipment_id"], row["not_after"])
        record = self.seal_for(row["carrier"], row["subject_id"], message)
        return Outgoing(row["shipment_id"], record, kind=MessageKind.RECALL)

    def erasure(self, row: Record) -> Outgoing:
        message = erasure_message(row["shipment_id"], row["not_after"])
        record = self.seal_for(row["carrier"], row["subject_id"], message)
        return Outgoing(row["shipment_id"], record, kind=MessageKind.ERASURE)


@asynccontextmanager
async def open_gateway(kit: Kit) -> AsyncIterator[Gateway]:
    """Loads lanes and keys. Raises `Misconfigured` for lanes that the policy or the carriers' keys do not cover."""
    settings = kit.settings
    if not isinstance(settings, GatewaySettings) or settings.lanes_dir is None or settings.carriers_dir is None:
        raise Misconfigured("The environment lacks LANES_DIR or CARRIERS_DIR: set them and start again.")
    settings.require("reply_key_file")
    lanes = load_lanes(settings.lanes_dir)
    recipients = kit.policy.classes[DATA_CLASS].recipients
    for lane in in_force(lanes):
        if lane.carrier not in recipients:
            raise Misconfigured(
                f"Lane {lane.id} sends to {lane.carrier}, who is no recipient of {DATA_CLASS} in the policy: "
                "add it there first."
            )
    gateway = make_gateway(settings, lanes, kit.clock.boottime)
    gateway.tracking_hosts = {name: each.tracking_hosts for name, each in kit.policy.recipients.items()}
    try:
        yield gateway
    finally:
        await gateway.producer.stop()


def make_gateway(settings: GatewaySettings, lanes: Sequence[Lane], now: Callable[[], float]) -> Gateway:
    """Raises `Misconfigured` when a carrier's key is missing or unusable."""
    if settings.carriers_dir is None or settings.reply_key_file is None:
        raise Misconfigured("The environment lacks CARRIERS_DIR or REPLY_KEY_FILE: set them and start again.")
    reply_key = ReplyKey(read_jwk(settings.reply_key_file))
    carriers = sorted({lane.carrier for lane in lanes})
    window = settings.agreement_seconds, settings.agreement_messages
    return Gateway(
        settings,
        make_routes(lanes),
        reply_key,
        {c: Envelopes(read_jwk(settings.carriers_dir / f"{c}.json"), now, *window) for c in carriers},
        {carrier: reply_key.record_keys(carrier) for carrier in carriers},
        Producer(settings),
    )


async def send(kit: Kit, messages: Sequence[Outgoing]) -> None:
    """Sends with one produce round trip, unless a lease has run out meanwhile: then all is opened and built again.

    Raises one of `Producer.ERRORS`; the lines stay `recorded` and `behind` has the next turn send them.
    """
    gateway = kit.context(Gateway)
    async with gateway.sending:
        if gateway.behind or not kit.vault.is_live(PURPOSE, {key_id for m in messages for key_id in m.key_ids}):
            await _catch_up(kit, gateway)
            return
        await _produce(gateway, messages)


async def catch_up(kit: Kit, places: Sequence[Place] | None = None) -> None:
    """Sends again, under the same ids, what the ledger says has not been sent; `places` are now this process's own."""
    gateway = kit.context(Gateway)
    async with gateway.sending:
        if places is not None:
            gateway.places = [*places]
        await _mark_now(kit, gateway)
        await _catch_up(kit, gateway)


async def _catch_up(kit: Kit, gateway: Gateway) -> None:
    gateway.behind = True
    while page := await store.unsent(kit.db, gateway.places, gateway.marks.sent):
        await _produce(gateway, await build_again(kit, page))
    while page := await store.recalls_due(kit.db, gateway.marks.recalled):
        await _produce(gateway, [gateway.recall(row) for row in page])
    await _send_notices(kit, gateway)
    gateway.behind = False
    faultpoint("gateway.caught_up")


async def _send_notices(kit: Kit, gateway: Gateway) -> None:
    while page := await erasures.erasures_due(kit.db, gateway.marks.told):
        await _produce(gateway, [gateway.erasure(row) for row in page])


async def _produce(gateway: Gateway, messages: Sequence[Outgoing]) -> None:
    try:
        await gateway.producer.send([message.record for message in messages])
    except Exception:
        gateway.behind = True
        raise
    faultpoint("gateway.sent")
    gateway.marks.add(messages)


async def build_again(kit: Kit, rows: Sequence[Record]) -> list[Outgoing]:
    """The messages of recorded lines, by their stored lane version. What cannot or may not leave now is marked so."""
    gateway = kit.context(Gateway)
    now = kit.clock.now()
    messages: list[Outgoing] = []
    erased: list[UUID] = []
    blocked: dict[UUID, str] = {}
    for row, decision in zip(rows, await open_again(kit, rows, by_stored_lane=True), strict=True):
        shipment_id, sealed = row["shipment_id"], Sealed[Delivery](row["delivery"])
        if decision.state is State.WITHHELD:
            erased.append(shipment_id)
        elif decision.route is None or decision.shipment is None:
            blocked[shipment_id] = decision.reason or "unknown"
        elif row["not_after"] <= now:
            blocked[shipment_id] = "too_late"
        else:
            message = shipment_message(shipment_id, row["not_after"], decision.shipment, row["number"])
            if gateway.reply_key.digest(shipment_id, message) != row["digest"]:
                # The ledger would not say what left: it is recorded anew before anything leaves.
                blocked[shipment_id] = "differs_from_record"
                continue
            record = gateway.seal_for(decision.route.lane.carrier, row["subject_id"], message)
            messages.append(Outgoing(shipment_id, record, (sealed.key_id,), row["number"]))
    if erased or blocked:

        async def work(tx: Tx) -> None:
            await store.withhold(tx, erased, "erased")
            await emit_blocked(tx, reasons(await store.block(tx, blocked, now, now)))

        await kit.run_tx("build_again", work)
        log.warning("not_sent_again", erased=len(erased), blocked=len(blocked))
    return messages


async def open_again(kit: Kit, rows: Sequence[Record], *, by_stored_lane: bool) -> list[Decision]:
    """Opens the stored deliveries with one vault call and decides anew, or by the lane version that each row names."""
    gateway = kit.context(Gateway)
    openings = [Opening(Sealed[Delivery](r["delivery"]), Delivery, r["subject_id"], r["order_id"]) for r in rows]
    try:
        opened = await kit.open_many(openings, purpose=PURPOSE)
        routes = [
            _route_again(gateway, row, delivery, by_stored_lane=by_stored_lane)
            for row, delivery in zip(rows, opened, strict=True)
        ]
        registrations = await open_registrations(kit, _wanted(rows, routes))
    except Poison as poison:
        if len(rows) == 1:
            return [Decision(State.BLOCKED, poison.reason)]
        # One line that cannot be opened holds no other up.
        middle = len(rows) // 2
        halves = [await open_again(kit, half, by_stored_lane=by_stored_lane) for half in (rows[:middle], rows[middle:])]
        return [decision for half in halves for decision in half]
    decisions = []
    for row, delivery, route in zip(rows, opened, routes, strict=True):
        registration, _ = registrations.get(row["order_id"], (None, None))
        if isinstance(route, Decision):
            decisions.append(route)
        else:
            decisions.append(decide(gateway.routes, delivery, route, registration))
    return decisions


def _route_again(
    gateway: Gateway, row: Record, delivery: Delivery | Erased, *, by_stored_lane: bool
) -> Route | Decision | None:
    """The lane that a line leaves on now; what becomes of the line where there is none."""
    stored = (row["lane"], row["lane_version"])
    try:
        if by_stored_lane:
            return gateway.routes.version(*stored)
        kept = lane_kept(gateway.routes, delivery, row["carrier"], stored)
        return kept or (None if isinstance(delivery, Erased) else gateway.routes.find(delivery))
    except CannotShip as error:
        return Decision(State.BLOCKED, error.reason_code)


def _wanted(rows: Sequence[Record], routes: Sequence[Route | Decision | None]) -> list[Wanted]:
    return [
        Wanted(row["order_id"], row["subject_id"], route)
        for row, route in zip(rows, routes, strict=True)
        if isinstance(route, Route)
    ]


async def mark(kit: Kit, tx: Tx, marks: Marks) -> None:
    """Marks in the caller's transaction; have the gateway forget them once it is committed."""
    now = kit.clock.now()
    await store.mark_sent(tx, marks.sent, now)
    await store.mark_recalled(tx, marks.recalled, now)
    told = await erasures.mark_erasures(tx, marks.told, now)
    if told:
        await tell(tx, told)


async def idle(kit: Kit) -> None:
    """When nothing arrives: send what is behind and what an erasure left to tell, mark what was sent."""
    gateway = kit.context(Gateway)
    if gateway.behind:
        await catch_up(kit)
    else:
        async with gateway.sending:
            await _send_notices(kit, gateway)
    await _mark_now(kit, gateway)


async def _mark_now(kit: Kit, gateway: Gateway) -> None:
    marks = gateway.marks.copy()
    if marks:

        async def work(tx: Tx) -> None:
            await mark(kit, tx, marks)

        await kit.run_tx("mark_sent", work)
        gateway.marks.forget(marks)


async def send_stale(kit: Kit) -> None:
    """Job: lines recorded a while ago that nobody has sent, recalls and notices of erasure included, page by page."""
    gateway = kit.context(Gateway)
    before = kit.clock.now() - timedelta(seconds=gateway.settings.stale_seconds)
    while page := await store.stale(kit.db, before):
        log.warning("sending_stale", lines=len(page), carrier=code("any"))
        messages = await build_again(kit, page)
        await _send_and_mark(kit, messages)
    while page := await store.recalls_due(kit.db, ()):
        await _send_and_mark(kit, [gateway.recall(row) for row in page])
    await send_erasures(kit)


async def send_erasures(kit: Kit) -> None:
    """Job: tells carriers of erasures. A notice that is sent twice, by two processes, has one id."""
    gateway = kit.context(Gateway)
    while page := await erasures.erasures_due(kit.db, ()):
        await _send_and_mark(kit, [gateway.erasure(row) for row in page])


async def _send_and_mark(kit: Kit, messages: Sequence[Outgoing]) -> None:
    gateway = kit.context(Gateway)
    await gateway.producer.send([message.record for message in messages])
    faultpoint("gateway.stale_sent")
    marks = Marks()
    marks.add(messages)

    async def work(tx: Tx) -> None:
        await mark(kit, tx, marks)

    await kit.run_tx("mark_sent", work)
