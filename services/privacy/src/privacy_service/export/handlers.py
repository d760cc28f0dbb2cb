"""What an export does: keeps the participants' sealed parts, gives them out once, and destroys their key.

`begin_export` → parts arrive → `is_complete` → `make_ready` → a link → fetched or expired (`read_end`) → the key is destroyed.

Once, with a break in the middle: a link is used up when its download begins. The export itself ends when a download has
sent its last byte. So a download that broke is tried again with a fresh link, as long as the export has not expired.
"""

import hashlib
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal
from uuid import UUID

from event_contracts.privacy import HoldingsExported
from event_contracts.topics import system_replies
from evidence_log import handlers as evidence
from evidence_log.leaves import KeyFact, Leaf, key_destructions
from privacy_service import vault_revocations
from privacy_service.export import store
from privacy_service.export.domain import Facts
from privacy_service.export.packages import build
from privacy_service.export.rows import Kind
from privacy_service.export.sources import Parts
from privacy_service.inventory.access_records import record_access
from privacy_service.vault_revocations import Revocation, Revoked, may_be_to_blame
from servicekit import Customer, Job, Kit, Received, Record, Staff, Tx, get_log
from servicekit.core.errors import Conflict, NotFound, Poison
from servicekit.core.faults import declare, faultpoint
from servicekit.core.logs import code
from servicekit.core.metrics import SET_ASIDE
from servicekit.db.postgres import Database

End = Literal["fetched", "expired", "cancelled"]
LINK_LIFE: Final = timedelta(hours=24)
DATA_CLASS: Final = "export"
END_EVERY: Final = timedelta(seconds=1)
_AT_ONCE: Final = 100
log = get_log("exports")

declare("export.revoked", "export.destroyed", "export.fetched")


@dataclass(frozen=True, slots=True)
class Link:
    """Where to fetch the package, once, until when."""

    path: str
    expires_at: datetime


async def begin_export(tx: Tx, request_id: UUID, kind: Kind, subject_ids: Sequence[UUID], now: datetime) -> None:
    """Call it in the transaction that sends `ExportHoldings`. Parts without an export are dropped."""
    await store.write_export(tx, request_id, kind, subject_ids, now)


async def on_holdings_exported(tx: Tx, received: Sequence[Received[HoldingsExported]]) -> None:
    """Keeps the parts of a batch, sealed as they came. Raises `Poison` when another system is named than the topic's owner."""
    if any(each.topic != system_replies(each.event.system) for each in received):
        raise Poison("wrong_producer")
    sealed = {each.event.content.key_id for each in received if each.event.content is not None}
    erased = await tx.revoked(sealed)
    await store.write_parts(tx, received, erased)
    late = [each for each in received if each.event.content is not None and each.event.content.key_id not in erased]
    await store.note_late_parts(tx, [(each.event.request_id, each.event.subject_id) for each in late])


async def is_complete(db: Database | Tx, request_id: UUID, systems: Sequence[str]) -> list[str]:
    """The systems of which something is missing; empty when all is there."""
    return await store.read_missing(db, request_id, systems)


async def make_ready(kit: Kit, tx: Tx, request_id: UUID) -> datetime:
    """The export may be fetched. Returns when it expires. Raises `Conflict` if it has ended already."""
    now = kit.clock.now()
    expires = now + timedelta(days=kit.policy.classes[DATA_CLASS].retention.days)
    found = await store.set_ready(tx, request_id, now, expires)
    if found is None:
        raise Conflict("This export is over. Open a new request.")
    return found


async def end_export(tx: Tx, request_id: UUID, now: datetime, ended_as: End = "cancelled") -> None:
    """The first end counts; a job destroys the key afterwards."""
    await store.set_ended(tx, request_id, now, ended_as)


async def read_end(db: Database | Tx, request_id: UUID) -> End | None:
    """How it ended, once its key is destroyed; None before."""
    row = await store.read_export(db, request_id)
    return row["ended_as"] if row is not None and row["destroyed_at"] is not None else None


