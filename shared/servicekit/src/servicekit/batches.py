"""Batches: what happens to the records between Kafka and the database.

A batch goes through three steps. *Prepare* (decode, open, project) runs beside the batch before it. *Apply* runs in order, in one
transaction with the reader's positions. *Deliver* runs after the commit, in order. A batch that fails is halved until the record
that fails stands alone; that one is tried again with growing pauses and then goes to quarantine. When a service it needs is
away, the reader waits; it never skips.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from uuid import UUID

from event_contracts import Event
from servicekit.cloudevents import RawRecord, Received, read_event, types_of
from servicekit.errors import DeliveryFailed, Fenced, Poison, PositionLost, TooMany, Unavailable
from servicekit.faults import declare, faultpoint
from servicekit.inbox import Place, first_time, move_positions
from servicekit.kafka import Producer
from servicekit.kit import Kit
from servicekit.logs import code, get_log
from servicekit.metrics import CONSUME_BATCHES, CONSUME_RETRIES, CONSUMED, DUPLICATES, POSITION_LOST, QUARANTINED
from servicekit.postgres import CONNECTION_ERRORS, Tx
from servicekit.quarantine import MAX_WAITING, PARKED, blocked_aggregates, seal_rejected, store_rejected, waiting
from servicekit.record_hash import hash_key, hash_of

log = get_log("batches")
TRIES = 4
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0
# Something that the reader needs is away, or asks it to slow down: wait for it, reject nothing.
AWAY: tuple[type[Exception], ...] = (Unavailable, TooMany, *Producer.ERRORS, *CONNECTION_ERRORS)
# What neither another try nor quarantine can help.
UNHELPED: tuple[type[Exception], ...] = (PositionLost, DeliveryFailed, *AWAY)

declare("consume.applied", "consume.committed", "consume.delivered")

Handler: TypeAlias = Callable[[Tx, Sequence[Received[Any]]], Awaitable[None]]


@dataclass
class Batch:
    """Records of one reader on their way through the steps.

    `events` are those whose contract the reader knows; `rejected` maps records to the reason code of their quarantine;
    `state` is whatever `prepare` keeps for `apply` and `deliver`.
    """

    records: Sequence[RawRecord]
    events: list[Received[Any]] = field(default_factory=list)
    rejected: dict[RawRecord, str] = field(default_factory=dict)
    state: Any = None

    def reject(self, record: RawRecord, reason: str) -> None:
        self.rejected[record] = reason

    @property
    def is_all_rejected(self) -> bool:
        return len(self.rejected) == len(self.records)


@dataclass(frozen=True)
class Consumes:
    """What a service reads, and what it does with it.

    Give `handlers` by event type, each called with all events of its type in the batch, in order per key; or `apply` for
    the whole batch. Every effect is idempotent by a natural key, or `inbox=True` drops events that were applied before.
    Without `contracts` (or `handlers`) nothing is decoded and `batch.records` is all there is. `ordered=False`: later records
    of an aggregate need not wait behind one in quarantine.
    """

    topics: tuple[str, ...]
    handlers: Mapping[type[Event], Handler] = field(default_factory=dict)
    contracts: tuple[type[Event], ...] = ()
    prepare: Callable[[Kit, Batch], Awaitable[None]] | None = None
    apply: Callable[[Kit, Tx, Batch], Awaitable[None]] | None = None
    deliver: Callable[[Kit, Batch], Awaitable[None]] | None = None
    assigned: Callable[[Kit, Sequence[Place]], Awaitable[None]] | None = None
    idle: Callable[[Kit], Awaitable[None]] | None = None
    inbox: bool = False
    ordered: bool = True
    reader: str = "main"

    @property
    def types(self) -> tuple[type[Event], ...]:
        return (*self.handlers, *self.contracts)


class Applier:
    """Takes the batches of one reader through the steps. Knows nothing of Kafka's client; `next` holds its positions."""

    def __init__(self, kit: Kit, consumes: Consumes) -> None:
        self._kit = kit
        self._consumes = consumes
        self._types = types_of(consumes.types)
        self.next: dict[Place, int] = {}
        self.waiting = 0

    async def prepare(self, batch: Batch) -> Batch:
        """Decodes and prepares; runs beside the application of the batch before."""
        if self._types:
            for record in batch.records:
                try:
                    received = read_event(record, self._types)
                except Poison as poison:
                    batch.reject(record, poison.reason)
                else:
                    if received is not None:
                        batch.events.append(received)
        if self._consumes.prepare is not None:
            await self._consumes.prepare(self._kit, batch)
        return batch

    async def apply(self, batch: Batch, prepared: Awaitable[Batch]) -> None:
        """Applies and delivers the batch, or its halves when it fails. Raises `PositionLost` and what is in `AWAY`."""
        try:
            await self._commit(await prepared)
        except UNHELPED:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the record that causes it is found
            if len(batch.records) > 1:
                log.warning("batch_halved", topic=code(batch.records[0].topic), records=len(batch.records), error=error)
                middle = len(batch.records) // 2
                for part in (batch.records[:middle], batch.records[middle:]):
                    half = Batch(part)
                    await self.apply(half, self.prepare(half))
            else:
                await self._try_alone(batch.records[0], error)

    async def _try_alone(self, record: RawRecord, error: Exception) -> None:
        pause = FIRST_PAUSE
        for _ in range(TRIES - 1):
            if isinstance(error, Poison):
                break
            CONSUME_RETRIES.labels(record.topic).inc()
            await asyncio.sleep(pause)
            pause *= 4
            try:
                await self._commit(await self.prepare(Batch([record])))
            except UNHELPED:
                raise
            except Exception as again:  # noqa: BLE001 - a handler may raise anything
                error = again
            else:
                return
        reason = _reason(error)
        log.error("record_failed", topic=code(record.topic), offset=record.offset, reason=code(reason), error=error)
        await self._commit(Batch([record], rejected={record: reason}))

    async def _commit(self, batch: Batch) -> None:
        if not self._kit.gate.is_open:
            raise Unavailable(
                "This system's database is behind the list of revocations: nothing is applied until it is not."
            )
        await self._park_followers(batch)
        rejected = await seal_rejected(self._kit, list(batch.rejected.items()))
        moves, hashes = self._moves(batch.records)
        reader = self._consumes.reader

        async def work(tx: Tx) -> None:
            await move_positions(tx, reader, moves, hashes)
            if rejected:
                await store_rejected(tx, reader, rejected, self._kit)
            if not batch.is_all_rejected:
                await self.handle(tx, batch)
            faultpoint("consume.applied")

        try:
            await self._kit.run_tx(f"consume {reader}", work)
        except PositionLost:
            POSITION_LOST.labels(batch.records[0].topic).inc()
            raise
        for place, (_, onto) in moves.items():
            self.next[place] = onto
        self.waiting += len(rejected)
        _count(batch)
        faultpoint("consume.committed")
        if self._consumes.deliver is not None and not batch.is_all_rejected:
            await self._deliver(batch, self._consumes.deliver)

    def rest_of(self, batch: Batch) -> Batch:
        """What of a batch is not applied: a halved one may be committed in part when the rest fails."""
        return Batch([r for r in batch.records if r.offset >= self.next.get((r.topic, r.partition), 0)])

    async def _deliver(self, batch: Batch, deliver: Callable[[Kit, Batch], Awaitable[None]]) -> None:
        """After the commit nothing may lead back to `apply`: whatever fails here, the batch is done."""
        try:
            await deliver(self._kit, batch)
        except UNHELPED:
            raise
        except Exception as error:
            raise DeliveryFailed from error
        faultpoint("consume.delivered")

    def _moves(self, records: Sequence[RawRecord]) -> tuple[dict[Place, tuple[int, int]], dict[Place, UUID]]:
        """Where each position moves, and the hash of the record that it moves past."""
        last = {(record.topic, record.partition): record for record in records}
        if not last.keys() <= self.next.keys():
            raise PositionLost  # the partitions were revoked meanwhile
        key = hash_key(self._kit.settings)
        moves = {place: (self.next[place], record.offset + 1) for place, record in last.items()}
        return moves, {place: hash_of(record, key) for place, record in last.items()}

    async def _park_followers(self, batch: Batch) -> None:
        """Later records of an aggregate that has one in quarantine go behind it."""
        reader, blocked = self._consumes.reader, set[UUID]()
        if self.waiting:
            self.waiting = await waiting(self._kit.db, reader)
        if self.waiting + len(batch.rejected) > MAX_WAITING:
            raise Unavailable("Too many records wait in quarantine. Find out why, then replay them.")
        if not self._consumes.ordered:
            return
        if self.waiting:
            keys = [a for record in batch.records if (a := record.aggregate) is not None]
            blocked = await blocked_aggregates(self._kit.db, reader, keys)
        if blocked or batch.rejected:
            _reject_followers(batch, blocked)

    async def handle(self, tx: Tx, batch: Batch) -> None:
        """Calls the handlers, or `apply`; with an inbox only for events that were never applied."""
        if self._consumes.inbox and batch.events:
            new = await first_time(tx, self._consumes.reader, [(e.time.date(), e.id) for e in batch.events])
            known = len(batch.events) - len(new)
            if known:
                DUPLICATES.labels(batch.records[0].topic).inc(known)
            batch.events = _first_of_each(batch.events, new)
        if self._consumes.apply is not None:
            await self._consumes.apply(self._kit, tx, batch)
            return
        for contract, events in in_order(batch.events):
            await self._consumes.handlers[contract](tx, events)


