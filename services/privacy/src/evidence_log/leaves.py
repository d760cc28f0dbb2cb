"""What the evidence log records: typed leaves of ids, codes, times and numbers. Pure. A text of a person cannot get in."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import UTC, date, datetime
from typing import Any, ClassVar, Final, Literal
from uuid import UUID, uuid4, uuid5

MAX_LEAF: Final = 64 * 1024
_CODE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,127}")
_NAMESPACE: Final = UUID("b4f3c9c2-6f0e-4f0c-9b39-5f6a3f0c7c11")

Json = Mapping[str, Any]


def leaf_id_of(kind: str, *parts: UUID | int | str) -> UUID:
    """The id of a leaf whose fact has a name of its own (random ids and numbers): recorded twice, it is one leaf."""
    return uuid5(_NAMESPACE, "/".join((kind, *map(str, parts))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A step in the life of a rights request or a hold: `what` was decided, by whom, with which machine-readable reason.

    `by` says whose `actor_id` it is; a `system` has none.
    """

    kind: ClassVar[str] = "decision"
    request_id: UUID
    what: str
    by: Literal["customer", "staff", "system"]
    at: datetime
    actor_id: UUID | None = None
    role: str | None = None
    reason: str | None = None
    leaf_id: UUID = field(default_factory=uuid4)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRecord:
    """A staff member looked at data of these people; of nobody when a search found none. `reason`: where one must be stated."""

    kind: ClassVar[str] = "look"
    staff_id: UUID
    role: str
    look: str
    subject_ids: tuple[UUID, ...]
    at: datetime
    reason: str | None = None
    leaf_id: UUID = field(default_factory=uuid4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Disclosure:
    """Fields of one class of a person's data were recorded as leaving to a recipient."""

    kind: ClassVar[str] = "disclosure"
    shipment_id: UUID
    subject_id: UUID
    anchor: UUID
    data_class: str
    recipient: str
    lane: str
    lane_version: int
    policy_version: str
    purpose: str
    fields: tuple[str, ...]
    at: datetime
    leaf_id: UUID = field(default_factory=uuid4)


@dataclass(frozen=True, slots=True)
class KeyFact:
    """A key that was destroyed: its name, and the fingerprint (hex) that the vault took of it."""

    key_id: UUID
    subject_id: UUID
    data_class: str
    anchor: UUID
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyDestruction:
    """The keys of one entry of the list of revocations were destroyed. At most 200 keys: more are several leaves, by `part`."""

    kind: ClassVar[str] = "key_destruction"
    request_id: UUID
    number: int
    keys: tuple[KeyFact, ...]
    at: datetime
    part: int = 1
    leaf_id: UUID = field(default_factory=uuid4)


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateIssued:
    """A certificate: `members` are the SHA-256 (hex) of each member of it in canonical JSON."""

    kind: ClassVar[str] = "certificate"
    certificate_id: UUID
    request_id: UUID
    amendment: int
    members: Mapping[str, str]
    at: datetime
    leaf_id: UUID = field(default_factory=uuid4)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantineDecision:
    """Records in a system's quarantine wait no longer: an operator had them tried again or put away, or their days were over."""

    kind: ClassVar[str] = "quarantine"
    decision_id: UUID
    system: str
    reader: str
    action: str
    count: int
    number: int | None
    reason: str | None
    operator: str | None
    at: datetime
    leaf_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionDecision:
    """An operator had a stopped reader of a system go on in one partition, at the offset `onto` instead of `since`."""

    kind: ClassVar[str] = "position"
    decision_id: UUID
    system: str
    reader: str
    topic: str
    partition: int
    action: str
    since: int
    onto: int
    reason: str
    operator: str
    at: datetime
    leaf_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderClosing:
    """A staff member ended an order that was stuck, as what became of it (`reason`)."""

    kind: ClassVar[str] = "order_closing"
    decision_id: UUID
    order_id: UUID
    subject_id: UUID
    staff_id: UUID
    role: str
    reason: str
    at: datetime
    leaf_id: UUID


Leaf = (
    Decision
    | AccessRecord
    | Disclosure
    | KeyDestruction
    | CertificateIssued
    | QuarantineDecision
    | PositionDecision
    | OrderClosing
)
KEYS_PER_LEAF: Final = 200


def key_destructions(request_id: UUID, number: int, keys: Iterable[KeyFact], at: datetime) -> list[KeyDestruction]:
    """The leaves of one destruction; recorded again (after a crash) they are the same leaves."""
    ordered = sorted(keys, key=lambda key: key.key_id)
    return [
        KeyDestruction(
            request_id=request_id,
            number=number,
            keys=tuple(ordered[start : start + KEYS_PER_LEAF]),
            at=at,
            part=part,
            leaf_id=leaf_id_of(KeyDestruction.kind, request_id, number, part),
        )
        for part, start in enumerate(range(0, len(ordered), KEYS_PER_LEAF), 1)
    ]


def canonical(value: Any) -> bytes:
    """JSON with sorted keys, no spaces and ASCII only: one value has one spelling."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def problem_of(leaf_id: UUID, kind: str, body: bytes) -> str | None:
    """Why this cannot be a leaf of the log, as a word; None for one that can. The journal reads back what it spells itself."""
    if len(body) > MAX_LEAF:
        return "too_large"
    try:
        read = json.loads(body)
        is_canonical = canonical(read) == body
    except (ValueError, RecursionError):
        return "no_json"
    if not is_canonical:
        return "not_canonical"
    named = isinstance(read, dict) and (read.get("leaf_id"), read.get("kind")) == (str(leaf_id), kind)
    return None if named else "wrong_name"


def encode(leaf: Leaf) -> bytes:
    """The bytes of a leaf. Raises ValueError for a string that is no code, a float or a time without zone."""
    body = canonical({"kind": leaf.kind, **plain(leaf)})
    if len(body) > MAX_LEAF:
        raise ValueError("a leaf of this size does not belong into the log: split it")
    return body


def plain(value: Any) -> Any:
    """Ids, codes, times, numbers and dataclasses of them as JSON values; nothing else passes."""
    match value:
        case None | bool() | int():
            return value
        case UUID():
            return str(value)
        case datetime():
            return _time(value)
        case date():
            return value.isoformat()
        case str():
            return _code(value)
        case Mapping():
            return {_code(name): plain(item) for name, item in value.items()}
        case tuple() | list():
            return [plain(item) for item in value]
        case _ if is_dataclass(value):
            return {each.name: plain(getattr(value, each.name)) for each in fields(value)}
        case _:
            raise ValueError(f"a {type(value).__name__} cannot be evidence")


def _time(value: datetime) -> str:
    if value.tzinfo is None:
        raise ValueError("a time of evidence says its zone")
    return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _code(text: str) -> str:
    if not _CODE.fullmatch(text):
        raise ValueError("evidence holds codes and no other text")
    return text
