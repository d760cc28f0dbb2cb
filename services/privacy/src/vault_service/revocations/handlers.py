"""The revocation list's writers: fence and hold, wait out, destroy; and the catching up of a database with its file.

Each call: the fences are committed, every writer that could have missed them has ended
(docs/protocols.md#fence-wait-out-sweep), and then one transaction moves the keys, numbers the entries, flushes them to the
file, and commits.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

from event_contracts.vault_api import Entry
from servicekit import Tx, get_log
from servicekit.core.faults import declare, faultpoint
from servicekit.db.writers import wait_out
from vault_service.domain import bound
from vault_service.handlers import Vault, refused
from vault_service.kek import Kek, WrongKek
from vault_service.revocations import store
from vault_service.revocations.domain import (
    Case,
    Draft,
    FoundKey,
    Named,
    Wanted,
    destroy,
    fence,
    number,
    replay,
)
from vault_service.revocations.file import ListRefused, RevocationFile, Tip
from vault_service.revocations.store import ListHead

declare("vault.fenced", "vault.waited_out", "vault.list_flushed", "vault.listed")
log = get_log("vault")

_REPLAYED_AT_ONCE: Final = 1000
_FINGERPRINT: Final = b"fingerprint/v1\n"
_FINGERPRINT_OF_WRAPPED: Final = b"fingerprint-of-wrapped/v1\n"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a case: its last entry's number, and its keys."""

    case: Case
    number: int
    keys: tuple[FoundKey, ...]


Decide = Callable[[Tx], Awaitable[tuple[list[Draft], dict[Case, Named]]]]


async def revoke(vault: Vault, service: str, wanted: Sequence[Wanted]) -> tuple[ListHead, list[Outcome]]:
    """Fence and hold what is wanted, all in one batch; answers in the same order.

    May be repeated. Raises Forbidden, ListRefused, Unavailable.
    """
    _check_grant(vault, service)

    async def write_fences(tx: Tx) -> None:
        await store.write_fences(tx, wanted)

    await vault.db.run_tx("write_fences", write_fences)
    faultpoint("vault.fenced")
    await wait_out(vault.db, vault.clock, store.KEY_TABLES)
    faultpoint("vault.waited_out")
    found: dict[Case, dict[UUID, FoundKey]] = {}

    async def decide(tx: Tx) -> tuple[list[Draft], dict[Case, Named]]:
        found.clear()
        scoped = await store.read_scoped(tx, wanted)
        named = await store.read_named(tx, [each.case for each in wanted])
        finals = await store.read_finals(tx, [each.case.subject for each in wanted])
        by_id: dict[UUID, FoundKey] = {}
        for case, key in scoped:
            one = by_id.setdefault(key.key_id, key)  # one object, whichever cases it is in
            if key.state != "destroyed" or key.key_id in named[case].key_ids:
                found.setdefault(case, {})[key.key_id] = one
        drafts: list[Draft] = []
        for each in _merged(wanted):
            keys = list(found.get(each.case, {}).values())
            drafts += fence(each, keys, named[each.case], each.case.subject in finals)
        return drafts, named

    head, named = await _list(vault, "revoke", decide)
    faultpoint("vault.listed")
    return head, [
        Outcome(each.case, named[each.case].number, tuple(found.get(each.case, {}).values())) for each in wanted
    ]


async def destroy_keys(vault: Vault, service: str, request_ids: Sequence[UUID]) -> tuple[ListHead, list[Outcome]]:
    """Destroy what is fenced under these requests; one answer per request and person, with all keys named under it.

    May be repeated. Raises Forbidden, ListRefused, Unavailable.
    """
    _check_grant(vault, service)
    found: dict[Case, list[FoundKey]] = {}

    async def decide(tx: Tx) -> tuple[list[Draft], dict[Case, Named]]:
        found.clear()
        named = await store.read_requests(tx, request_ids)
        wanted = {(case.subject, key_id) for case, each in named.items() for key_id in each.key_ids}
        keys = await store.read_keys(tx, sorted(wanted))
        finals = await store.read_finals(tx, [case.subject for case in named])
        drafts: list[Draft] = []
        for case, each in named.items():
            found[case] = [keys[key_id] for key_id in sorted(each.key_ids) if key_id in keys]
            drafts += destroy(case, found[case], case.subject in finals)
        return drafts, named

    head, named = await _list(vault, "destroy", decide)
    return head, [Outcome(case, named[case].number, tuple(keys)) for case, keys in found.items()]


async def catch_up(vault: Vault) -> None:
    """Apply what the file has and the database lacks. Raises ListRefused when the file is behind, changed or missing."""
    file = _file(vault)

    async def work(tx: Tx) -> None:
        head = await store.lock_head(tx)
        with file.locked():
            await _catch_up(vault.kek, tx, file, head)

    await vault.db.run_tx("catch_up", work)


