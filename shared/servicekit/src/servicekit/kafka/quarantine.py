"""Quarantine: a record that cannot be processed waits here, sealed as it came, and later ones of its aggregate behind it.

Three limits bound it. Of one aggregate MAX_PER_AGGREGATE records are kept with their content; of more only the place is kept,
and Kafka has the record. Bad records from outside park nothing: MAX_OUTSIDE are kept for each topic and reason, more are
only counted. Our own failures are of a bad release when they are in many aggregates: past MAX_AGGREGATES a day the reader stops.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated
from uuid import NAMESPACE_URL, UUID, uuid5

from pydantic import Field

from event_contracts import Erased, PersonalData, Sealed, category
from servicekit.db.postgres import Database, Tx
from servicekit.kafka.client import read_again
from servicekit.kafka.cloudevents import RawRecord
from servicekit.kafka.record_hash import hash_key, hash_of

if TYPE_CHECKING:
    from servicekit.kit import Kit

MAX_PER_AGGREGATE = 100
MAX_OUTSIDE = 1_000
MAX_AGGREGATES = 1_000
KEEP_ENDED = timedelta(days=30)
PARKED, FAILED = "parked", "handler_failed"
# Reasons that say that we failed, not that the record is bad.
OURS = frozenset((FAILED, "fenced"))
PURPOSE = "quarantine_replay"
Aggregate = tuple[str, UUID]  # topic, record key: Kafka gives no order between topics

# A record that a producer compressed may be far larger than what the broker lets in.
_Base64 = Annotated[str, Field(max_length=64 * 1024 * 1024)]


class QuarantinedRecord(PersonalData, data_class="quarantine"):
    """Nobody knows what is in a record that cannot be read, so all of it counts as personal."""

    key: _Base64 | None = category("user")
    value: _Base64 | None = category("user")
    headers: _Base64 = category("user")  # a JSON list, so that no number of headers keeps a record out


class Outcome(StrEnum):
    """How a record's wait ended."""

    REPLAYED = "replayed"
    DISCARDED = "discarded"
    EXPIRED = "expired"
    REPLACED = "replaced"


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record with the reason (a code) why it goes to quarantine.

    `blocks`: later records of its aggregate wait behind it. `name` is what a repeat has in common with it.
    """

    record: RawRecord
    reason: str
    blocks: bool = True
    name: UUID | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """What is stored of a rejected record: sealed, or only its place."""

    rejected: Rejected
    anchor: UUID
    sealed: Sealed[QuarantinedRecord] | None
    hash: UUID


def subject_of(service: str) -> UUID:
    """The subject of a service's own quarantine keys: it stands for no person."""
    return uuid5(NAMESPACE_URL, f"quarantine/{service}")


def anchor_of(service: str, day: date) -> UUID:
    """Quarantine keys live by the day, so that a day's records can be shredded together."""
    return uuid5(subject_of(service), day.isoformat())


async def seal_rejected(kit: Kit, rejected: Sequence[Rejected], full: Collection[Aggregate] = ()) -> list[Kept]:
    """Seals the records with one vault call; of the aggregates that are `full` only the places are kept."""
    anchor = anchor_of(kit.name, kit.clock.now().date())
    wanted = [each for each in rejected if (each.record.topic, each.record.aggregate) not in full]
    subject = subject_of(kit.name)
    parts = [(_to_personal(each.record), subject, anchor) for each in wanted]
    sealed = await kit.seal_many(parts) if parts else []
    found = {each.record.id: token for each, token in zip(wanted, sealed, strict=True)}
    key = hash_key(kit.settings)
    return [Kept(each, anchor, found.get(each.record.id), hash_of(each.record, key)) for each in rejected]


def _to_personal(record: RawRecord) -> QuarantinedRecord:
    return QuarantinedRecord(
        key=_encode(record.key),
        value=_encode(record.value),
        headers=str(_encode(json.dumps([(name, _encode(value)) for name, value in record.headers]).encode())),
    )


