"""What the rights sagas ask of the vault: fence and hold keys, destroy them, and who still works with them.

All calls may be repeated: an answer that was lost is given again, and nothing happens twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final, Literal
from uuid import UUID

import msgspec

from servicekit import Kit
from servicekit.core.errors import Doubtful, Forbidden, TooMany, Unavailable
from servicekit.db.postgres import is_up

# Something that all requests need is away, or refuses this service: no request is to blame.
NOT_TO_BLAME: Final = (Unavailable, TooMany, Forbidden)
# So often a request may fail as in an outage before it may be to blame. A run ends after so many such requests.
DOUBTS: Final = 5
LARGEST_BATCH: Final = 500
# The vault waits until every older writer has ended, which its time-outs bound.
_PATIENCE: Final = 45.0


@dataclass(frozen=True, slots=True)
class Revocation:
    """What to fence of one person for one request.

    `data_classes` None: all of them. `anchors` None: all of them; both None fence the whole person for good. `held`
    names (data class, anchor) that stay readable for the purposes in the policy's `held_for`; a later call with fewer
    of them ends their hold.
    """

    request_id: UUID
    subject: UUID
    data_classes: tuple[str, ...] | None = None
    anchors: tuple[UUID, ...] | None = None
    held: tuple[tuple[str, UUID], ...] = ()


@dataclass(frozen=True, slots=True)
class KeyOutcome:
    """What became of one key. `fingerprint`: SHA-256 of a label and the key, in hex; it outlives the key."""

    key_id: UUID
    data_class: str
    anchor: UUID
    state: Literal["fenced", "held", "destroyed"]
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Revoked:
    """All keys under one request and person; `number` is that of the last entry of the list about them (0: none).

    `horizon`: the day from which on not even raw copies of the vault open them; only `destroy` answers it.
    """

    request_id: UUID
    number: int
    keys: tuple[KeyOutcome, ...]
    horizon: date | None = None
    subject: UUID | None = None


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that may still work with keys named up to a number; `until` (ISO 8601) its last lease is over."""

    system: str
    holder: UUID
    done: int
    until: str


class _Key(msgspec.Struct, frozen=True):
    key_id: UUID
    data_class: str
    anchor: UUID
    state: Literal["fenced", "held", "destroyed"]
    fingerprint: str


class _Revoked(msgspec.Struct, frozen=True):
    request_id: UUID
    subject: UUID
    number: int
    keys: list[_Key]


class _Revocations(msgspec.Struct, frozen=True):
    revocations: list[_Revoked]


class _Destroyed(msgspec.Struct, frozen=True):
    destroyed: list[_Revoked]
    horizon: date | None = None


class _Holder(msgspec.Struct, frozen=True):
    system: str
    holder: UUID
    done: int
    until: str


class _Drained(msgspec.Struct, frozen=True):
    drained: bool
    waiting_for: list[_Holder]


async def revoke(kit: Kit, wanted: Sequence[Revocation]) -> list[Revoked]:
    """Fence and hold the keys of all of these, in the same order; when this returns, no writer can have missed it.

    One call and one flush of the list's file per 500. Raises Forbidden, Invalid, Unavailable.
    """
    found: list[Revoked] = []
    for start in range(0, len(wanted), LARGEST_BATCH):
        body = {"revocations": [_as_json(each) for each in wanted[start : start + LARGEST_BATCH]]}
        answer = await kit.vault.call("POST", "/v1/revocations", _Revocations, body, patience=_PATIENCE)
        found += [_revoked(each) for each in answer.revocations]
    return found


async def destroy(kit: Kit, request_ids: Sequence[UUID]) -> list[Revoked]:
    """Destroy what is fenced (not what is held) under these requests; one answer per request and person, for requests
    in the same order. Raises Forbidden, Unavailable.
    """
    found: list[Revoked] = []
    for start in range(0, len(request_ids), LARGEST_BATCH):
        body = {"request_ids": list(request_ids[start : start + LARGEST_BATCH])}
        answer = await kit.vault.call("POST", "/v1/revocations/destroy", _Destroyed, body, patience=_PATIENCE)
        found += [_revoked(each, answer.horizon) for each in answer.destroyed]
    return found


async def drained(kit: Kit, number: int) -> list[Holder]:
    """Who may still work with keys that entries up to `number` name: empty when nobody does. Raises Forbidden, Unavailable."""
    answer = await kit.vault.call("GET", f"/v1/drained?number={number}", _Drained)
    return [Holder(each.system, each.holder, each.done, each.until) for each in answer.waiting_for]


async def may_be_to_blame(kit: Kit, error: Exception, attempts: int = 0) -> bool:
    """Whether one request may be the cause. What all need is not away: the database answers another statement.

    With `DOUBTS` `attempts` it may also be what the vault cannot do in time, if that answers another question.
    """
    if isinstance(error, Doubtful):
        return await is_up(kit.db)
    if type(error) is not Unavailable or attempts < DOUBTS:
        return not isinstance(error, NOT_TO_BLAME)
    try:
        await drained(kit, 0)
    except NOT_TO_BLAME:
        return False
    return True


def _as_json(wanted: Revocation) -> dict[str, Any]:
    return {
        "request_id": wanted.request_id,
        "subject": wanted.subject,
        "data_classes": wanted.data_classes,
        "anchors": wanted.anchors,
        "held": [{"data_class": data_class, "anchor": anchor} for data_class, anchor in wanted.held],
    }


def _revoked(answer: _Revoked, horizon: date | None = None) -> Revoked:
    keys = (KeyOutcome(key.key_id, key.data_class, key.anchor, key.state, key.fingerprint) for key in answer.keys)
    return Revoked(answer.request_id, answer.number, tuple(keys), horizon, answer.subject)
