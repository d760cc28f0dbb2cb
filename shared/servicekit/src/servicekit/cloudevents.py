"""CloudEvents 1.0 in Kafka binary mode: attributes in `ce_*` headers, the contract's JSON as the record's value.

The extension `sealed` lists class, subject, anchor and key of every sealed part of the body. Inventory and consumers read that
and never the values (`PROTOCOLS.md` §1).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar
from uuid import UUID

from pydantic import ValidationError

from event_contracts.event import Event
from event_contracts.personal import SealedPart, sealed_parts
from servicekit.errors import Poison

E = TypeVar("E", bound=Event)
Headers = list[tuple[str, bytes]]
MAX_SEALED_PARTS = 1_000


@dataclass(frozen=True, slots=True)
class RawRecord:
    """A record as Kafka has it. Its repr shows no content."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]

    def __repr__(self) -> str:
        return f"<record {self.topic}/{self.partition}/{self.offset}>"

    @property
    def aggregate(self) -> UUID | None:
        """The aggregate that the record belongs to, if its key is an id as all of ours are."""
        try:
            return UUID((self.key or b"").decode("ascii"))
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class Envelope:
    """The attributes of one event."""

    id: UUID
    type: str
    source: str
    time: datetime
    sealed: tuple[SealedPart, ...]


@dataclass(frozen=True, slots=True)
class Received(Generic[E]):
    """An event with where it came from."""

    event: E
    id: UUID
    time: datetime
    source: str
    topic: str
    partition: int
    offset: int


def to_headers(event: Event, *, event_id: UUID, source: str, time: datetime) -> Headers:
    """The headers of one event, its sealed parts listed."""
    attributes = {
        "ce_specversion": "1.0",
        "ce_id": str(event_id),
        "ce_source": source,
        "ce_type": event.type_name(),
        "ce_time": time.isoformat(),
        "ce_partitionkey": str(event.partition_key),
        "content-type": "application/json",
    }
    parts = sealed_parts(event)
    if parts:
        attributes["ce_sealed"] = json.dumps([_part_to_json(part) for part in parts], separators=(",", ":"))
    return [(name, value.encode("ascii")) for name, value in attributes.items()]


def _part_to_json(part: SealedPart) -> dict[str, str]:
    return {
        "class": part.data_class,
        "subject": str(part.subject),
        "anchor": str(part.anchor),
        "key": str(part.key_id),
    }


def read_envelope(record: RawRecord) -> Envelope:
    """The envelope of a record. Raises `Poison` with what is wrong: a missing, doubled, null or unreadable attribute."""
    headers: dict[str, str] = {}
    for name, value in record.headers:
        if value is None:
            raise Poison("null_header")
        if name in headers:
            raise Poison("doubled_header")
        try:
            headers[name] = value.decode("ascii")
        except UnicodeDecodeError:
            raise Poison("unreadable_header") from None
    if headers.get("ce_specversion") != "1.0":
        raise Poison("no_cloudevent")
    try:
        time = datetime.fromisoformat(headers["ce_time"])
        if time.tzinfo is None:
            raise Poison("bad_envelope")
        sealed = _read_sealed(headers.get("ce_sealed", "[]"))
        return Envelope(UUID(headers["ce_id"]), headers["ce_type"], headers["ce_source"], time, sealed)
    except (KeyError, ValueError, TypeError, RecursionError):
        raise Poison("bad_envelope") from None


def _read_sealed(text: str) -> tuple[SealedPart, ...]:
    parts = json.loads(text)
    if not isinstance(parts, list) or len(parts) > MAX_SEALED_PARTS:
        raise Poison("bad_envelope")
    return tuple(
        # Each through `str`: what is no text would fail in another way.
        SealedPart(str(p["class"]), UUID(str(p["subject"])), UUID(str(p["anchor"])), UUID(str(p["key"])))
        for p in parts
    )


def read_event(record: RawRecord, types: Mapping[str, type[E]]) -> Received[E] | None:
    """The typed event of a record, or None if its type is not among `types` (by CloudEvents type).

    Raises `Poison`: unreadable, a version nobody here knows, or header and body that disagree.
    """
    envelope = read_envelope(record)
    contract = types.get(envelope.type)
    if contract is None:
        name, _, version = envelope.type.rpartition(".v")
        if any(known.rpartition(".v")[0] == name for known in types) or not (
            name.isidentifier() and version.isdecimal()
        ):
            raise Poison("unknown_version")
        return None
    if record.value is None:
        raise Poison("tombstone")
    try:
        event = contract.model_validate_json(record.value)
    except (ValidationError, ValueError, RecursionError):
        raise Poison("breaks_contract") from None
    if record.aggregate != event.partition_key:
        raise Poison("wrong_key")
    if sealed_parts(event) != envelope.sealed:
        raise Poison("sealed_header_differs")
    return Received(event, envelope.id, envelope.time, envelope.source, record.topic, record.partition, record.offset)


def types_of(contracts: Iterable[type[E]]) -> dict[str, type[E]]:
    return {contract.type_name(): contract for contract in contracts}
