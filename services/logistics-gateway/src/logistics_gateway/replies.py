"""What carriers answer: opened, checked against the ledger, noted once, and published as shipment events."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TypeAlias
from uuid import UUID

from event_contracts import Event, Sealed
from event_contracts.carrier import CarrierReply, RefusalReason, ReplyKind, tracking_host
from event_contracts.logistics_gateway import (
    Progress,
    ShipmentAcknowledged,
    ShipmentDelivered,
    ShipmentHandedOver,
    ShipmentProgressed,
    ShipmentRefused,
    ShipmentTracked,
    Tracking,
)
from event_contracts.moments import EARLIEST, IMPLAUSIBLE, bounded, is_plausible
from logistics_gateway import replies_store
from logistics_gateway.erasures import tell
from logistics_gateway.progress import STEPS, Step
from logistics_gateway.sending import Gateway
from servicekit import Kit, Received, Record, RecordId, Tx, get_log
from servicekit.core.errors import Poison
from servicekit.core.logs import code
from servicekit.core.metrics import EARLY_REPLIES_DROPPED
from servicekit.kafka.cloudevents import RawRecord

log = get_log("replies")
# Kafka keeps replies for 72 hours: an older one cannot be about an order that is still to be read again.
EARLY_REPLIES_KEPT = timedelta(hours=96)

ByKind: TypeAlias = dict[ReplyKind, list[replies_store.Answer]]
Trackings: TypeAlias = Mapping[RecordId, Sealed[Tracking]]

# Kinds with an event of their own; the others become a `ShipmentProgressed`. The answer to an erasure goes to the privacy service.
EVENTS: Mapping[ReplyKind, Callable[[Record], Event]] = {
    ReplyKind.REFUSED: lambda row: ShipmentRefused(
        **_ids(row), carrier=row["carrier"], reason=RefusalReason(row["refusal"] or RefusalReason.OTHER)
    ),
    ReplyKind.ACKNOWLEDGED: lambda row: ShipmentAcknowledged(**_ids(row), carrier=row["carrier"]),
    ReplyKind.HANDED_OVER: lambda row: ShipmentHandedOver(**_ids(row), at=row["at"]),
    ReplyKind.DELIVERED: lambda row: ShipmentDelivered(**_ids(row), at=row["at"]),
}
KINDS = (*STEPS, ReplyKind.ERASED)


def read_reply(kit: Kit, record: RawRecord) -> Received[CarrierReply] | None:
    """Opens a reply; None for a kind that this version does not know. Raises `Poison` if it is not sealed to us or no reply."""
    gateway = kit.context(Gateway)
    reply = gateway.reply_key.open_reply(record.value)
    return None if reply is None else Received(reply, reply.reply_id, reply.at, carrier_of(record.topic), *record.id)


def _is_plausible(shipment_id: UUID, at: datetime, since: Mapping[UUID, datetime], now: datetime) -> bool:
    """Whether a carrier can say so now: not of the time before the order, nor of a time that is still to come."""
    return is_plausible(at, since=since.get(shipment_id, EARLIEST), now=now)


async def prepare_replies(kit: Kit, events: Sequence[Received[CarrierReply]]) -> dict[RecordId, Sealed[Tracking]]:
    """Seals where parcels can be followed, with one vault call: for the consignee, and for nobody who is being erased."""
    gateway = kit.context(Gateway)
    named = {r.record_id: (r, tracking) for r in events if (tracking := tracking_of(gateway, r)) is not None}
    if not named:
        return {}
    lines = await replies_store.followed(kit.db, [received.event.shipment_id for received, _ in named.values()])
    wanted: dict[RecordId, tuple[Tracking, UUID, UUID]] = {}
    for record_id, (received, tracking) in named.items():
        line, step = lines.get(received.event.shipment_id), STEPS.get(received.event.kind)
        if line and step and _will_count(received, line, step, kit.clock.now()):
            wanted[record_id] = (tracking, line["subject_id"], line["order_id"])
    sealed = await kit.seal_living(list(wanted.values()))
    return {record_id: each for record_id, each in zip(wanted, sealed, strict=True) if each is not None}


def _will_count(received: Received[CarrierReply], line: Record, step: Step, now: datetime) -> bool:
    """Whether the reply is news, as far as is known. A key that no event names is destroyed after a day, and stays so."""
    is_ours = line["carrier"] == received.source and line["rank"] < step.rank
    return is_ours and is_plausible(received.event.at, since=bounded(line["since"]), now=now)


def tracking_of(gateway: Gateway, received: Received[CarrierReply]) -> Tracking | None:
    """What a reply says of following the parcel. A link that leads elsewhere than to its carrier's hosts is dropped."""
    number, url = received.event.tracking_number, received.event.tracking_url
    if url is not None and tracking_host(url) not in gateway.tracking_hosts.get(received.source, ()):
        url = None
    return None if number is None and url is None else Tracking(number=number, url=url)


