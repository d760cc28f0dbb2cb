"""CloudEvents 1.0 in Kafka binary mode: attributes in `ce_*` headers, the contract's JSON as the record's value.

The extension `sealed` lists class, subject, anchor and key of every sealed part of the body. Inventory and consumers read that
and never the values (docs/protocols.md#keys).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Final, Generic, TypeVar
from uuid import NAMESPACE_URL, UUID, uuid5

import msgspec
from msgspec import Meta, Struct
from pydantic import ValidationError

from event_contracts.event import Event
from event_contracts.moments import IMPLAUSIBLE, is_bounded, is_implausible
from event_contracts.personal import SealedPart, sealed_parts
from servicekit.core.errors import Poison

E = TypeVar("E", bound=Event)
T = TypeVar("T")
RecordId = tuple[str, int, int]  # topic, partition, offset
Headers = list[tuple[str, bytes]]
MAX_SEALED_PARTS: Final = 1_000
_RANDOM, _VERSION_7 = 0xFFF << 64 | (1 << 62) - 1, 0x7 << 76 | 0b10 << 62
_ID = msgspec.json.Decoder(UUID)
_SEALED = msgspec.json.Decoder(Annotated[tuple[SealedPart, ...], Meta(max_length=MAX_SEALED_PARTS)])


# Structs: there is one of each for every record, and a frozen dataclass takes three times as long to make.
class RawRecord(Struct, frozen=True):
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
    def id(self) -> RecordId:
        return self.topic, self.partition, self.offset

    @property
    def aggregate(self) -> UUID | None:
        """The aggregate that the record belongs to, if its key is an id as all of ours are."""
        try:
            return _read_id(self.key or b"")
        except msgspec.DecodeError:
            return None


class Envelope(Struct, frozen=True):
    """The attributes of one event."""

    id: UUID
    type: str
    source: str
    time: datetime
    sealed: tuple[SealedPart, ...]


class Received(Struct, Generic[T], frozen=True):
    """An event, or whatever else a record says, with where it came from."""

    event: T
    id: UUID
    time: datetime
    source: str
    topic: str
    partition: int
    offset: int

    @property
    def record_id(self) -> RecordId:
        return self.topic, self.partition, self.offset


def to_headers(event: Event, *, event_id: UUID, source: str, time: datetime) -> Headers:
    """The headers of one event, its sealed parts listed."""
    attributes = to_attributes(event, event_id=event_id, source=source, time=time)
    return [(name, value.encode("ascii")) for name, value in attributes.items()]


def event_ids(time: datetime, count: int) -> list[UUID]:
    """UUIDs of version 7 (RFC 9562 §5.7): milliseconds, then 74 random bits.

    What happens at one time so lies together in every reader's inbox, however many ids the day has already brought.
    """
    milliseconds = int(time.timestamp() * 1000) << 80
    noise = os.urandom(10 * count)
    randoms = (int.from_bytes(noise[start : start + 10]) for start in range(0, 10 * count, 10))
    return [UUID(int=milliseconds | (bits & _RANDOM) | _VERSION_7) for bits in randoms]


def to_attributes(event: Event, *, event_id: UUID, source: str, time: datetime) -> dict[str, str]:
    """The same as text, by name."""
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
        attributes["ce_sealed"] = msgspec.json.encode(parts).decode()
    return attributes


def read_envelope(record: RawRecord) -> Envelope:
    """The envelope of a record. Raises `Poison` with what is wrong: a missing, doubled, null or unreadable attribute."""
    headers = dict(record.headers)
    if None in headers.values():
        raise Poison("null_header")
    if len(headers) < len(record.headers):
        raise Poison("doubled_header")
    values: dict[str, bytes] = headers  # type: ignore[assignment] # none is null
    if not b"".join(values.values()).isascii():
        raise Poison("unreadable_header")
    if values.get("ce_specversion") != b"1.0":
        raise Poison("no_cloudevent")
    try:
        time = datetime.fromisoformat(values["ce_time"].decode())
        sealed = _SEALED.decode(values.get("ce_sealed", b"[]"))
        event_id, kind, source = _read_id(values["ce_id"]), values["ce_type"].decode(), values["ce_source"].decode()
    except (KeyError, ValueError, RecursionError, msgspec.DecodeError):
        raise Poison("bad_envelope") from None
    if not is_bounded(time):
        raise Poison(IMPLAUSIBLE)
    return Envelope(event_id, kind, source, time, sealed)


def _read_id(text: bytes) -> UUID:
    return _ID.decode(b'"%b"' % text)


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
    except ValidationError as error:
        raise Poison(IMPLAUSIBLE if is_implausible(error) else "breaks_contract") from None
    except (ValueError, RecursionError):
        raise Poison("breaks_contract") from None
    if record.aggregate != event.partition_key:
        raise Poison("wrong_key")
    if sealed_parts(event) != envelope.sealed:
        raise Poison("sealed_header_differs")
    return Received(event, envelope.id, envelope.time, envelope.source, record.topic, record.partition, record.offset)


def types_of(contracts: Iterable[type[E]]) -> dict[str, type[E]]:
    return {contract.type_name(): contract for contract in contracts}


def repeat_name(event: Event) -> UUID:
    """What an event and its repeats have in common: the type, all ids, and which part it is."""
    said = ((name, getattr(event, name)) for name in type(event).model_fields)
    ids = [str(value) for name, value in said if isinstance(value, UUID) or name == "part"]
    return uuid5(NAMESPACE_URL, "/".join((event.type_name(), *ids)))
