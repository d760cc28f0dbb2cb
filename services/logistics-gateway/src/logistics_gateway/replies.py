"""What carriers answer: opened, checked against the ledger, noted once, and published as shipment events."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeAlias
from uuid import UUID

from event_contracts import Event
from event_contracts.carrier import CarrierReply, ReplyKind
from event_contracts.logistics_gateway import (
    ShipmentAcknowledged,
    ShipmentDelivered,
    ShipmentHandedOver,
    ShipmentRefused,
)
from event_contracts.moments import EARLIEST, IMPLAUSIBLE, bounded, is_plausible
from logistics_gateway import store
from logistics_gateway.erasures.handlers import tell
from logistics_gateway.sending import Gateway
from servicekit.cloudevents import RawRecord
from servicekit.consuming import Received, RecordId
from servicekit.errors import Poison
from servicekit.kit import Kit
from servicekit.logs import code, get_log
from servicekit.metrics import EARLY_REPLIES_DROPPED
from servicekit.postgres import Record, Tx

log = get_log("replies")
# Kafka keeps replies for 72 hours: an older one cannot be about an order that is still to be read again.
EARLY_REPLIES_KEPT = timedelta(hours=96)

ByKind: TypeAlias = dict[ReplyKind, list[store.Answer]]

# In the order in which a shipment goes through them. The answer to an erasure goes back to whoever asked for it.
EVENTS: Mapping[ReplyKind, Callable[[Record], Event]] = {
    ReplyKind.REFUSED: lambda row: ShipmentRefused(**_ids(row), carrier=row["carrier"]),
    ReplyKind.ACKNOWLEDGED: lambda row: ShipmentAcknowledged(**_ids(row), carrier=row["carrier"]),
    ReplyKind.HANDED_OVER: lambda row: ShipmentHandedOver(**_ids(row), at=row["at"]),
    ReplyKind.DELIVERED: lambda row: ShipmentDelivered(**_ids(row), at=row["at"]),
}
KINDS = (*EVENTS, ReplyKind.ERASED)


def read_reply(kit: Kit, record: RawRecord) -> Received[CarrierReply] | None:
    """Opens a reply; None for a kind that this version does not know. Raises `Poison` if it is not sealed to us or no reply."""
    gateway: Gateway = kit.own
    reply = gateway.reply_key.open_reply(record.value)
    return None if reply is None else Received(reply, reply.reply_id, reply.at, carrier_of(record.topic), *record.id)


def _is_plausible(shipment_id: UUID, at: datetime, since: Mapping[UUID, datetime], now: datetime) -> bool:
    """Whether a carrier can say so now: not of the time before the order, nor of a time that is still to come."""
    return is_plausible(at, since=since.get(shipment_id, EARLIEST), now=now)


async def apply_replies(kit: Kit, tx: Tx, events: Sequence[Received[CarrierReply]], _: Mapping[RecordId, Any]) -> None:
    """Notes the replies, emits an event for each that is news. Raises `Poison` for those that name another's parcel,
    or a time that cannot be."""
    ids, now = [received.event.shipment_id for received in events], kit.clock.now()
    carriers, since = await store.known(tx, ids), await store.known_since(tx, ids)
    by_kind: ByKind = {kind: [] for kind in KINDS}
    wrong: dict[str, list[RecordId]] = {"wrong_carrier": [], IMPLAUSIBLE: []}
    for received in events:
        reply, carrier = received.event, received.source
        if carriers.get(reply.shipment_id, carrier) != carrier:
            wrong["wrong_carrier"].append(received.record_id)
        elif not _is_plausible(reply.shipment_id, reply.at, since, now):
            wrong[IMPLAUSIBLE].append(received.record_id)
        by_kind[reply.kind].append(store.Answer(reply.shipment_id, carrier, reply.at))
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
        early = [answer for answer in answers if answer.shipment_id not in known]
        for carrier in await store.keep_early(tx, kind, early, now) if early else ():
            EARLY_REPLIES_DROPPED.labels(carrier).inc()
        ours = [answer for answer in answers if answer.shipment_id in known]
        news = await store.answered(tx, kind, ours)
        if kind is not ReplyKind.ERASED:
            events += map(EVENTS[kind], news)
        elif news:
            await tell(tx, {row["subject_id"] for row in news})
    await tx.emit(*events)


async def retry_early(kit: Kit) -> None:
    """Job: replies that came before their shipment was in the ledger (again); what nobody asked for is dropped."""
    now = kit.clock.now()

    async def work(tx: Tx) -> int:
        rows = await store.take_early(tx)
        since = await store.known_since(tx, [row["shipment_id"] for row in rows])
        by_kind: ByKind = {kind: [] for kind in KINDS}
        for row in rows:
            at = bounded(row["at"])
            if _is_plausible(row["shipment_id"], at, since, now):
                by_kind[ReplyKind(row["kind"])].append(store.Answer(row["shipment_id"], row["carrier"], at))
            else:
                log.warning("early_reply_dropped", shipment_id=row["shipment_id"], reason=code(IMPLAUSIBLE))
        await note(tx, by_kind, await store.known(tx, [row["shipment_id"] for row in rows]), now)
        return len(rows)

    async def drop(tx: Tx) -> int:
        return await store.drop_early(tx, now - EARLY_REPLIES_KEPT)

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
