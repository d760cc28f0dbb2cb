"""What Kafka has where a reader stands, and what that says about the topic: the same as before, set back, or another one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from aiokafka import AIOKafkaConsumer, TopicPartition

from servicekit.core.settings import Settings
from servicekit.db.inbox import Place, Position
from servicekit.kafka.client import SEND_TIMEOUT, login, to_raw
from servicekit.kafka.cloudevents import RawRecord
from servicekit.kafka.record_hash import is_same
from servicekit.kafka.topic_ids import topic_ids

_LOOK_BYTES: Final = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Look:
    """A partition as Kafka has it: its topic's id, where it begins and ends, and the first record at or after the place
    before the position."""

    topic_id: UUID | None
    begin: int
    end: int
    before: RawRecord | None = None


class Standing(StrEnum):
    """What the partition is to a reader. Where records were lost it stops: nobody but an operator knows which."""

    SAME = "same"
    NEW_READER = "new_reader"  # it begins where the partition does
    MADE_ANEW = "topic_made_anew"  # all that is in it is new: it begins anew
    SET_BACK = "positions_set_back"  # it ends before the position: Kafka lost records, and new ones take their offsets
    GONE = "records_gone"  # records after the position were deleted unread
    REWRITTEN = "records_rewritten"  # another record stands where the last one that was read stood

    @property
    def stops(self) -> bool:
        return self in (Standing.SET_BACK, Standing.GONE, Standing.REWRITTEN)


def judge(position: Position, look: Look, key: bytes) -> Standing:
    """Pure. `position` is what the database says, `look` what Kafka says now; `key` is that of the hashes."""
    if position.topic_id is None and position.next == 0:
        return Standing.NEW_READER
    if None not in (position.topic_id, look.topic_id) and position.topic_id != look.topic_id:
        return Standing.MADE_ANEW
    if look.end < position.next:
        return Standing.SET_BACK
    if look.begin > position.next:
        return Standing.GONE
    last = position.next - 1
    if position.hash is None or look.begin > last:
        return Standing.SAME  # nothing is there to compare
    # Topics of this product are never compacted: a hole where a record was is a change.
    if look.before is None or look.before.offset != last or not is_same(position.hash, look.before, key):
        return Standing.REWRITTEN
    return Standing.SAME


def begin_of(position: Position, look: Look, standing: Standing) -> Position:
    """Where a reader goes on that is not stopped."""
    topic_id = look.topic_id or position.topic_id
    if standing in (Standing.NEW_READER, Standing.MADE_ANEW):
        return Position(look.begin, topic_id=topic_id)
    return replace(position, topic_id=topic_id)


async def look(settings: Settings, positions: Mapping[Place, Position]) -> dict[Place, Look]:
    """Asks Kafka about these places, all with one client. Raises one of `Producer.ERRORS`."""
    if not positions:
        return {}
    consumer = AIOKafkaConsumer(enable_auto_commit=False, fetch_max_bytes=_LOOK_BYTES, **login(settings))
    await consumer.start()
    try:
        async with asyncio.timeout(SEND_TIMEOUT):
            places = [TopicPartition(*place) for place in positions]
            ids = await topic_ids(consumer._client, {place.topic for place in places})  # noqa: SLF001 - no public way
            begins, ends = await consumer.beginning_offsets(places), await consumer.end_offsets(places)
            wanted = {
                place: at.next - 1
                for place, at in zip(places, positions.values(), strict=True)
                if at.hash is not None and begins[place] <= at.next - 1 < ends[place]
            }
            found = await _first_records(consumer, wanted, ends)
    finally:
        await consumer.stop()
    return {
        (place.topic, place.partition): Look(ids.get(place.topic), begins[place], ends[place], found.get(place))
        for place in places
    }


async def offsets_since(settings: Settings, places: Sequence[Place], since: datetime) -> dict[Place, int]:
    """The first record of each place that was produced at that time or later; without one, where the place ends.

    Raises one of `Producer.ERRORS`.
    """
    consumer = AIOKafkaConsumer(enable_auto_commit=False, **login(settings))
    await consumer.start()
    try:
        async with asyncio.timeout(SEND_TIMEOUT):
            wanted = [TopicPartition(*place) for place in places]
            found = await consumer.offsets_for_times(dict.fromkeys(wanted, int(since.timestamp() * 1000)))
            ends = await consumer.end_offsets(wanted)
    finally:
        await consumer.stop()
    return {(p.topic, p.partition): ends[p] if (at := found.get(p)) is None else at.offset for p in wanted}


async def _first_records(
    consumer: Any, wanted: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
) -> dict[TopicPartition, RawRecord]:
    """The first record at or after each offset; none where only markers follow."""
    left, found = dict(wanted), dict[TopicPartition, RawRecord]()
    if left:
        consumer.assign(list(left))
    for place, offset in left.items():
        consumer.seek(place, offset)
    while left:
        for place, records in (await consumer.getmany(*left, timeout_ms=100, max_records=len(left))).items():
            if records and place not in found:
                found[place] = to_raw(records[0])
        for place in list(left):
            if place in found or await consumer.position(place) >= ends[place]:
                del left[place]
                consumer.pause(place)
    return found