def _encode(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode("ascii")


def _decode(value: str | None) -> bytes | None:
    return None if value is None else base64.b64decode(value)


async def store_rejected(tx: Tx, reader: str, kept: Sequence[Kept], kit: Kit) -> None:
    """Adds the records in this order. One that repeats a waiting record takes its place, behind all that waits."""
    now = kit.clock.now()
    names = [(each.rejected.name, each.rejected.record.topic) for each in kept if each.rejected.name is not None]
    if names:
        await tx.execute(
            """-- store_rejected: repeats
            UPDATE kit.quarantine q SET ended_at = $2, outcome = 'replaced', record = NULL
            FROM unnest($3::uuid[], $4::text[]) AS u(name, topic)
            WHERE q.reader = $1 AND q.ended_at IS NULL AND q.name = u.name AND q.topic = u.topic""",
            reader,
            now,
            [name for name, _ in names],
            [topic for _, topic in names],
        )
    records = [each.rejected.record for each in kept]
    await tx.execute(
        """-- store_rejected
        INSERT INTO kit.quarantine
            (reader, topic, partition, position, aggregate, anchor, reason, blocks, name, key_id, record, hash, arrived_at)
        SELECT $1::text, topic, partition, position, aggregate, anchor, reason, blocks, name, key_id, record, hash, $2
        FROM unnest($3::text[], $4::int[], $5::bigint[], $6::uuid[], $7::uuid[], $8::text[], $9::bool[], $10::uuid[],
                    $11::uuid[], $12::bytea[], $13::uuid[]) WITH ORDINALITY
            AS u(topic, partition, position, aggregate, anchor, reason, blocks, name, key_id, record, hash, place)
        WHERE NOT EXISTS (SELECT FROM kit.quarantine q WHERE q.reader = $1::text AND q.topic = u.topic
            AND q.partition = u.partition AND q.position = u.position AND q.hash IS NULL)
        ORDER BY u.place ON CONFLICT (reader, topic, partition, position, hash) DO NOTHING""",
        reader,
        now,
        [record.topic for record in records],
        [record.partition for record in records],
        [record.offset for record in records],
        [record.aggregate for record in records],
        [each.anchor for each in kept],
        [each.rejected.reason for each in kept],
        [each.rejected.blocks for each in kept],
        [each.rejected.name for each in kept],
        [None if each.sealed is None else each.sealed.key_id for each in kept],
        [each.sealed for each in kept],
        [each.hash for each in kept],
    )


async def waiting(db: Database, reader: str) -> bool:
    """Whether any record waits behind which others are parked."""
    found: bool = await db.fetchval(
        "-- waiting\nSELECT EXISTS (SELECT FROM kit.quarantine WHERE reader = $1 AND ended_at IS NULL AND blocks)",
        reader,
    )
    return found


async def count_outside(db: Database, reader: str) -> dict[tuple[str, str], int]:
    """How many bad records from outside wait, by topic and reason."""
    rows = await db.fetch(
        """-- count_outside
        SELECT topic, reason, count(*) AS count FROM kit.quarantine
        WHERE reader = $1 AND ended_at IS NULL AND NOT blocks GROUP BY topic, reason""",
        reader,
    )
    return {(row["topic"], row["reason"]): row["count"] for row in rows}


async def count_failing(db: Database, reader: str, since: datetime) -> int:
    """How many aggregates have had a failure of our own since then that still waits, up to MAX_AGGREGATES. A record without
    an aggregate counts as one."""
    count: int = await db.fetchval(
        """-- count_failing
        SELECT count(*) FROM (
            SELECT DISTINCT topic, coalesce(aggregate::text, number::text) FROM kit.quarantine
            WHERE reader = $1 AND ended_at IS NULL AND blocks AND reason <> 'parked' AND arrived_at > $2 LIMIT $3) q""",
        reader,
        since,
        MAX_AGGREGATES,
    )
    return count


async def full_aggregates(db: Database, reader: str, aggregates: Collection[Aggregate]) -> frozenset[Aggregate]:
    """Those of the aggregates of which no more content is kept."""
    rows = await db.fetch(
        """-- full_aggregates
        SELECT u.topic, u.aggregate FROM unnest($2::text[], $3::uuid[]) AS u(topic, aggregate) CROSS JOIN LATERAL (
            SELECT FROM kit.quarantine q
            WHERE q.reader = $1 AND q.topic = u.topic AND q.aggregate = u.aggregate AND q.ended_at IS NULL
            OFFSET $4 - 1 LIMIT 1) AS last""",
        reader,
        [topic for topic, _ in aggregates],
        [aggregate for _, aggregate in aggregates],
        MAX_PER_AGGREGATE,
    )
    return frozenset((row["topic"], row["aggregate"]) for row in rows)


async def blocked_aggregates(
    source: Database | Tx, reader: str, aggregates: Collection[Aggregate], *, lock: bool = False
) -> frozenset[Aggregate]:
    """Which of the aggregates have a record waiting: later ones are parked behind it. With `lock` one of each stays until
    the transaction has ended. One row of each is read and locked, however many wait."""
    wanted = list(aggregates)
    rows = await source.fetch(
        """-- blocked_aggregates
        SELECT u.topic, u.aggregate FROM unnest($2::text[], $3::uuid[]) AS u(topic, aggregate) CROSS JOIN LATERAL (
            SELECT FROM kit.quarantine q
            WHERE q.reader = $1 AND q.topic = u.topic AND q.aggregate = u.aggregate AND q.ended_at IS NULL AND q.blocks
            LIMIT 1"""  # noqa: S608 - both are ours
        + (" FOR SHARE) AS first" if lock else ") AS first"),
        reader,
        [topic for topic, _ in wanted],
        [aggregate for _, aggregate in wanted],
    )
    return frozenset((row["topic"], row["aggregate"]) for row in rows)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A line of the quarantine: its number, where the record came from, why it waits and since when."""

    number: int
    reader: str
    topic: str
    partition: int
    position: int
    aggregate: UUID | None
    reason: str
    blocks: bool
    arrived_at: datetime
    anchor: UUID
    sealed: bytes | None
    hash: UUID | None

    @property
    def place(self) -> str:
        return f"{self.topic}/{self.partition}/{self.position}"


async def load_waiting(
    db: Database, reader: str, *, after: int = 0, limit: int = 100, aggregate: Aggregate | None = None
) -> list[Waiting]:
    """A page of the waiting records in the order of their arrival; of one aggregate with `aggregate`."""
    topic, key = aggregate or (None, None)
    rows = await db.fetch(
        """-- load_waiting
        SELECT number, reader, topic, partition, position, aggregate, reason, blocks, arrived_at, anchor, record, hash
        FROM kit.quarantine WHERE reader = $1 AND ended_at IS NULL AND number > $2
        AND ($4::text IS NULL OR topic = $4 AND aggregate = $5) ORDER BY number LIMIT $3""",
        reader,
        after,
        limit,
        topic,
        key,
    )
    return [Waiting(*row.values()) for row in rows]


async def find_waiting(db: Database, number: int) -> Waiting | None:
    row = await db.fetchrow(
        """-- find_waiting
        SELECT number, reader, topic, partition, position, aggregate, reason, blocks, arrived_at, anchor, record, hash
        FROM kit.quarantine WHERE number = $1 AND ended_at IS NULL""",
        number,
    )
    return None if row is None else Waiting(*row.values())


async def heads(db: Database, *, released: bool) -> list[tuple[int, str, Aggregate]]:
    """The first waiting record of each aggregate: number, reader, aggregate. With `released` only those that are parked
    though nothing is left in front of them."""
    rows = await db.fetch(
        """-- heads
        SELECT number, reader, topic, aggregate FROM (
            SELECT DISTINCT ON (reader, topic, aggregate) number, reader, topic, aggregate, reason FROM kit.quarantine
            WHERE ended_at IS NULL AND blocks AND aggregate IS NOT NULL ORDER BY reader, topic, aggregate, number) q
        WHERE NOT $1 OR reason = 'parked' ORDER BY number""",
        released,
    )
    return [(row["number"], row["reader"], (row["topic"], row["aggregate"])) for row in rows]


async def open_waiting(kit: Kit, lines: Sequence[Waiting]) -> list[RawRecord | None]:
    """The records, None where one is gone: opened with one vault call, or read from Kafka again. The latter is for places
    without content, and for a service that the policy does not let open its quarantine, such as the gateway (law L9)."""
    opens = kit.policy.may_open(kit.name, "quarantine", PURPOSE)
    opened = await _open_lines(kit, [line for line in lines if line.sealed is not None]) if opens else {}
    return [
        opened[line.number]
        if line.number in opened
        else await read_again(kit.settings, line.topic, line.partition, line.position, line.hash)
        for line in lines
    ]


async def _open_lines(kit: Kit, lines: Sequence[Waiting]) -> dict[int, RawRecord | None]:
    from servicekit.kit import Opening  # the kit's consumers use this module

    subject = subject_of(kit.name)
    wanted = [Opening(Sealed(line.sealed or b""), QuarantinedRecord, subject, line.anchor) for line in lines]
    opened = await kit.open_many(wanted, purpose=PURPOSE) if wanted else []
    return {
        line.number: None if isinstance(content, Erased) else _to_record(line, content)
        for line, content in zip(lines, opened, strict=True)
    }


def _to_record(line: Waiting, content: QuarantinedRecord) -> RawRecord:
    return RawRecord(
        line.topic,
        line.partition,
        line.position,
        _decode(content.key),
        _decode(content.value),
        tuple((name, _decode(value)) for name, value in json.loads(_decode(content.headers) or b"[]")),
    )


async def end_wait(
    tx: Tx, numbers: Sequence[int], outcome: Outcome, now: datetime, by: str | None = None, reason: str | None = None
) -> int:
    """Ends the wait of these records; their content goes. Returns how many still waited. Locks the lines."""
    status = await tx.execute(
        """-- end_wait
        UPDATE kit.quarantine SET ended_at = $2, outcome = $3, ended_by = $4, ended_for = $5, record = NULL
        WHERE number = ANY($1::bigint[]) AND ended_at IS NULL""",
        list(numbers),
        now,
        outcome.value,
        by,
        reason,
    )
    return int(status.split()[-1])


async def change_reason(tx: Tx, number: int, reason: str) -> None:
    """A parked record was tried, and failed by itself."""
    await tx.execute(
        "-- change_reason\nUPDATE kit.quarantine SET reason = $2 WHERE number = $1 AND ended_at IS NULL", number, reason
    )


async def numbers_because(db: Database, reader: str, reason: str, limit: int = 10_000) -> list[int]:
    """Waiting records of a reader that have this reason."""
    rows = await db.fetch(
        """-- numbers_because
        SELECT number FROM kit.quarantine WHERE reader = $1 AND ended_at IS NULL AND reason = $2 ORDER BY number LIMIT $3""",
        reader,
        reason,
        limit,
    )
    return [row["number"] for row in rows]


async def expire(tx: Tx, now: datetime, before: datetime) -> dict[str, int]:
    """Ends the wait of records whose key was destroyed, and of places without content that are as old. Returns how many by
    reader."""
    rows = await tx.fetch(
        """-- expire
        UPDATE kit.quarantine q SET ended_at = $1, outcome = 'expired', record = NULL
        WHERE q.ended_at IS NULL AND (q.arrived_at < $2 AND q.key_id IS NULL
            OR EXISTS (SELECT FROM kit.revoked_keys r WHERE r.key_id = q.key_id))
        RETURNING reader""",
        now,
        before,
    )
    return Counter(row["reader"] for row in rows)


async def forget_ended(tx: Tx, before: datetime) -> None:
    await tx.execute("-- forget_ended\nDELETE FROM kit.quarantine WHERE ended_at < $1", before)


async def summary(db: Database) -> dict[str, tuple[int, datetime]]:
    """By reader: how many records wait, and since when the oldest does."""
    rows = await db.fetch(
        """-- summary
        SELECT reader, count(*) AS count, min(arrived_at) AS oldest FROM kit.quarantine
        WHERE ended_at IS NULL GROUP BY reader"""
    )
    return {row["reader"]: (row["count"], row["oldest"]) for row in rows}
