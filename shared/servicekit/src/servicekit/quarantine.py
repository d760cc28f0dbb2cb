"""Quarantine: a record that cannot be processed waits here, sealed as it came, and later ones of its aggregate behind it."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Annotated
from uuid import NAMESPACE_URL, UUID, uuid5

from pydantic import Field

from event_contracts import Erased, PersonalData, Sealed, category
from servicekit.cloudevents import RawRecord
from servicekit.kafka import read_again
from servicekit.postgres import Database, Record, Tx

if TYPE_CHECKING:
    from servicekit.kit import Kit

# A bad release stops here instead of draining a topic into quarantine.
MAX_WAITING = 1_000
PARKED = "parked"
PURPOSE = "quarantine_replay"

# A record that a producer compressed may be far larger than what the broker lets in.
_Base64 = Annotated[str, Field(max_length=64 * 1024 * 1024)]


class QuarantinedRecord(PersonalData, data_class="quarantine"):
    """Nobody knows what is in a record that cannot be read, so all of it counts as personal."""

    key: _Base64 | None = category("user")
    value: _Base64 | None = category("user")
    headers: _Base64 = category("user")  # a JSON list, so that no number of headers keeps a record out


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record with the reason (a code) why it goes to quarantine, sealed already."""

    record: RawRecord
    reason: str
    anchor: UUID
    sealed: Sealed[QuarantinedRecord]


def subject_of(service: str) -> UUID:
    """The subject of a service's own quarantine keys: it stands for no person."""
    return uuid5(NAMESPACE_URL, f"quarantine/{service}")


def anchor_of(service: str, day: date) -> UUID:
    """Quarantine keys live by the day, so that a day's records can be shredded together."""
    return uuid5(subject_of(service), day.isoformat())


async def seal_rejected(kit: Kit, rejected: Sequence[tuple[RawRecord, str]]) -> list[Rejected]:
    """Seals the records with one vault call."""
    if not rejected:
        return []
    subject, anchor = subject_of(kit.name), anchor_of(kit.name, kit.clock.now().date())
    sealed = await kit.seal_many([(_to_personal(record), subject, anchor) for record, _ in rejected])
    return [Rejected(r, reason, anchor, token) for (r, reason), token in zip(rejected, sealed, strict=True)]


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


async def store_rejected(tx: Tx, reader: str, rejected: Sequence[Rejected], kit: Kit) -> None:
    await tx.execute(
        """-- store_rejected
        INSERT INTO kit.quarantine (reader, topic, partition, position, aggregate, anchor, reason, record, arrived_at)
        SELECT $1, u.*, $9 FROM unnest($2::text[], $3::int[], $4::bigint[], $5::uuid[], $6::uuid[], $7::text[], $8::bytea[]) u
        ON CONFLICT (reader, topic, partition, position) DO NOTHING""",
        reader,
        [r.record.topic for r in rejected],
        [r.record.partition for r in rejected],
        [r.record.offset for r in rejected],
        [r.record.aggregate for r in rejected],
        [r.anchor for r in rejected],
        [r.reason for r in rejected],
        [r.sealed for r in rejected],
        kit.clock.now(),
    )


async def waiting(db: Database, reader: str) -> int:
    """How many records wait, counted up to one more than may."""
    count: int = await db.fetchval(
        "-- waiting\nSELECT count(*) FROM (SELECT FROM kit.quarantine WHERE reader = $1 AND replayed_at IS NULL LIMIT $2) q",
        reader,
        MAX_WAITING + 1,
    )
    return count


async def blocked_aggregates(db: Database, reader: str, aggregates: Sequence[UUID]) -> set[UUID]:
    """Which of the aggregates have a record waiting: later ones are parked behind it."""
    rows = await db.fetch(
        """-- blocked_aggregates
        SELECT DISTINCT aggregate FROM kit.quarantine
        WHERE reader = $1 AND replayed_at IS NULL AND aggregate = ANY($2::uuid[])""",
        reader,
        list(set(aggregates)),
    )
    return {row["aggregate"] for row in rows}


@dataclass(frozen=True, slots=True)
class Waiting:
    """A line of the quarantine: its number, why it waits, and the record, or None when its days are over."""

    number: int
    reason: str
    record: RawRecord | None


async def load_waiting(kit: Kit, reader: str, limit: int = 100, after: int = 0) -> list[Waiting]:
    """The waiting records in the order of their arrival: opened with one vault call, or read from Kafka again.

    The latter is for a service that the policy does not let open its quarantine, such as the gateway (law L9).
    """
    rows = await kit.db.fetch(
        """-- load_waiting
        SELECT number, topic, partition, position, anchor, reason, record FROM kit.quarantine
        WHERE reader = $1 AND replayed_at IS NULL AND number > $3 ORDER BY number LIMIT $2""",
        reader,
        limit,
        after,
    )
    if kit.policy.may_open(kit.name, "quarantine", PURPOSE):
        records = await _open_rows(kit, rows)
    else:
        records = [await read_again(kit.settings, r["topic"], r["partition"], r["position"]) for r in rows]
    return [Waiting(row["number"], row["reason"], record) for row, record in zip(rows, records, strict=True)]


async def _open_rows(kit: Kit, rows: Sequence[Record]) -> list[RawRecord | None]:
    from servicekit.kit import Opening  # the kit's consumers use this module

    subject = subject_of(kit.name)
    wanted = [Opening(Sealed(row["record"]), QuarantinedRecord, subject, row["anchor"]) for row in rows]
    opened = await kit.open_many(wanted, purpose=PURPOSE)
    return [
        None if isinstance(content, Erased) else _to_record(row, content)
        for row, content in zip(rows, opened, strict=True)
    ]


def _to_record(row: Record, content: QuarantinedRecord) -> RawRecord:
    return RawRecord(
        row["topic"],
        row["partition"],
        row["position"],
        _decode(content.key),
        _decode(content.value),
        tuple((name, _decode(value)) for name, value in json.loads(_decode(content.headers) or b"[]")),
    )


async def mark_replayed(tx: Tx, number: int, now: datetime) -> bool:
    """False when another replay was faster. Locks the line, so ask before the record is handled."""
    status = await tx.execute(
        "-- mark_replayed\nUPDATE kit.quarantine SET replayed_at = $2 WHERE number = $1 AND replayed_at IS NULL",
        number,
        now,
    )
    return status == "UPDATE 1"
