"""Consuming: FastStream owns the subscription, the database owns the position, and batches overlap (`batches.py`).

On assignment the reader seeks to the database's positions; the group's offsets are committed for lag only. So lost offsets,
replays, restored databases and zombies all end in the same place (docs/protocols.md#reading-a-topic).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

from aiokafka import ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError
from faststream.kafka import KafkaBroker

from servicekit.core.clock import Backoff, pause_until
from servicekit.core.errors import LookAgain, PositionLost
from servicekit.core.health import Progress
from servicekit.core.logs import code, get_log
from servicekit.core.metrics import CONSUMER_LAG, READER_STOPPED
from servicekit.db.inbox import Place, Position, load_places, move_positions
from servicekit.kafka.batches import AWAY, LONGEST_PAUSE, UNHELPED, Applier, Batch, Consumes
from servicekit.kafka.client import FEW, GATHER_SECONDS, make_broker, refusal_of, to_raw
from servicekit.kafka.cloudevents import RawRecord, Received, RecordId
from servicekit.kafka.places import Standing, begin_of, judge, look
from servicekit.kafka.quarantine import waiting
from servicekit.kafka.quarantine_room import QuarantineFull
from servicekit.kafka.record_hash import hash_key
from servicekit.kafka.subscription import subscribe
from servicekit.kafka.topic_ids import topic_ids
from servicekit.kit import Kit

__all__ = ["Batch", "Consumes", "Received", "RecordId", "run_reader"]

log = get_log("consuming")
BATCHES_AHEAD = 2
IDLE_SECONDS = 0.2
DRAIN_SECONDS = 8.0
COMMIT_SECONDS = 2.0
# A request to Kafka per batch would cost as much as reading it.
TELL_SECONDS = 1.0
LEAVE_SECONDS = 3.0
STEADY_SECONDS = 30.0
# How often it asks Kafka whether the topics are still the same, and the database what an operator decided.
LOOK_SECONDS = 1.0
ASK_SECONDS = 2.0


class Reader(ConsumerRebalanceListener):  # type: ignore[misc]
    """One subscription of one process: a bounded queue between FastStream and the applier."""

    def __init__(self, kit: Kit, consumes: Consumes, progress: Progress) -> None:
        self._kit = kit
        self._consumes = consumes
        self._progress = progress
        # One for each assignment: a batch that outlives its own moves positions from where *that* assignment had them.
        self._applier = Applier(kit, consumes)
        self._queue: asyncio.Queue[tuple[Applier, Batch, asyncio.Task[Batch]]] = asyncio.Queue(BATCHES_AHEAD)
        self._units: dict[asyncio.Task[Batch], int] = {}  # the work that each batch under way is
        self._fetched: dict[Place, int] = {}
        self._assigned = False
        self._is_told, self._told_at = True, 0.0
        self._topics: dict[str, UUID] = {}  # their ids at the assignment
        self._looked_at = self._asked_at = 0.0
        self._stopped: dict[Place, Position] = {}
        self._polled: dict[TopicPartition, int | None] = {}
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._subscriber: Any = None

    def subscribe(self, broker: KafkaBroker) -> None:
        self._subscriber = subscribe(
            broker, self._kit.name, self._consumes, self._take, self, self._kit.settings.kafka_member, self._fail
        )

    async def run(self, stopping: asyncio.Event) -> None:
        """Applies batches until `stopping`, then those that are under way. Raises when it lost its partitions."""
        stop = asyncio.ensure_future(stopping.wait())
        try:
            while not (stopping.is_set() and self._queue.empty()):
                get = asyncio.ensure_future(self._queue.get())
                try:
                    waits: set[asyncio.Future[Any]] = {get, stop, self._failed}
                    await asyncio.wait(waits, timeout=IDLE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                    if self._failed.done():
                        self._failed.result()
                    if stopping.is_set():
                        self._fetched.clear()  # nothing more is taken
                    if get.done():
                        await self._apply(*get.result(), stopping)
                    else:
                        # Before anything is awaited: a batch that it took meanwhile would be lost.
                        get.cancel()
                        await self._idle()
                finally:
                    get.cancel()
        finally:
            stop.cancel()
            self._fetched.clear()
            self._forget()

    async def _apply(
        self, applier: Applier, batch: Batch, prepared: asyncio.Task[Batch], stopping: asyncio.Event
    ) -> None:
        pause = Backoff(0.1, LONGEST_PAUSE)
        first: asyncio.Task[Batch] | None = prepared
        try:
            while applier is self._applier and batch.records:
                try:
                    await applier.apply(batch, first or applier.prepare(batch))
                    break
                except PositionLost:
                    if applier is self._applier:
                        raise
                except AWAY as error:
                    # The batch waits. What it needs comes back, or the partitions go to somebody else.
                    log.error("reader_waits", reader=code(self._consumes.reader), error=error, pause=pause.seconds)
                    if isinstance(error, QuarantineFull):
                        self._progress.stop(error.code)
                    else:
                        self._progress.beat(lag=await self._lag() or 1)
                    await pause_until(stopping, pause.next())
                    if stopping.is_set():
                        break
                    batch, first = applier.rest_of(batch), None
        finally:
            prepared.cancel()
            self._end(prepared)
            self._queue.task_done()
        await self._report()

    async def _report(self) -> None:
        self._progress.beat(lag=await self._lag(), advanced=True)
        self._is_told = False
        if self._kit.clock.boottime() - self._told_at > TELL_SECONDS:
            await self._tell()

    async def _tell(self) -> None:
        """Tells Kafka the positions, for lag only: the database has the truth."""
        self._is_told, self._told_at = True, self._kit.clock.boottime()
        consumer = self._subscriber.consumer
        if consumer is not None:
            try:
                mine = {tp: at for tp, at in (await self._reached(consumer)).items() if tp in consumer.assignment()}
                await asyncio.wait_for(consumer.commit(mine), COMMIT_SECONDS)
            except (KafkaError, TimeoutError):
                return

    async def _idle(self) -> None:
        if not self._is_told:
            await self._tell()
        if self._stopped and self._kit.clock.boottime() - self._asked_at > ASK_SECONDS:
            await self._look_at_decisions()
        lag = await self._lag()
        if self._hears():
            self._progress.beat(lag=lag)
        if self._consumes.idle is not None and self._kit.gate.is_open:
            try:
                async with self._kit.work():
                    await self._consumes.idle(self._kit)
            except AWAY as error:
                log.warning("idle_failed", reader=code(self._consumes.reader), error=error)

    def _hears(self) -> bool:
        """Whether Kafka has answered since the last time: a consumer can be stuck and look idle (aiokafka#1154).

        Nothing is asked about stopped partitions, so with only those left there is nothing to hear.
        """
        consumer = self._subscriber.consumer
        if consumer is None or not self._assigned:
            return False
        read = consumer.assignment() - {TopicPartition(*place) for place in self._stopped}
        before, self._polled = self._polled, {tp: consumer.last_poll_timestamp(tp) for tp in read}
        return not self._polled or self._polled != before

    async def _lag(self) -> int:
        """Records to come. Raises `LookAgain` where a topic ends before the position: what is new would be skipped."""
        consumer = self._subscriber.consumer
        if consumer is None:
            return 0
        total, reached = 0, await self._reached(consumer)
        for (topic, partition), following in self._applier.next.items():
            place = TopicPartition(topic, partition)
            end = consumer.highwater(place)
            if end is not None and 0 <= end < following:
                raise LookAgain
            lag = max(0, _readable(consumer, place) - reached.get(place, following))
            CONSUMER_LAG.labels(self._consumes.reader, topic, partition).set(lag)
            total += lag
        return total

    async def _reached(self, consumer: Any) -> dict[TopicPartition, int]:
        """How far each partition is read. Where all that was taken is applied, this is the consumer's own position: commit
        markers and aborted records have offsets, and nothing of them is ever applied.
        """
        reached: dict[TopicPartition, int] = {}
        for place, following in list(self._applier.next.items()):
            tp = TopicPartition(*place)
            reached[tp] = following
            if self._fetched.get(place, following + 1) <= following:
                with suppress(KafkaError, TimeoutError):
                    async with asyncio.timeout(COMMIT_SECONDS):
                        reached[tp] = max(following, await consumer.position(tp))
        return reached

    async def _take(self, records: Sequence[ConsumerRecord[Any, Any]]) -> None:
        """Called by FastStream with each fetched batch; waits while enough batches are under way."""
        applier, expected = self._applier, list[RawRecord]()
        gaps: dict[Place, int] = {}
        for record in records:
            place = (record.topic, record.partition)
            following = self._fetched.get(place)
            # Not sought yet, or fetched before the seek: it comes again.
            if following is None or record.offset < following:
                continue
            if record.offset > following:
                gaps.setdefault(place, following)
            self._fetched[place] = record.offset + 1
            expected.append(to_raw(record))
        if not expected or not await self._are_the_same(expected, gaps):
            return
        batch = Batch(expected)
        unit = self._kit.works.begin()
        prepared = asyncio.ensure_future(applier.prepare(batch))
        self._units[prepared] = unit
        prepared.add_done_callback(_retrieve)
        try:
            await self._queue.put((applier, batch, prepared))
        except BaseException:
            prepared.cancel()
            self._end(prepared)
            raise
        if len(expected) < FEW:
            await asyncio.sleep(GATHER_SECONDS)

    async def _are_the_same(self, records: Sequence[RawRecord], gaps: Mapping[Place, int]) -> bool:
        """Whether these records follow on those before: of the same topics, with no record deleted between. Else it rejoins.

        Markers and aborted records leave gaps as well; only where the partition begins behind one was anything deleted.
        """
        consumer, now = self._subscriber.consumer, self._kit.clock.boottime()
        try:
            if now - self._looked_at > LOOK_SECONDS:
                self._looked_at = now
                found = await topic_ids(consumer._client, {record.topic for record in records})  # noqa: SLF001
                if any(self._topics.get(topic, topic_id) != topic_id for topic, topic_id in found.items()):
                    raise LookAgain
            if gaps:
                begins = await consumer.beginning_offsets([TopicPartition(*place) for place in gaps])
                if any(begins[TopicPartition(*place)] > following for place, following in gaps.items()):
                    raise LookAgain
        except AWAY as error:
            self._fail(error)
            return False
        return True

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """What is under way is applied first, for a while; then the rest is dropped, and comes again to its next owner."""
        try:
            await asyncio.wait_for(self._queue.join(), DRAIN_SECONDS)
        except TimeoutError:
            log.warning("drain_timed_out", reader=code(self._consumes.reader))
        self._forget()
        self._applier.next.clear()
        self._applier = Applier(self._kit, self._consumes)
        self._assigned = False
        self._fetched.clear()
        self._stop({}, {})

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        try:
            places = [(tp.topic, tp.partition) for tp in assigned]
            positions = await self._find_positions(places)
            self._applier.waiting = await waiting(self._kit.db, self._consumes.reader)
            if self._consumes.assigned is not None:
                async with self._kit.work():
                    await self._consumes.assigned(self._kit, places)
            for place, offset in positions.items():
                self._subscriber.consumer.seek(TopicPartition(*place), offset)
            self._applier.next.update(positions)
            self._fetched.update(positions)
            self._assigned = True
            log.info("assigned", reader=code(self._consumes.reader), partitions=len(places))
        except Exception as error:  # noqa: BLE001
            # The client library would log this and go on from the group's offsets: rejoin instead.
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        if not self._failed.done():
            self._failed.set_exception(error)

    async def _find_positions(self, places: Sequence[Place]) -> dict[Place, int]:
        """Where this reader goes on, by the database and by what Kafka has there; without the places that it may not read.

        These wait for an operator (`positions_command.py`): their partitions are paused, the others go on.
        """
        reader, key = self._consumes.reader, hash_key(self._kit.settings)
        stored = await load_places(self._kit.db, reader, places)
        looks = await look(self._kit.settings, stored)
        standings = {place: judge(at, looks[place], key) for place, at in stored.items()}
        for place, standing in standings.items():
            if standing not in (Standing.SAME, Standing.NEW_READER):
                where = {"partition": place[1], "position": stored[place].next, "begin": looks[place].begin}
                log.error(standing.value, reader=code(reader), topic=code(place[0]), end=looks[place].end, **where)
        begins = {p: begin_of(at, looks[p], s) for p, at in stored.items() if not (s := standings[p]).stops}
        moves = {place: (stored[place].next, begin) for place, begin in begins.items()}
        if any(stored[place] != begin for place, begin in begins.items()):
            await self._kit.run_tx("begin", lambda tx: move_positions(tx, reader, moves))
        self._topics = {topic: look.topic_id for (topic, _), look in looks.items() if look.topic_id is not None}
        self._stop({place: stored[place] for place in standings.keys() - begins.keys()}, standings)
        return {place: begin.next for place, begin in begins.items()}

    def _stop(self, stopped: Mapping[Place, Position], standings: Mapping[Place, Standing]) -> None:
        self._stopped = dict(stopped)
        counts = Counter((topic, standings[topic, partition].value) for topic, partition in stopped)
        for topic in self._consumes.topics:
            for standing in Standing:
                if standing.stops:
                    READER_STOPPED.labels(self._consumes.reader, topic, standing.value).set(
                        counts[topic, standing.value]
                    )
        self._progress.stopped = min((reason for _, reason in counts), default=None)
        if stopped:
            self._subscriber.consumer.pause(*(TopicPartition(*place) for place in stopped))

    async def _look_at_decisions(self) -> None:
        """An operator has decided about a stopped place when its position is another one."""
        self._asked_at = self._kit.clock.boottime()
        if await load_places(self._kit.db, self._consumes.reader, list(self._stopped)) != self._stopped:
            raise LookAgain

    def close(self) -> None:
        """Nothing of it is under way once its broker has stopped."""
        self._forget()
        for prepared in list(self._units):
            self._end(prepared)

    def _forget(self) -> None:
        for topic, partition in self._applier.next:  # whoever reads them next reports their lag
            CONSUMER_LAG.remove(self._consumes.reader, topic, partition)
        while not self._queue.empty():
            *_, prepared = self._queue.get_nowait()
            prepared.cancel()
            self._end(prepared)
            self._queue.task_done()

    def _end(self, prepared: asyncio.Task[Batch]) -> None:
        unit = self._units.pop(prepared, None)
        if unit is not None:
            self._kit.works.end(unit)


def _readable(consumer: Any, place: TopicPartition) -> int:
    """Where what can be read ends: behind it stand, at most, records of a transaction that is still open."""
    ends = [
        end for end in (consumer.highwater(place), consumer.last_stable_offset(place)) if end is not None and end >= 0
    ]
    return min(ends, default=0)


def _retrieve(prepared: asyncio.Task[Batch]) -> None:
    # Whoever awaits it later gets the error; this only keeps a dropped batch from being reported as forgotten.
    if not prepared.cancelled():
        prepared.exception()


async def run_reader(kit: Kit, consumes: Consumes, stopping: asyncio.Event, progress: Progress) -> None:
    """Joins the group and applies batches until `stopping`; after a failure it leaves and joins again, with pauses."""
    pause = Backoff(0.2, LONGEST_PAUSE)
    while await kit.gate.passed(stopping):
        broker = make_broker(kit.settings)
        reader = Reader(kit, consumes, progress)
        reader.subscribe(broker)
        began = kit.clock.boottime()
        try:
            await broker.start()
            await reader.run(stopping)
        except UNHELPED as error:
            # Every rejoin stops the whole group for a moment, so a reader that fails at once comes back slowly.
            if kit.clock.boottime() - began > STEADY_SECONDS:
                pause.reset()
            why = refusal_of(error, kit.settings, consumes.topics, writes=False) or error
            log.error("reader_rejoins", reader=code(consumes.reader), error=why, pause=pause.seconds)
            progress.beat(lag=1)
            await pause_until(stopping, pause.next())
        finally:
            await _leave(broker)
            reader.close()


async def _leave(broker: KafkaBroker) -> None:
    try:
        await asyncio.wait_for(broker.stop(), LEAVE_SECONDS)
    except AWAY:
        log.warning("leave_failed")
