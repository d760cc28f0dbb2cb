"""From order events to disclosures and carriers' messages. Each step does its work for the whole batch at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from event_contracts import Erased, Sealed
from event_contracts.logistics_gateway import DeliveryDisclosed
from event_contracts.order import Delivery, DeliveryCorrected, OrderCancelled, OrderPlaced
from logistics_gateway import store
from logistics_gateway.cancellations_store import remember, remembered
from logistics_gateway.domain import (
    CANCELLED,
    DATA_CLASS,
    ERASED,
    PURPOSE,
    Decision,
    State,
    decide,
    shipment_id_of,
    shipment_message,
)
from logistics_gateway.registrations import Wanted, keep, open_registrations, stated
from logistics_gateway.sending import Gateway, Marks, Outgoing, catch_up, mark, open_again, send
from logistics_gateway.stuck_events import emit_blocked, emit_unblocked, reasons
from servicekit import Kit, Opening, Received, Record, RecordId, Tx
from servicekit.core.faults import declare, faultpoint

declare("gateway.recorded")
_WITH_DELIVERY = (OrderPlaced, DeliveryCorrected)


# Structs: a frozen dataclass of this size takes ten times as long to make, and there is one for every record.
class Source(Struct, frozen=True):
    """An order with a version of its sealed delivery, and the record of `order.events` that it came in."""

    order_id: UUID
    subject_id: UUID
    delivery: Sealed[Delivery]
    number: int
    topic: str
    partition: int
    position: int
    ordered_at: datetime | None = None


class Prepared(Struct, frozen=True):
    """One order, decided: its line of the ledger and, if it leaves, its message in clear and the lane's fields."""

    row: store.Row
    fields: tuple[str, ...]
    message: bytes | None


class Draft(Struct, frozen=True):
    """What is kept for the event that has the last version of an order: its line, and its message if one is to leave.

    `registration_key_id`: the key of the registration that numbers in the message are from."""

    prepared: Prepared
    message: Outgoing | None
    registration_key_id: UUID | None = None


class Leaving(Struct, frozen=True):
    """What a batch has recorded and is to send: shipments and recalls; and what it has marked of those before."""

    shipments: list[Outgoing]
    recalls: list[Record]
    marks: Marks


async def prepare_orders(kit: Kit, events: Sequence[Received[Any]]) -> dict[RecordId, Draft]:
    """Opens all deliveries with one vault call, projects them and seals the messages; runs beside the batch before.

    Registrations, which few orders have, take a second call where a lane sends some of their numbers.
    """
    gateway = kit.context(Gateway)
    if gateway.behind:
        await catch_up(kit)
    sources = list(latest(events).values())
    read = gateway.routes.read
    openings = [Opening(s.delivery, Delivery, s.subject_id, s.order_id, read) for s in sources]
    opened = await kit.open_many(openings, purpose=PURPOSE) if openings else []
    registrations = await open_registrations(kit, _wanted(gateway, sources, opened), events)
    now = kit.clock.now()
    drafts: dict[RecordId, Draft] = {}
    for source, delivery in zip(sources, opened, strict=True):
        registration, key_id = registrations.get(source.order_id, (None, None))
        decision = decide(gateway.routes, delivery, registration=registration)
        prepared, message = prepare(kit, source, decision, now), None
        if prepared.message is not None and prepared.row.carrier is not None:
            record = gateway.seal_for(prepared.row.carrier, source.subject_id, prepared.message)
            keys = source.delivery.key_id, *((key_id,) if key_id else ())
            message = Outgoing(prepared.row.shipment_id, record, keys, source.number)
        drafts[source.topic, source.partition, source.position] = Draft(prepared, message, key_id)
    return drafts


def _wanted(gateway: Gateway, sources: Sequence[Source], opened: Sequence[Delivery | Erased]) -> list[Wanted]:
    return [
        Wanted(source.order_id, source.subject_id, gateway.routes.find(delivery))
        for source, delivery in zip(sources, opened, strict=True)
        if not isinstance(delivery, Erased)
    ]


