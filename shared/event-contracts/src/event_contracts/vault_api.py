"""The vault's requests and answers: one type per JSON body, for its server, its client and whoever calls it directly.

Types only; docs/protocols.md#asking-the-vault has examples. Keys and digests travel as base64url without padding,
fingerprints and hashes as hex. A request is refused when it has an unknown field; in an answer one is passed over.
"""

from datetime import date, datetime
from typing import Annotated, Final, Literal
from uuid import UUID

from msgspec import Meta, Struct

# Most keys of one call, most revocations of one call, most keys of one page.
MOST_KEYS: Final = 2000
MOST_REVOCATIONS: Final = 500
MOST_AGED_KEYS: Final = 1000

RevocationAction = Literal["fence", "hold", "destroy"]
# Classes, purposes and kinds are plain strings: what the policy does not name is refused there, and faster.
_Digest = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{43}$")]  # of 32 bytes


# Keys to seal with: POST /v1/keys/ensure


class KeyBody(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`new`: it is for a new anchor of somebody, or for a new person, so a key that is gone is not made again."""

    subject: UUID
    data_class: str
    anchor: UUID
    new: Literal["anchor", "person"] | None = None


class IndexBody(Struct, frozen=True, forbid_unknown_fields=True):
    """A digest to be left beside the key at position `key` of the same request."""

    kind: str
    digest: _Digest
    key: Annotated[int, Meta(ge=0, lt=MOST_KEYS)]


class EnsureBody(Struct, frozen=True, forbid_unknown_fields=True):
    keys: Annotated[list[KeyBody], Meta(min_length=1, max_length=MOST_KEYS)]
    index: Annotated[list[IndexBody], Meta(max_length=3 * MOST_KEYS)] = []


class EnsuredKey(Struct, frozen=True):
    key_id: UUID
    generation: int
    key: str


class EnsureAnswer(Struct, frozen=True):
    """The keys are in the order of the request; `revision`: the last entry of the list that they take account of."""

    incarnation: str
    revision: int
    lease_seconds: float
    keys: list[EnsuredKey]


# Keys to open with: POST /v1/keys/lease


class LeaseBody(Struct, frozen=True, forbid_unknown_fields=True):
    key_id: UUID
    subject: UUID
    data_class: str
    anchor: UUID


class LeasesBody(Struct, frozen=True, forbid_unknown_fields=True):
    purpose: str
    keys: Annotated[list[LeaseBody], Meta(min_length=1, max_length=MOST_KEYS)]


class LeasedKey(Struct, frozen=True, omit_defaults=True):
    """`state` is active, fenced or destroyed; only an active one has a `key`."""

    key_id: UUID
    state: str
    key: str = ""


class LeaseAnswer(Struct, frozen=True):
    """As `EnsureAnswer`."""

    incarnation: str
    revision: int
    lease_seconds: float
    keys: list[LeasedKey]


# Looking up: GET /v1/index-keys, POST /v1/directory/find


class IndexKeys(Struct, frozen=True):
    """The key of each kind of blind index that was asked for."""

    lease_seconds: float
    keys: dict[str, str]


class FindBody(Struct, frozen=True, forbid_unknown_fields=True):
    kind: str
    digest: _Digest


class FoundKey(Struct, frozen=True):
    subject: UUID
    data_class: str
    anchor: UUID


class Found(Struct, frozen=True):
    found: list[FoundKey]


# Keys by age: GET /v1/keys


class AgedKey(Struct, frozen=True):
    """A living key, and when it was made."""

    key_id: UUID
    subject: UUID
    data_class: str
    anchor: UUID
    created_at: datetime


class AgedKeys(Struct, frozen=True):
    keys: list[AgedKey]


# Fencing and destroying: POST /v1/revocations, POST /v1/revocations/destroy


class HeldBody(Struct, frozen=True, forbid_unknown_fields=True):
    data_class: str
    anchor: UUID


class RevocationBody(Struct, frozen=True, forbid_unknown_fields=True):
    """What to fence of one person for one request; `data_classes` or `anchors` None: all of them."""

    request_id: UUID
    subject: UUID
    data_classes: Annotated[list[str], Meta(min_length=1)] | None = None
    anchors: Annotated[list[UUID], Meta(min_length=1)] | None = None
    held: list[HeldBody] = []


class RevocationsBody(Struct, frozen=True, forbid_unknown_fields=True):
    revocations: Annotated[list[RevocationBody], Meta(min_length=1, max_length=MOST_REVOCATIONS)]


class DestroyBody(Struct, frozen=True, forbid_unknown_fields=True):
    request_ids: Annotated[list[UUID], Meta(min_length=1, max_length=MOST_REVOCATIONS)]


class KeyOutcome(Struct, frozen=True):
    """What became of one key. `fingerprint`: SHA-256 of a label and the key, in hex; it outlives the key."""

    key_id: UUID
    data_class: str
    anchor: UUID
    state: Literal["fenced", "held", "destroyed"]
    fingerprint: str


class RevokedBody(Struct, frozen=True):
    """All keys under one request and person; `number` is that of the last entry of the list about them (0: none)."""

    request_id: UUID
    subject: UUID
    number: int
    keys: list[KeyOutcome]


class RevocationsAnswer(Struct, frozen=True):
    incarnation: str
    head: int
    revocations: list[RevokedBody]


class DestroyAnswer(Struct, frozen=True):
    """`horizon`: the day from which on not even raw copies of the vault open the keys."""

    incarnation: str
    head: int
    destroyed: list[RevokedBody]
    horizon: date


# The list and who is done with it: GET /v1/revocations, GET /v1/drained, DELETE /v1/holders/{holder}


class Entry(Struct, frozen=True):
    """One entry: what happened to these keys of one person. No personal data: numbers, random ids and hashes in hex.

    `is_final`: the whole person is fenced for good. An entry may name no key: the person had none.
    """

    number: int
    action: RevocationAction
    request_id: UUID
    subject: UUID
    is_final: bool
    key_ids: list[UUID]
    previous_hash: str
    hash: str


class RevocationPage(Struct, frozen=True):
    """Entries after the number that was asked for, in order; `head` is the number of the last one that there is."""

    incarnation: str
    head: int
    entries: list[Entry]


class Holder(Struct, frozen=True):
    """A process that may still work with keys named up to a number; `until` (ISO 8601) its last lease is over."""

    system: str
    holder: UUID
    done: int
    until: str


class Drained(Struct, frozen=True):
    drained: bool
    waiting_for: list[Holder]


class Done(Struct, frozen=True):
    """An answer that says nothing but that it was done."""


# KEK epochs: GET /v1/kek, POST /v1/kek/rotations


class KekEpoch(Struct, frozen=True):
    """`keys`: living keys that this epoch's KEK still wraps."""

    epoch: int
    state: str
    keys: int
    opened_at: datetime
    closed_at: datetime | None
    emptied_at: datetime | None
    destroyed_at: datetime | None


class KekEpochs(Struct, frozen=True):
    """`horizon`: from that day on no copy of the vault opens what is erased today. `strays`: KEKs without an epoch."""

    provider: str
    horizon: date
    strays: list[str]
    epochs: list[KekEpoch]
