"""Outbox and relay: an event is committed with the state change and published after it, in order per aggregate."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date, datetime
from uuid import UUID

import msgspec

from event_contracts import Event
from servicekit.core.clock import Backoff, Clock, pause_until, pause_until_any
from servicekit.core.errors import PartitionsDiffer, Unavailable
from servicekit.core.faults import declare, faultpoint
from servicekit.core.health import Progress
from servicekit.core.logs import get_log
from servicekit.core.metrics import OUTBOX_DEPTH, OUTBOX_PUBLISHED, PARTITIONS_DIFFER
from servicekit.core.work import Gate
from servicekit.db.postgres import Database, Tx
from servicekit.kafka.client import FEW, GATHER_SECONDS, MAX_RECORD_BYTES, OutRecord, Producer
from servicekit.kafka.cloudevents import event_ids, to_attributes

log = get_log("outbox")
# How long rows of the outbox and of inboxes are kept; an inbox forgets what is older.
KEEP_DAYS = 10
SLOTS = 16
# Half of the slots at once, so that two relays of a service share the work.
SLOTS_AT_ONCE = 8
BATCH = 500
# One event more may go with it. What a relay and its producer hold of a batch in memory is a few times as much.
MAX_BATCH_BYTES = 4 * 1024 * 1024
UNMARKED_AT_ONCE = 10_000
MAX_EVENT_BYTES = MAX_RECORD_BYTES // 2
IDLE_SECONDS = 0.05
# How often it looks whether a topic has its declared number of partitions again.
CHECK_SECONDS = 5.0
_HEADERS = msgspec.json.Decoder(dict[str, str])
_AWAY: tuple[type[Exception], ...] = (Unavailable, *Producer.ERRORS)

declare("relay.produced", "relay.marked")


class Outbox:
    """Writes events of one source into `kit.outbox`. `wake` tells a relay of the same process that there are some."""

    def __init__(self, source: str, clock: Clock, topics: frozenset[str]) -> None:
        self.source = source
        self._clock = clock
        self.topics = topics
        self.wake = asyncio.Event()

    def now(self) -> datetime:
        return self._clock.now()

    async def write(self, tx: Tx, events: Sequence[Event]) -> None:
        """One statement for all events. Raises `TypeError` for a topic that the service does not declare to emit."""
        if not events:
            return
        now = self._clock.now()
        ids = event_ids(now, len(events))
        headers = [
            msgspec.json.encode(to_attributes(event, event_id=event_id, source=self.source, time=now))
            for event, event_id in zip(events, ids, strict=True)
        ]
        topics = [event.topic_of(self.source) for event in events]
        if not set(topics) <= self.topics:
            raise TypeError("an event of a topic that Service(emits=[…]) does not name")
        bodies = [event.model_dump_json().encode() for event in events]
        if max(map(len, bodies)) > MAX_EVENT_BYTES:
            # Kafka would refuse it for ever, and the relay would get no further.
            raise ValueError(f"an event of more than {MAX_EVENT_BYTES} bytes")
        keys = [event.partition_key for event in events]
        await tx.execute(
            """-- Outbox.write
            INSERT INTO kit.outbox (day, slot, event_id, topic, key, headers, body)
            SELECT $1, slot, event_id, topic, key, headers, body
            FROM unnest($2::smallint[], $3::uuid[], $4::text[], $5::uuid[], $6::bytea[], $7::bytea[])
                 WITH ORDINALITY AS u(slot, event_id, topic, key, headers, body, place)
            ORDER BY place""",
            now.date(),
            [_slot(key) for key in keys],
            ids,
            topics,
            keys,
            headers,
            bodies,
        )
        tx.wake(self.wake)


def _slot(key: UUID) -> int:
    return key.int % SLOTS


def _unpack(packed: bytes) -> list[tuple[str, bytes]]:
    return [(name, value.encode("ascii")) for name, value in _HEADERS.decode(packed).items()]


class Relay:
    """Publishes the outbox. Several may run: each holds the locks of its slots while it publishes.

    The rows of a topic that has another number of partitions than declared wait; all others are published.
    """

    def __init__(
        self,
        db: Database,
        make_producer: Callable[[], Producer],
        clock: Clock,
        wake: asyncio.Event,
        gate: Gate | None = None,
        topics: frozenset[str] = frozenset(),
    ) -> None:
        self._db = db
        self._topics = topics
        self._gate = gate or Gate()
        self._producer = make_producer()
        self._clock = clock
        self._wake = wake
        self._has_more = False
        self._differing: frozenset[str] = frozenset()
        self._checked_at: float | None = None

    async def run(self, stopping: asyncio.Event, progress: Progress) -> None:
        """Publishes until `stopping`; after a failure it backs off, up to 5 s, and goes on at the lowest unpublished row."""
        pause, idle = Backoff(0.1, 5.0), False
        try:
            while await self._gate.passed(stopping):
                try:
                    await self._check()
                    progress.stopped = PartitionsDiffer.code if self._differing else None
                    self._wake.clear()  # before it looks: what is committed meanwhile wakes it again
                    # Asking first is a third of a look that finds nothing; most looks of an idle relay do.
                    has_some = not idle or await self._db.fetchval(_ANY, list(self._differing))
                    published = await self.publish_batch() if has_some else 0
                    pause.reset()
                    idle = published == 0
                    progress.beat(lag=published if self._has_more else 0, advanced=published > 0)
                    if idle or not self._has_more:
                        if 0 < published < FEW:
                            await pause_until(stopping, GATHER_SECONDS)
                        # Another process may write, so the wake-up of this one is only a hint.
                        await pause_until_any((self._wake, stopping), IDLE_SECONDS)
                except PartitionsDiffer as error:
                    self._wait_for(self._differing | error.topics)  # and the others go on at once
                except _AWAY as error:
                    log.error("relay_failed", error=error, pause=pause.seconds)
                    progress.beat(lag=1)
                    await pause_until(stopping, pause.next())
        finally:
            await self._producer.stop()

    async def _check(self) -> None:
        """At the start, and every so often while a topic differs."""
        now = self._clock.boottime()
        if self._checked_at is not None and not (self._differing and now - self._checked_at >= CHECK_SECONDS):
            return
        try:
            await self._producer.check(self._topics | self._differing)
        except PartitionsDiffer as error:
            self._wait_for(error.topics)
        else:
            self._wait_for(frozenset())
        self._checked_at = now

    def _wait_for(self, topics: frozenset[str]) -> None:
        for topic in self._differing | topics:
            PARTITIONS_DIFFER.labels(topic).set(topic in topics)
        self._differing = topics

    async def publish_batch(self) -> int:
        """One transaction: lock slots that have work, produce their oldest rows, mark them. Returns the rows published."""
        differing = list(self._differing)

        async def work(tx: Tx) -> int:
            slots = [row["slot"] for row in await tx.fetch(_LOCK_SLOTS, SLOTS_AT_ONCE, differing)]
            self._has_more = len(slots) == SLOTS_AT_ONCE
            if not slots:
                return 0
            share = -(-BATCH // len(slots))
            rows = await tx.fetch(_UNPUBLISHED, slots, share, differing, MAX_BATCH_BYTES)
            await self._producer.send(
                [OutRecord(r["topic"], str(r["key"]).encode(), r["body"], _unpack(r["headers"])) for r in rows]
            )
            is_cut = sum(len(r["headers"]) + len(r["body"]) for r in rows) >= MAX_BATCH_BYTES
            self._has_more |= is_cut or share in Counter(r["slot"] for r in rows).values()
            faultpoint("relay.produced")
            await tx.execute(_MARK, self._clock.now(), [r["number"] for r in rows], [r["day"] for r in rows])
            for row in rows:
                OUTBOX_PUBLISHED.labels(row["topic"]).inc()
            return len(rows)

        published = await self._db.run_tx("relay", work)
        faultpoint("relay.marked")
        return published


async def depth(db: Database) -> int:
    """Rows not yet published, counted up to 10,000."""
    rows: int = await db.fetchval(
        "-- depth\nSELECT count(*) FROM (SELECT FROM kit.outbox WHERE published_at IS NULL LIMIT 10000) o"
    )
    OUTBOX_DEPTH.set(rows)
    return rows


async def unmark(db: Database, since: datetime, first_day: date) -> int:
    """What was published since then, and happened on `first_day` or later, waits for the relay again, in its order. Returns
    the rows.
    """
    days = await db.fetch(
        "-- unmark: days\nSELECT DISTINCT day FROM kit.outbox WHERE day >= $1 ORDER BY day", first_day
    )
    total = 0
    for day in (row["day"] for row in days):
        last: int | None = -1
        while last is not None:
            rows = await db.fetch(_UNMARK, day, last, since, UNMARKED_AT_ONCE)
            last = max((row["number"] for row in rows), default=None)
            total += len(rows)
    return total


async def roll_partitions(tx: Tx, today: date, keep_days: int) -> None:
    """Makes the daily partitions of outbox and inbox for a week, and drops those older than `keep_days`.

    Of several processes at once, one does it and the others leave it at that.
    """
    await tx.fetchval("-- roll_partitions\nSELECT kit.roll_partitions($1, $2)", today, keep_days)


# A slot is locked before its rows are read, so nobody else publishes a later event of the same aggregate meanwhile.
_ANY = "-- publish_batch: any\nSELECT EXISTS (SELECT FROM kit.outbox WHERE published_at IS NULL AND topic <> ALL($1::text[]))"
_LOCK_SLOTS = """-- publish_batch: lock
    SELECT slot FROM kit.relay_slots s
    WHERE EXISTS (SELECT FROM kit.outbox o WHERE o.slot = s.slot AND o.published_at IS NULL AND o.topic <> ALL($2::text[]))
    ORDER BY random() LIMIT $1 FOR UPDATE SKIP LOCKED"""
# Slot by slot, so that the index gives the order: what a batch costs must not grow with what waits behind it. The oldest come
# first, up to the bytes, so of each slot it is its oldest rows as well.
_UNPUBLISHED = """-- publish_batch: read
    SELECT number, day, slot, topic, key, headers, body FROM (
        SELECT o.*, sum(length(o.headers) + length(o.body)) OVER (ORDER BY o.number) - length(o.headers) - length(o.body)
            AS bytes_before
        FROM unnest($1::smallint[]) AS s(slot) CROSS JOIN LATERAL (
            SELECT number, day, slot, topic, key, headers, body FROM kit.outbox
            WHERE slot = s.slot AND published_at IS NULL AND topic <> ALL($3::text[]) ORDER BY number LIMIT $2
        ) o
    ) o WHERE bytes_before < $4 ORDER BY number"""
_MARK = """-- publish_batch: mark
    UPDATE kit.outbox o SET published_at = $1
    FROM unnest($2::bigint[], $3::date[]) AS u(number, day) WHERE o.day = u.day AND o.number = u.number"""
_UNMARK = """-- unmark
    UPDATE kit.outbox o SET published_at = NULL FROM (
        SELECT day, number FROM kit.outbox WHERE day = $1 AND number > $2 AND published_at >= $3 ORDER BY number LIMIT $4
    ) u WHERE o.day = u.day AND o.number = u.number RETURNING o.number"""