async def differs(vault: Vault) -> bool:
    """Whether file and database end in different places; for a moment they do while an entry is being written."""
    tip = await store.read_tip(vault.db)
    return await asyncio.to_thread(_file(vault).read) != tip


async def _list(vault: Vault, name: str, decide: Decide) -> tuple[ListHead, dict[Case, Named]]:
    """One transaction: what `decide` says goes to the keys, the list and the file."""
    file = _file(vault)

    async def work(tx: Tx) -> tuple[ListHead, dict[Case, Named]]:
        head = await store.lock_head(tx)
        with file.locked():
            head = await _catch_up(vault.kek, tx, file, head)
            drafts, named = await decide(tx)
            entries = number(drafts, head.tip.number, head.tip.hash)
            if not entries:
                return head, named
            await _change_keys(vault.kek, tx, (key for draft in drafts for key in draft.keys))
            await store.insert_entries(tx, entries)
            tip = Tip(entries[-1].number, entries[-1].hash)
            await store.move_head(tx, tip)
            for entry in entries:
                named[Case(entry.request_id, entry.subject)].add(
                    entry.number, entry.action, entry.is_final, entry.key_ids
                )
            await asyncio.to_thread(file.append, entries)
            tx.wake(vault.listed)
        faultpoint("vault.list_flushed")
        return ListHead(head.incarnation, tip), named

    return await vault.db.run_tx(name, work)


async def _catch_up(kek: Kek, tx: Tx, file: RevocationFile, head: ListHead) -> ListHead:
    tip = await asyncio.to_thread(file.read)
    if tip == head.tip:
        return head
    if tip.number < head.tip.number:
        raise ListRefused(
            "REVOCATIONS_FILE is missing, or ends before the database does. Put the whole file back: without it,"
            " a restored database would bring erased people back."
        )
    missing = await asyncio.to_thread(file.entries_after, head.tip.number)
    if tip.number == head.tip.number or missing[0].previous_hash != head.tip.hash:
        raise ListRefused("REVOCATIONS_FILE is not the list of this database. Put back the right one.")
    for start in range(0, len(missing), _REPLAYED_AT_ONCE):
        await _replay(kek, tx, missing[start : start + _REPLAYED_AT_ONCE])
    await store.move_head(tx, tip, is_restored=True)
    log.warning("list_replayed", entries=len(missing), number=tip.number)
    return await store.lock_head(tx)


async def _replay(kek: Kek, tx: Tx, entries: Sequence[Entry]) -> None:
    named = {(entry.subject, key_id) for entry in entries for key_id in entry.key_ids}
    keys = await store.read_keys(tx, sorted(named))
    moved = replay(entries, keys)
    await _change_keys(kek, tx, (keys[key_id] for key_id in moved))
    await store.fence_for_good(tx, [entry.subject for entry in entries if entry.is_final])
    await store.insert_entries(tx, entries)


async def _change_keys(kek: Kek, tx: Tx, keys: Iterable[FoundKey]) -> None:
    changed: Mapping[UUID, FoundKey] = {key.key_id: key for key in keys}
    for key in changed.values():
        if key.fingerprint is None and key.stored.wrapped:
            key.fingerprint = _fingerprint(kek, key)
    await store.change_keys(tx, list(changed.values()))


def _fingerprint(kek: Kek, key: FoundKey) -> bytes:
    stored = key.stored
    try:
        raw = kek.unwrap(
            stored.epoch, stored.wrapped, bound(stored.key_id, stored.name, stored.generation, stored.epoch)
        )
    except WrongKek:
        # A row that was damaged must not keep a person from being erased.
        log.error("unwrap_failed", key_id=stored.key_id, epoch=stored.epoch)
        return hashlib.sha256(_FINGERPRINT_OF_WRAPPED + stored.wrapped).digest()
    return hashlib.sha256(_FINGERPRINT + raw).digest()


def _merged(wanted: Sequence[Wanted]) -> list[Wanted]:
    """One of each case: what is asked for twice, with other scopes, is one revocation of both."""
    merged: dict[Case, Wanted] = {}
    for each in wanted:
        former = merged.get(each.case, each)
        wider = former if former.is_final else each
        merged[each.case] = replace(wider, held=each.held | former.held)
    return list(merged.values())


def _check_grant(vault: Vault, service: str) -> None:
    if not vault.policy.may_revoke(service):
        raise refused(service, "no_revoke_grant")


def _file(vault: Vault) -> RevocationFile:
    if vault.file is None:
        raise ListRefused("This vault was started without REVOCATIONS_FILE.")
    return vault.file
