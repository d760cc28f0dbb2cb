"""Batches: what happens to the records between Kafka and the database (docs/protocols.md#reading-a-topic).

*Decode* makes an event or a poison of each record. *Park* takes out what waits behind a quarantined record. *Prepare* (open,
project) sees only what is left. These three run beside the batch before. *Apply* runs in order, in one transaction with the
reader's positions. *Deliver* runs after the commit, in order. A batch that fails is halved until the record that fails stands
alone; that one is tried again with growing pauses and then goes to quarantine. When a service it needs is away, the reader
waits; it never skips.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias
from uuid import UUID

from typing_extensions import TypeVar

from event_contracts import Event
from servicekit.core.errors import DeliveryFailed, Doubtful, Fenced, Poison, PositionLost, TooMany, Unavailable
from servicekit.core.faults import declare, faultpoint
from servicekit.core.logs import code, get_log
from servicekit.core.metrics import (
    CONSUME_BATCHES,
    CONSUME_RETRIES,
    CONSUMED,
    DUPLICATES,
    IGNORED,
    POSITION_LOST,
    QUARANTINED,
)
from servicekit.db.database_errors import CONNECTION_ERRORS
from servicekit.db.inbox import Place, Position, first_time, move_positions
from servicekit.db.postgres import Tx, is_up
from servicekit.kafka.client import Producer
from servicekit.kafka.cloudevents import RawRecord, Received, RecordId, read_event, repeat_name, types_of
from servicekit.kafka.quarantine import (
    FAILED,
    OURS,
    PARKED,
    Aggregate,
    Rejected,
    blocked_aggregates,
    store_rejected,
    waiting,
)
from servicekit.kafka.quarantine_room import admit
from servicekit.kafka.record_hash import hash_key, hash_of
from servicekit.kit import Kit

log = get_log("batches")
TRIES = 4
# So often a batch may fail with `Doubtful`, while the database answers otherwise, before one of its records is to blame.
DOUBTS = 5
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0
# Something that the reader needs is away, or asks it to slow down: wait for it, reject nothing.
AWAY: tuple[type[Exception], ...] = (Unavailable, TooMany, *Producer.ERRORS, *CONNECTION_ERRORS)
# What neither another try nor quarantine can help.
UNHELPED: tuple[type[Exception], ...] = (PositionLost, DeliveryFailed, *AWAY)

declare("consume.applied", "consume.committed", "consume.delivered")

Handler: TypeAlias = Callable[[Tx, Sequence[Received[Any]]], Awaitable[None]]
# What `prepare` keeps for an event, and what `apply` hands on to `deliver`.
S = TypeVar("S", default=Any)
R = TypeVar("R", default=Any)


@dataclass
class Batch:
    """Records of one reader on their way through the steps.

    `decoded` are the events whose contract the reader knows, `poison` maps the other bad records to the code of their reason.
    Of the decoded ones, `events` may have an effect; `rejected` goes to quarantine, in the order of the records: what is
    poison, and what waits behind it or behind one of the aggregates that are `blocked`. `prepared` belongs to `events`.
    """

    records: Sequence[RawRecord]
    decoded: list[Received[Any]] | None = None
    poison: dict[RecordId, str] = field(default_factory=dict)
    blocked: frozenset[Aggregate] = frozenset()
    events: list[Received[Any]] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    prepared: Mapping[RecordId, Any] = field(default_factory=dict)

    @property
    def is_all_rejected(self) -> bool:
        return len(self.rejected) == len(self.records)

    @property
    def aggregates(self) -> set[Aggregate]:
        return {(record.topic, key) for record in self.records if (key := record.aggregate) is not None}

    def park(self, blocked: frozenset[Aggregate], consumes: Consumes) -> None:
        """Sorts the records into `events` and `rejected`."""
        decoded = self.decoded or []
        self.blocked, self.rejected, self.prepared, self.events = blocked, [], {}, decoded
        if self.poison or blocked:
            by_id = {event.record_id: event for event in decoded}
            self._reject(set(blocked), by_id, consumes)
            self.events = list(by_id.values())

    def _reject(self, behind: set[Aggregate], by_id: dict[RecordId, Received[Any]], consumes: Consumes) -> None:
        for record in self.records:
            reason, key = self.poison.get(record.id), record.aggregate if consumes.ordered else None
            blocks = not consumes.outside or reason is None or reason in OURS
            if reason is None and key is not None and (record.topic, key) in behind:
                reason = PARKED
            if reason is not None:
                event = by_id.pop(record.id, None)
                name = repeat_name(event.event) if consumes.repeats and event is not None else None
                self.rejected.append(Rejected(record, reason, blocks, name))
                if blocks and key is not None:
                    behind.add((record.topic, key))


@dataclass(frozen=True)
class Consumes(Generic[S, R]):
    """What a service reads, and what it does with it.

    `decode` makes of a record what it says, None where that is of no concern here, or raises `Poison`; without it a record is
    an event of one of the `contracts`. `prepare` does what needs no transaction, for all events at once, and returns what it
    keeps for each by the event's `record_id`. Give `handlers` by event type, each called with all events of its type in the
    batch, in order per key; or `apply` for all events of the batch. `deliver` gets what `apply` returned.

    Every effect is idempotent by a natural key, or `inbox=True` drops events that were applied before.
    `ordered=False`: later records of an aggregate need not wait behind one in quarantine. `outside=True`: others than this
    system's own services write here, so a bad record parks nothing and stops nobody. `repeats=True`: an event is said again
    until it is answered, so in quarantine it takes the place of the one before.
    """

    topics: tuple[str, ...]
    handlers: Mapping[type[Event], Handler] = field(default_factory=dict)
    contracts: tuple[type[Event], ...] = ()
    decode: Callable[[Kit, RawRecord], Received[Any] | None] | None = None
    prepare: Callable[[Kit, Sequence[Received[Any]]], Awaitable[Mapping[RecordId, S]]] | None = None
    apply: Callable[[Kit, Tx, Sequence[Received[Any]], Mapping[RecordId, S]], Awaitable[R]] | None = None
    deliver: Callable[[Kit, R], Awaitable[None]] | None = None
    assigned: Callable[[Kit, Sequence[Place]], Awaitable[None]] | None = None
    idle: Callable[[Kit], Awaitable[None]] | None = None
    inbox: bool = False
    ordered: bool = True
    outside: bool = False
    repeats: bool = False
    reader: str = "main"

    @property
    def types(self) -> tuple[type[Event], ...]:
        return (*self.handlers, *self.contracts)


class _Unblocked(Exception):
    """An aggregate is free again: what was parked behind it may have an effect."""


class Applier:
    """Takes the batches of one reader through the steps. Knows nothing of Kafka's client; `next` holds its positions."""

    def __init__(self, kit: Kit, consumes: Consumes) -> None:
        self._kit = kit
        self._consumes = consumes
        self._types = types_of(consumes.types)
        self.next: dict[Place, int] = {}
        self._doubts = 0
        self.waiting = False  # whether there is anything behind which others are parked

    async def prepare(self, batch: Batch) -> Batch:
        """Decodes, parks and prepares; runs beside the application of the batch before."""
        if batch.decoded is None:
            self._decode(batch)
        await self._prepare(batch, await self._blocked(batch))
        return batch

    def _decode(self, batch: Batch) -> None:
        batch.decoded, decode = [], self._consumes.decode
        if decode is None and not self._types:
            return
        ignored: Counter[str] = Counter()
        for record in batch.records:
            try:
                event = read_event(record, self._types) if decode is None else decode(self._kit, record)
            except Poison as poison:
                batch.poison[record.id] = poison.reason
            else:
                if event is not None:
                    batch.decoded.append(event)
                else:
                    ignored[record.topic] += 1
        for topic, count in ignored.items():
            IGNORED.labels(topic).inc(count)

    async def _prepare(self, batch: Batch, blocked: frozenset[Aggregate]) -> None:
        batch.park(blocked, self._consumes)
        if self._consumes.prepare is not None and batch.events:
            batch.prepared = await self._consumes.prepare(self._kit, batch.events)

    async def _blocked(self, batch: Batch, tx: Tx | None = None) -> frozenset[Aggregate]:
        """The batch's aggregates that have a record waiting; in a transaction they stay so until it ends."""
        if not self.waiting or not self._consumes.ordered:
            return frozenset()
        return await blocked_aggregates(
            tx or self._kit.db, self._consumes.reader, batch.aggregates, lock=tx is not None
        )

    async def apply(self, batch: Batch, prepared: Awaitable[Batch]) -> None:
        """Applies and delivers the batch, or its halves when it fails. Raises `PositionLost` and what is in `AWAY`."""
        await self._apply(batch, prepared)
        self._doubts = 0

    async def _apply(self, batch: Batch, prepared: Awaitable[Batch]) -> None:
        try:
            await self._commit(await prepared)
        except UNHELPED as error:
            if not await self._is_to_blame(error):
                raise
            await self._halve(batch, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the record that causes it is found
            await self._halve(batch, error)

    async def _is_to_blame(self, error: Exception) -> bool:
        """Whether a statement has failed too often while the database answers others: then waiting helps nobody."""
        self._doubts = self._doubts + 1 if isinstance(error, Doubtful) else 0
        if self._doubts >= DOUBTS and not await is_up(self._kit.db):
            self._doubts = 0
        return self._doubts >= DOUBTS

    async def _halve(self, batch: Batch, error: Exception) -> None:
        if len(batch.records) == 1:
            await self._try_alone(batch.records[0], error)
            return
        log.warning("batch_halved", topic=code(batch.records[0].topic), records=len(batch.records), error=error)
        middle = len(batch.records) // 2
        for part in (batch.records[:middle], batch.records[middle:]):
            half = Batch(part)
            await self._apply(half, self.prepare(half))

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
            except UNHELPED as again:
                if not await self._is_to_blame(again):
                    raise
                error = again
            except Exception as again:  # noqa: BLE001 - a handler may raise anything
                error = again
            else:
                return
        reason = reason_of(error)
        log.error("record_failed", topic=code(record.topic), offset=record.offset, reason=code(reason), error=error)
        alone = Batch([record])
        self._decode(alone)
        alone.poison[record.id] = reason
        alone.park(await self._blocked(alone), self._consumes)
        await self._commit(alone)

    async def _commit(self, batch: Batch) -> None:
        if not self._kit.gate.is_open:
            raise Unavailable(
                "This system's database is behind the list of revocations: nothing is applied until it is not."
            )
        result = await self._apply_parked(batch)
        _count(batch)
        faultpoint("consume.committed")
        if self._consumes.deliver is not None and not batch.is_all_rejected:
            await self._deliver(result, self._consumes.deliver)

    async def _apply_parked(self, batch: Batch) -> Any:
        """Applies what may have an effect by now: the batch before may have put more aggregates into quarantine."""
        while True:
            if self.waiting:
                self.waiting = await waiting(self._kit.db, self._consumes.reader)
            blocked = await self._blocked(batch)
            if blocked != batch.blocked:
                await self._prepare(batch, blocked)
            try:
                return await self._transact(batch)
            except _Unblocked:
                continue
            except Poison as poison:
                if not poison.records or batch.poison.keys() >= set(poison.records):
                    raise
                batch.poison |= dict.fromkeys(poison.records, poison.reason)
                await self._prepare(batch, batch.blocked)

    async def _transact(self, batch: Batch) -> Any:
        kept = await admit(self._kit, self._consumes.reader, batch.rejected)
        moves = self._moves(batch.records)
        reader = self._consumes.reader

        async def work(tx: Tx) -> Any:
            await move_positions(tx, reader, moves)
            if batch.blocked and await self._blocked(batch, tx) != batch.blocked:
                raise _Unblocked
            if kept:
                await store_rejected(tx, reader, kept, self._kit)
            result = None if batch.is_all_rejected else await self.handle(tx, batch)
            faultpoint("consume.applied")
            return result

        try:
            result = await self._kit.run_tx(f"consume {reader}", work)
        except PositionLost:
            POSITION_LOST.labels(batch.records[0].topic).inc()
            raise
        for place, (_, onto) in moves.items():
            self.next[place] = onto.next
        self.waiting = self.waiting or any(each.blocks for each in batch.rejected)
        return result

    def rest_of(self, batch: Batch) -> Batch:
        """What of a batch is not applied: a halved one may be committed in part when the rest fails."""
        return Batch([r for r in batch.records if r.offset >= self.next.get((r.topic, r.partition), 0)])

    async def _deliver(self, result: Any, deliver: Callable[[Kit, Any], Awaitable[None]]) -> None:
        """After the commit nothing may lead back to `apply`: whatever fails here, the batch is done."""
        try:
            await deliver(self._kit, result)
        except Doubtful as error:
            raise Unavailable from error  # no record is to blame: all of them have taken their effect
        except UNHELPED:
            raise
        except Exception as error:
            raise DeliveryFailed from error
        faultpoint("consume.delivered")

    def _moves(self, records: Sequence[RawRecord]) -> dict[Place, tuple[int, Position]]:
        """Where each position moves, with the hash of the record that it moves past."""
        last = {(record.topic, record.partition): record for record in records}
        if not last.keys() <= self.next.keys():
            raise PositionLost  # the partitions were revoked meanwhile
        key = hash_key(self._kit.settings)
        return {
            place: (self.next[place], Position(record.offset + 1, hash_of(record, key)))
            for place, record in last.items()
        }

    async def handle(self, tx: Tx, batch: Batch) -> Any:
        """Calls the handlers, or `apply`; with an inbox only for events that were never applied. Returns what it returns."""
        events = batch.events
        if self._consumes.inbox and events:
            new = await first_time(tx, self._consumes.reader, [(e.time.date(), e.id) for e in events])
            known = len(events) - len(new)
            if known:
                DUPLICATES.labels(batch.records[0].topic).inc(known)
            # One event of each id: a producer's duplicate may stand in the same batch.
            events = [e for e in {e.id: e for e in reversed(events)}.values() if e.id in new][::-1]
        if self._consumes.apply is not None:
            return await self._consumes.apply(self._kit, tx, events, batch.prepared)
        for contract, group in in_order(events):
            await self._consumes.handlers[contract](tx, group)
        return None


def reason_of(error: Exception) -> str:
    if isinstance(error, Poison):
        return error.reason
    # A handler that stores a part without asking `tx.revoked` before.
    return Fenced.code if isinstance(error, Fenced) else FAILED


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
    rejected: dict[tuple[str, int, str], list[int]] = {}
    for each in batch.rejected:
        record = each.record
        QUARANTINED.labels(record.topic, each.reason).inc()
        rejected.setdefault((record.topic, record.partition, each.reason), []).append(record.offset)
    for (topic, partition, reason), offsets in rejected.items():
        place = {"partition": partition, "offset": offsets[0], "count": len(offsets)}
        log.warning("record_quarantined", topic=code(topic), reason=code(reason), **place)