async def apply_replies(kit: Kit, tx: Tx, events: Sequence[Received[CarrierReply]], trackings: Trackings) -> None:
    """Notes the replies, emits an event for each that is news. Raises `Poison` for those that name another's parcel,
    or a time that cannot be."""
    ids, now = [received.event.shipment_id for received in events], kit.clock.now()
    carriers, since = await replies_store.known(tx, ids), await replies_store.known_since(tx, ids)
    by_kind: ByKind = {kind: [] for kind in KINDS}
    wrong: dict[str, list[RecordId]] = {"wrong_carrier": [], IMPLAUSIBLE: []}
    for received in events:
        reply, carrier = received.event, received.source
        if carriers.get(reply.shipment_id, carrier) != carrier:
            wrong["wrong_carrier"].append(received.record_id)
        elif not _is_plausible(reply.shipment_id, reply.at, since, now):
            wrong[IMPLAUSIBLE].append(received.record_id)
        tracking = trackings.get(received.record_id)
        by_kind[reply.kind].append(replies_store.Answer(reply.shipment_id, carrier, reply.at, reply.reason, tracking))
    for reason, records in wrong.items():
        if records:
            raise Poison(reason, records)
    await note(tx, by_kind, carriers.keys(), now)


async def note(tx: Tx, by_kind: ByKind, known: Collection[UUID], now: datetime) -> None:
    """Replies about shipments that the ledger lacks are kept, so many of a carrier: after a restore the ledger is late.

    So are later ones about the same shipment, until the first are noted.
    """
    events: list[Event] = []
    for kind, answers in by_kind.items():
        # What an early reply says beyond its kind is not kept: the carrier's next one says it again.
        early = [answer for answer in answers if answer.shipment_id not in known]
        for carrier in await replies_store.keep_early(tx, kind, early, now) if early else ():
            EARLY_REPLIES_DROPPED.labels(carrier).inc()
        ours = [answer for answer in answers if answer.shipment_id in known]
        if kind is ReplyKind.ERASED:
            if told := await replies_store.erasures_answered(tx, ours):
                await tell(tx, told)
            continue
        news = await replies_store.answered(tx, kind, ours, now)
        events += [event_of(kind, row) for row in news]
        events += await _tracked(tx, news, ours)
    await tx.emit(*events)


def event_of(kind: ReplyKind, row: Record) -> Event:
    if kind in EVENTS:
        return EVENTS[kind](row)
    return ShipmentProgressed(**_ids(row), kind=Progress(kind.value), at=row["at"])


async def _tracked(tx: Tx, news: Sequence[Record], answers: Sequence[replies_store.Answer]) -> list[Event]:
    """Where the parcels of these news can be followed; what was fenced since it was sealed is left out."""
    named = {answer.shipment_id: answer.tracking for answer in answers if answer.tracking is not None}
    revoked = await tx.revoked([tracking.key_id for tracking in named.values()])
    return [
        ShipmentTracked(**_ids(row), subject_id=row["subject_id"], carrier=row["carrier"], tracking=tracking)
        for row in news
        if (tracking := named.get(row["shipment_id"])) is not None and tracking.key_id not in revoked
    ]


async def retry_early(kit: Kit) -> None:
    """Job: replies that came before their shipment was in the ledger (again); what nobody asked for is dropped."""
    now = kit.clock.now()

    async def work(tx: Tx) -> int:
        rows = await replies_store.take_early(tx)
        since = await replies_store.known_since(tx, [row["shipment_id"] for row in rows])
        by_kind: ByKind = {kind: [] for kind in KINDS}
        for row in rows:
            at = bounded(row["at"])
            if _is_plausible(row["shipment_id"], at, since, now):
                by_kind[ReplyKind(row["kind"])].append(replies_store.Answer(row["shipment_id"], row["carrier"], at))
            else:
                log.warning("early_reply_dropped", shipment_id=row["shipment_id"], reason=code(IMPLAUSIBLE))
        await note(tx, by_kind, await replies_store.known(tx, [row["shipment_id"] for row in rows]), now)
        return len(rows)

    async def drop(tx: Tx) -> int:
        return await replies_store.drop_early(tx, now - EARLY_REPLIES_KEPT)

    while await kit.run_tx("retry_early", work):
        pass
    dropped = await kit.run_tx("drop_early", drop)
    if dropped:
        log.warning("early_replies_dropped", count=dropped)


def carrier_of(topic: str) -> str:
    """The carrier whose topic this is, such as `carrier.meridian.replies`: nobody else can write to it."""
    return topic.split(".")[1]


def _ids(row: Record) -> dict[str, UUID]:
    return {"order_id": row["order_id"], "shipment_id": row["shipment_id"]}