def latest(events: Iterable[Received[Any]]) -> dict[UUID, Source]:
    """The version of each order's delivery with the highest number, by order; the first to come of equal ones."""
    sources: dict[UUID, Source] = {}
    for received in events:
        order = received.event
        if type(order) in _WITH_DELIVERY:
            number = order.number if type(order) is DeliveryCorrected else 1
            before = sources.get(order.order_id)
            if before is None or before.number < number:
                place = (received.topic, received.partition, received.offset)
                # Of several versions in one batch the first says when the order was placed.
                at = received.time if before is None or before.ordered_at is None else before.ordered_at
                sources[order.order_id] = Source(order.order_id, order.consignee_id, order.delivery, number, *place, at)
    return sources


def prepare(kit: Kit, source: Source, decision: Decision, now: datetime) -> Prepared:
    """The line of the ledger for a decision, and the message if it is to leave."""
    gateway = kit.context(Gateway)
    shipment_id = shipment_id_of(source.order_id)
    message = digest = retry = None
    not_after = decision.not_after(now)
    if not_after is not None and decision.shipment is not None:
        message = shipment_message(shipment_id, not_after, decision.shipment, source.number)
        digest = gateway.reply_key.digest(shipment_id, message)
    if decision.state is State.BLOCKED:
        retry = now + timedelta(seconds=gateway.settings.blocked_retry_seconds)
    lane = None if decision.route is None else decision.route.lane
    row = store.Row(
        shipment_id=shipment_id,
        order_id=source.order_id,
        subject_id=source.subject_id,
        state=decision.state.value,
        reason=decision.reason,
        carrier=None if lane is None else lane.carrier,
        lane=None if lane is None else lane.id,
        lane_version=None if lane is None else lane.version,
        policy_version=kit.policy.version,
        data_class=DATA_CLASS,
        purpose=PURPOSE,
        fields=",".join(decision.fields),
        digest=digest,
        not_after=not_after,
        topic=source.topic,
        partition=source.partition,
        position=source.position,
        delivery=None if decision.state is State.WITHHELD else source.delivery.token,
        recorded_at=now,
        next_try_at=retry,
        key_id=source.delivery.key_id,
        number=source.number,
        ordered_at=source.ordered_at,
        blocked_since=None if retry is None else now,
    )
    return Prepared(row, decision.fields, message)


async def apply_orders(kit: Kit, tx: Tx, events: Sequence[Received[Any]], drafts: Mapping[RecordId, Draft]) -> Leaving:
    """Records the disclosures with one insert, marks what the batch before sent, corrects, cancels, and emits."""
    gateway = kit.context(Gateway)
    cancelled = {r.event.order_id for r in events if type(r.event) is OrderCancelled}
    drafted = [draft for received in events if (draft := drafts.get(received.record_id)) is not None]
    # An order that is cancelled or erased by the same time never leaves; a replayed event changes nothing.
    numbers = {sealed.key_id for _, sealed in stated(events).values()}
    numbers |= {draft.registration_key_id for draft in drafted if draft.registration_key_id is not None}
    revoked = await tx.revoked([*(draft.prepared.row.key_id for draft in drafted), *numbers])
    early = await remembered(tx, [draft.prepared.row.shipment_id for draft in drafted])
    wanted: list[Prepared] = []
    never: list[store.Row] = []
    for draft in drafted:
        row = draft.prepared.row
        if row.order_id in cancelled or row.shipment_id in early:
            never.append(withheld(row, CANCELLED))
        elif row.key_id in revoked:
            never.append(withheld(row, ERASED))
        elif draft.registration_key_id in revoked:
            # It leaves without the numbers, as soon as it is tried again.
            wanted.append(Prepared(unnumbered(row), (), None))
        else:
            wanted.append(draft.prepared)
    await keep(tx, events, revoked)
    leaving = await store.record(tx, [*(prepared.row for prepared in wanted), *never])
    # Not at the beginning: while Postgres marks, the next batch is opened, for which the vault is asked now.
    marks = gateway.marks.copy()
    await mark(kit, tx, marks)
    later = [p.row for p in wanted if p.row.order_id not in leaving and p.row.delivery]
    blocked = [p.row for p in wanted if p.row.order_id in leaving and p.row.state == State.BLOCKED.value]
    corrected, waiting = await store.correct(tx, later)
    leaving |= {row["order_id"] for row in corrected}
    await emit_blocked(tx, [*((row.order_id, row.reason) for row in blocked), *reasons(waiting)])
    await emit_unblocked(tx, [row["order_id"] for row in corrected if row["was_blocked"]])
    gone = [shipment_id_of(order_id) for order_id in cancelled]
    recalls = await store.cancel(tx, gone, CANCELLED)
    await remember(tx, gone, kit.clock.now())
    leaving -= {row.order_id for row in never}
    await emit_disclosed(tx, [prepared for prepared in wanted if prepared.row.order_id in leaving])
    faultpoint("gateway.recorded")
    shipments = [
        draft.message
        for draft in drafted
        if draft.message and draft.prepared.row.order_id in leaving and draft.registration_key_id not in revoked
    ]
    return Leaving(shipments, recalls, marks)