def _reason(error: Exception) -> str:
    if isinstance(error, Poison):
        return error.reason
    # A handler that stores a part without asking `tx.revoked` before.
    return Fenced.code if isinstance(error, Fenced) else "handler_failed"


def _reject_followers(batch: Batch, blocked: set[UUID]) -> None:
    """Parks what stands behind a rejected record of the batch, and all of the aggregates that are `blocked` already."""
    for record in batch.records:
        if record.aggregate in blocked and record not in batch.rejected:
            batch.reject(record, PARKED)
        if record.aggregate is not None and record in batch.rejected:
            blocked.add(record.aggregate)
    gone = {(record.topic, record.partition, record.offset) for record in batch.rejected}
    batch.events = [e for e in batch.events if (e.topic, e.partition, e.offset) not in gone]


def _first_of_each(events: Sequence[Received[Any]], new: set[UUID]) -> list[Received[Any]]:
    """One event of each id; a producer's duplicate may stand in the same batch."""
    return [event for event in {event.id: event for event in reversed(events)}.values() if event.id in new][::-1]


def in_order(events: Sequence[Received[Any]]) -> list[tuple[type[Event], list[Received[Any]]]]:
    """Groups by type, as large as they can be while events of one key stay in order."""
    level_of_key: dict[UUID, tuple[int, type[Event]]] = {}
    groups: dict[tuple[int, type[Event]], list[Received[Any]]] = {}
    for received in events:
        contract = type(received.event)
        level, last = level_of_key.get(received.event.partition_key, (0, contract))
        if last is not contract:
            level += 1
        level_of_key[received.event.partition_key] = (level, contract)
        groups.setdefault((level, contract), []).append(received)
    return [(contract, groups[level, contract]) for level, contract in sorted(groups, key=lambda group: group[0])]


def _count(batch: Batch) -> None:
    topics: dict[str, int] = {}
    for record in batch.records:
        topics[record.topic] = topics.get(record.topic, 0) + 1
    for topic, count in topics.items():
        CONSUMED.labels(topic).inc(count)
        CONSUME_BATCHES.labels(topic).inc()
    for record, reason in batch.rejected.items():
        QUARANTINED.labels(record.topic, reason).inc()
        place = {"partition": record.partition, "offset": record.offset}
        log.warning("record_quarantined", topic=code(record.topic), reason=code(reason), **place)