async def make_link(kit: Kit, who: Staff | Customer, request_id: UUID) -> Link:
    """A fresh link; one made before it and not used is void. Of the token only a hash is kept, so it is shown once.

    A customer gets one for an export about nobody else. Raises `NotFound`; `Conflict` if it is not ready, or over.
    """
    token = secrets.token_urlsafe(32)
    now = kit.clock.now()

    async def work(tx: Tx) -> datetime:
        subjects = await store.read_subjects(tx, request_id)
        if isinstance(who, Customer) and subjects != [who.subject_id]:
            raise NotFound
        if await store.read_export(tx, request_id) is None:
            raise NotFound
        expires = await store.write_link(tx, request_id, _hash(token), now, now + LINK_LIFE)
        if expires is None:
            raise Conflict("There is nothing to fetch: the export is not ready yet, or it was fetched, or it is over.")
        if isinstance(who, Staff):
            await record_access(tx, who.staff_id, who.role, now, "export_link", subjects)
        return expires

    expires = await kit.run_tx("make_link", work)
    return Link(f"/v1/exports/{token}", expires)


@dataclass(frozen=True)
class Package:
    """The bytes of a package, and `check`, to be called right before each piece is sent."""

    kit: Kit
    chunks: AsyncIterator[bytes]
    check: Callable[[], Awaitable[None]]


async def fetch(kit: Kit, token: str) -> Package:
    """The link is used up when this returns; the export ends after the last byte was taken.

    Raises `NotFound` for a link that is unknown, used or over, and `Conflict` if the data was erased meanwhile.
    """

    async def use(tx: Tx) -> Facts:
        row = await store.use_link(tx, _hash(token), kit.clock.now())
        if row is None:
            raise NotFound("There is nothing to fetch under this link: it was used, or it is over. Ask for a new one.")
        subjects = await store.read_subjects(tx, row["request_id"])
        return Facts(row["request_id"], row["kind"], kit.clock.now(), kit.policy, len(subjects))

    facts = await kit.run_tx("use_link", use)
    parts = await Parts.of(kit, facts.request_id)
    chunks = build(facts, parts)
    # Whatever is wrong with the parts shows before the first byte, and so as an error and not as a broken file.
    first = await anext(chunks)
    return Package(kit, _fetched(kit, facts.request_id, first, chunks), parts.check)


async def _fetched(kit: Kit, request_id: UUID, first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk

    async def work(tx: Tx) -> None:
        await end_export(tx, request_id, kit.clock.now(), "fetched")

    await kit.run_tx("export_fetched", work)
    faultpoint("export.fetched")


async def end_exports(kit: Kit) -> None:
    """A job: what has expired ends, and the keys of what has ended are destroyed. It may be repeated at any point."""

    async def expire(tx: Tx) -> None:
        await store.end_expired(tx, kit.clock.now(), _AT_ONCE)

    await kit.run_tx("end_expired", expire)
    by_request: dict[UUID, list[Record]] = defaultdict(list)
    for row in await store.read_to_destroy(kit.db, _AT_ONCE):
        by_request[row["request_id"]].append(row)
    if not by_request:
        return
    try:
        await _destroy(kit, [row for rows in by_request.values() for row in rows])
    except Exception as error:
        if len(by_request) == 1 or not await may_be_to_blame(kit, error):
            raise
        log.warning("batch_failed", work=code("exports"), error=error, taken=len(by_request))
        for request_id, rows in by_request.items():
            try:
                await _destroy(kit, rows)
            except Exception as alone:  # noqa: BLE001 - the next run tries it again
                SET_ASIDE.labels("exports").inc()
                log.error("set_aside", work=code("exports"), request_id=request_id, error=alone)


async def _destroy(kit: Kit, rows: Sequence[Record]) -> None:
    keys = [
        Revocation(row["revocation_id"], row["subject_id"], (DATA_CLASS,), (row["request_id"],))
        for row in rows
        if row["subject_id"] is not None
    ]
    await vault_revocations.revoke(kit, keys)
    faultpoint("export.revoked")
    destroyed = await vault_revocations.destroy(kit, list(dict.fromkeys(key.request_id for key in keys)))
    faultpoint("export.destroyed")
    now = kit.clock.now()

    async def work(tx: Tx) -> None:
        await evidence.append(tx, [leaf for each in destroyed for leaf in _leaves(each, now)])
        await store.set_destroyed(tx, [(row["request_id"], row["revocation_id"]) for row in rows], now)

    await kit.run_tx("end_exports", work)


def _leaves(destroyed: Revoked, at: datetime) -> Sequence[Leaf]:
    if destroyed.subject is None:
        return []
    keys = [
        KeyFact(key.key_id, destroyed.subject, key.data_class, key.anchor, key.fingerprint)
        for key in destroyed.keys
        if key.state == "destroyed"
    ]
    return key_destructions(destroyed.request_id, destroyed.number, keys, at)


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


JOBS: Final = (Job("exports", END_EVERY, end_exports),)