async def deliver_orders(kit: Kit, leaving: Leaving) -> None:
    """After the commit: sends the batch's new shipments and recalls with one produce round trip."""
    gateway = kit.context(Gateway)
    gateway.marks.forget(leaving.marks)
    recalls = [gateway.recall(row) for row in leaving.recalls if row["recall"] == "due"]
    await send(kit, [*leaving.shipments, *recalls])


async def emit_disclosed(tx: Tx, recorded: Sequence[Prepared]) -> None:
    """One `DeliveryDisclosed` for each line that is to leave."""
    await tx.emit(
        *(
            DeliveryDisclosed(
                order_id=row.order_id,
                shipment_id=row.shipment_id,
                subject_id=row.subject_id,
                carrier=row.carrier,
                lane=row.lane,
                lane_version=row.lane_version,
                policy_version=row.policy_version,
                data_class=row.data_class,
                purpose=row.purpose,
                fields=prepared.fields,
            )
            for prepared in recorded
            if (row := prepared.row).carrier is not None and row.lane is not None and row.lane_version is not None
        )
    )


def withheld(row: store.Row, reason: str) -> store.Row:
    """The line of an order that was cancelled or erased before anything could leave."""
    return replace(
        row,
        state=State.WITHHELD.value,
        reason=reason,
        carrier=None,
        lane=None,
        lane_version=None,
        fields="",
        digest=None,
        not_after=None,
        delivery=None,
        next_try_at=None,
        blocked_since=None,
    )


def unnumbered(row: store.Row) -> store.Row:
    """The line of an order whose registration was erased after its numbers were put into the message."""
    return replace(
        row,
        state=State.BLOCKED.value,
        reason="registration_erased",
        carrier=None,
        lane=None,
        lane_version=None,
        fields="",
        digest=None,
        not_after=None,
        next_try_at=row.recorded_at,
        blocked_since=row.recorded_at,
    )


async def retry_blocked(kit: Kit) -> None:
    """Job: blocked lines are decided anew, by the lanes in force now; those that can leave are recorded and sent."""
    now = kit.clock.now()
    while page := await store.blocked(kit.db, now):
        decisions = await open_again(kit, page, by_stored_lane=False)
        pairs = list(zip(page, decisions, strict=True))
        sendable = [prepare(kit, _source(row), d, now) for row, d in pairs if d.state is State.RECORDED]
        erased = [row["shipment_id"] for row, d in pairs if d.state is State.WITHHELD]
        still = {row["shipment_id"]: d.reason or "unknown" for row, d in pairs if d.state is State.BLOCKED}
        await kit.run_tx("retry_blocked", _retried(kit, sendable, erased, still, now))
    # What is recorded now is sent by the job that looks for lines nobody has sent.


def _retried(
    kit: Kit, sendable: Sequence[Prepared], erased: Sequence[UUID], still: dict[UUID, str], now: datetime
) -> Callable[[Tx], Awaitable[None]]:
    gateway = kit.context(Gateway)

    async def work(tx: Tx) -> None:
        changed = await store.record_again(tx, [prepared.row for prepared in sendable])
        await emit_disclosed(tx, [prepared for prepared in sendable if prepared.row.order_id in changed])
        await emit_unblocked(tx, changed)
        await store.withhold(tx, erased, ERASED)
        retry_at = now + timedelta(seconds=gateway.settings.blocked_retry_seconds)
        await emit_blocked(tx, reasons(await store.block(tx, still, retry_at, now)))

    return work


def _source(row: Record) -> Source:
    place = (row["topic"], row["partition"], row["position"])
    return Source(row["order_id"], row["subject_id"], Sealed(row["delivery"]), row["number"], *place)
