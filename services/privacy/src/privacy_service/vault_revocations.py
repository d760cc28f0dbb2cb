"""Calls of the vault: fence and hold keys, destroy them, and list who still works with them.

All calls may be repeated: a reply that was lost is given again, and nothing happens twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final
from uuid import UUID

from event_contracts.vault_api import (
    MOST_REVOCATIONS,
    DestroyAnswer,
    DestroyBody,
    Drained,
    HeldBody,
    Holder,
    KeyOutcome,
    RevocationBody,
    RevocationsAnswer,
    RevocationsBody,
    RevokedBody,
)
from servicekit import Kit
from servicekit.core.errors import Doubtful, Forbidden, TooMany, Unavailable
from servicekit.db.postgres import is_up

# Something that all requests need is away, or refuses this service: no request is to blame.
NOT_TO_BLAME: Final = (Unavailable, TooMany, Forbidden)
# So often a request may fail as in an outage before it may be to blame. A run ends after so many such requests.
DOUBTS: Final = 5
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
class Revoked:
    """All keys under one request and person; `number` is that of the last entry of the list about them (0: none).

    `horizon`: the day from which on not even raw copies of the vault open them; only `destroy` returns it.
    """

    request_id: UUID
    number: int
    keys: tuple[KeyOutcome, ...]
    horizon: date | None = None
    subject: UUID | None = None


async def revoke(kit: Kit, wanted: Sequence[Revocation]) -> list[Revoked]:
    """Fence and hold the keys of all of these, in the same order; when this returns, no writer can have missed it.

    One call and one flush of the list's file per 500. Raises Forbidden, Invalid, Unavailable.
    """
    found: list[Revoked] = []
    for start in range(0, len(wanted), MOST_REVOCATIONS):
        body = RevocationsBody([_body(each) for each in wanted[start : start + MOST_REVOCATIONS]])
        answer = await kit.vault.call("POST", "/v1/revocations", RevocationsAnswer, body, patience=_PATIENCE)
        found += [_revoked(each) for each in answer.revocations]
    return found


async def destroy(kit: Kit, request_ids: Sequence[UUID]) -> list[Revoked]:
    """Destroy what is fenced (not what is held) under these requests; one reply per request and person, for requests
    in the same order. Raises Forbidden, Unavailable.
    """
    found: list[Revoked] = []
    for start in range(0, len(request_ids), MOST_REVOCATIONS):
        body = DestroyBody(list(request_ids[start : start + MOST_REVOCATIONS]))
        answer = await kit.vault.call("POST", "/v1/revocations/destroy", DestroyAnswer, body, patience=_PATIENCE)
        found += [_revoked(each, answer.horizon) for each in answer.destroyed]
    return found


async def drained(kit: Kit, number: int) -> list[Holder]:
    """Who may still work with keys that entries up to `number` name: empty when nobody does. Raises Forbidden, Unavailable."""
    answer = await kit.vault.call("GET", f"/v1/drained?number={number}", Drained)
    return answer.waiting_for


async def may_be_to_blame(kit: Kit, error: Exception, attempts: int = 0) -> bool:
    """Whether one request may be the cause: the database still executes another statement, so it is not unavailable.

    After `DOUBTS` attempts it may also be a call that the vault cannot do in time, if the vault replies to another call.
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


def _body(wanted: Revocation) -> RevocationBody:
    return RevocationBody(
        wanted.request_id,
        wanted.subject,
        None if wanted.data_classes is None else list(wanted.data_classes),
        None if wanted.anchors is None else list(wanted.anchors),
        [HeldBody(data_class, anchor) for data_class, anchor in wanted.held],
    )


def _revoked(answer: RevokedBody, horizon: date | None = None) -> Revoked:
    return Revoked(answer.request_id, answer.number, tuple(answer.keys), horizon, answer.subject)
