"""What the vault does for a service that it knows: ensure, lease, index keys, find. Nothing without a grant (L7)."""

import asyncio
import secrets
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from servicekit import Tx, get_log
from servicekit.core.clock import Clock
from servicekit.core.errors import Fenced, Forbidden, Gone, NoSuchKey, Taken, Unavailable
from servicekit.core.faults import declare, faultpoint
from servicekit.core.logs import code
from servicekit.core.metrics import KEYS_ENSURED, KEYS_LEASED, LEASES_REFUSED
from servicekit.core.policy import Policy
from servicekit.db.postgres import Database
from servicekit.vault.client import IndexEntry, LeaseName
from servicekit.vault.leases import KeyName
from servicekit.vault.token import KEY_BYTES
from vault_service import store
from vault_service.domain import Action, Standing, StoredKey, Tally, bound
from vault_service.kek import Kek, WrongKek
from vault_service.lease_audit import Ages, Notes
from vault_service.revocations.file import RevocationFile
from vault_service.store import Head, Leased

declare("vault.keys_inserted", "vault.ensured")
log = get_log("vault")


@dataclass(frozen=True)
class Vault:
    """What the handlers work with; one per process. `listed` is set when this process has added to the list of revocations."""

    db: Database
    policy: Policy
    kek: Kek
    clock: Clock
    tally: Tally = field(default_factory=Tally)
    file: RevocationFile | None = None
    notes: Notes = field(default_factory=Notes)
    ages: Ages = field(default_factory=Ages)
    listed: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class Newcomers:
    """What the caller says is new: people, and names of which there was no key that is gone."""

    people: frozenset[UUID] = frozenset()
    names: frozenset[KeyName] = frozenset()


async def ensure_keys(
    vault: Vault,
    service: str,
    names: Sequence[KeyName],
    index: Sequence[IndexEntry],
    new: Newcomers = Newcomers(),
) -> tuple[Head, list[tuple[StoredKey, bytes]]]:
    """The key of each name, in the same order, made where there is none; returns after the commit.

    Raises Forbidden, TooMany, Fenced (one of the subjects is), Gone, Taken (see `_check_new`), WrongKek, Unavailable.
    """
    for name in names:
        if not vault.policy.may_seal(service, name.data_class):
            raise refused(service, "no_seal_grant")
    for entry in index:
        if not vault.policy.may_index(service, entry.kind):
            raise refused(service, "no_index_grant")
    _count(vault, service, "ensured", [name.data_class for name in names])

    async def work(tx: Tx) -> tuple[Head, list[StoredKey]]:
        head, standings = await store.read_standings(tx, names)
        await _check_new(tx, service, standings, new)
        made = await _make_keys(vault, tx, standings, service)
        if made is None:
            # Another transaction made some of them first; by now it has committed, and its keys are ours.
            head, standings = await store.read_standings(tx, names)
        keys = _usable(standings, made or {})
        if index:
            entries = [(keys[entry.key].name.subject, keys[entry.key].key_id, entry) for entry in index]
            await store.write_directory(tx, [(subject, key, e.kind, e.digest) for subject, key, e in entries])
        return head, keys

    async def attempt() -> tuple[Head, list[tuple[StoredKey, bytes]]]:
        head, keys = await vault.db.run_tx("ensure_keys", work)
        faultpoint("vault.ensured")
        return head, [(key, _unwrap(vault.kek, key)) for key in keys]

    head, keys = await vault.kek.with_loaded(attempt)
    for data_class, count in Counter(name.data_class for name in names).items():
        KEYS_ENSURED.labels(service, data_class).inc(count)
    return head, keys


async def _check_new(tx: Tx, service: str, standings: Iterable[Standing], new: Newcomers) -> None:
    """Raises Gone when a name that is said to be new had a key, or a new person was fenced or lost one.

    Taken when a new person has a key that another system made: their id is somebody else's (docs/protocols.md#keys).
    """
    if new.people:
        gone, taken = await store.read_newcomers(tx, new.people, service)
        if taken:
            LEASES_REFUSED.labels(service, "not_a_new_person").inc()
            log.warning("refused", system=code(service), reason=code("not_a_new_person"))
            raise Taken
        if gone:
            raise Gone
    if any(each.is_gone and each.name in new.names for each in standings):
        raise Gone


async def _make_keys(
    vault: Vault, tx: Tx, standings: Iterable[Standing], maker: str
) -> dict[KeyName, StoredKey] | None:
    """A key for each name that has none; None if not all could be made here."""
    missing = {each.name: each for each in standings if each.key is None and not each.is_fenced}
    if not missing:
        return {}
    epoch = await store.lock_active_epoch(tx)
    keys = {name: _new_key(vault.kek, each, epoch) for name, each in missing.items()}
    inserted = await store.insert_keys(tx, list(keys.values()), maker)
    faultpoint("vault.keys_inserted")
    return keys if inserted == len(keys) else None


def _new_key(kek: Kek, standing: Standing, epoch: int) -> StoredKey:
    key_id, generation = uuid4(), standing.next_generation
    wrapped = kek.wrap(epoch, secrets.token_bytes(KEY_BYTES), bound(key_id, standing.name, generation, epoch))
    return StoredKey(key_id, standing.name, generation, epoch, wrapped)


def _usable(standings: Sequence[Standing], made: Mapping[KeyName, StoredKey]) -> list[StoredKey]:
    if any(each.is_fenced for each in standings):
        raise Fenced
    found = (each.key or made.get(each.name) for each in standings)
    keys = [key for key in found if key is not None]
    if len(keys) != len(standings):
        # A key was fenced between our insert and our look; on the next try its name begins a new generation.
        raise Unavailable("A key was fenced while it was asked for. Try again.")
    return keys


async def lease_keys(
    vault: Vault, service: str, purpose: str, wanted: Sequence[LeaseName]
) -> tuple[Head, list[tuple[str, bytes | None]]]:
    """(state, key while it is active) of each, in the same order. A held key is active for the purposes that are left.

    Raises Forbidden, TooMany, NoSuchKey (an id that is unknown or belongs to another name), WrongKek, Unavailable.
    """
    for data_class in {lease.data_class for lease in wanted}:
        if not vault.policy.may_open(service, data_class, purpose):
            raise refused(service, "no_open_grant")
    _count(vault, service, "leased", [lease.data_class for lease in wanted])

    async def attempt() -> tuple[Head, list[tuple[str, bytes | None]]]:
        found = await store.read_leases(vault.db, wanted)
        if found is None:
            LEASES_REFUSED.labels(service, "unknown_key").inc()
            raise NoSuchKey
        head, leases = found
        pairs = zip(wanted, leases, strict=True)
        return head, [_lease(vault, each, asked.data_class, purpose) for asked, each in pairs]

    head, keys = await vault.kek.with_loaded(attempt)
    for data_class, count in Counter(lease.data_class for lease in wanted).items():
        KEYS_LEASED.labels(service, data_class, purpose).inc(count)
    return head, keys


def _lease(vault: Vault, leased: Leased, data_class: str, purpose: str) -> tuple[str, bytes | None]:
    state = leased.state
    if state == "held":
        state = "active" if purpose in vault.policy.classes[data_class].held_for else "fenced"
    if state == "active" and leased.key is not None:
        return state, _unwrap(vault.kek, leased.key)
    return state, None


def index_keys(vault: Vault, service: str, kinds: Iterable[str]) -> dict[str, bytes]:
    """The key of each blind index. Raises Forbidden."""
    granted = vault.policy.index_kinds(service)
    wanted = list(kinds)
    if not wanted or not granted.issuperset(wanted):
        raise refused(service, "no_index_grant")
    return {kind: vault.kek.index_key(kind) for kind in wanted}


async def find_names(vault: Vault, service: str, kind: str, digest: bytes) -> list[KeyName]:
    """Whose active keys have this digest beside them, at most 100. Raises Forbidden."""
    if not vault.policy.may_find(service, kind):
        raise refused(service, "no_find_grant")
    return await store.find_names(vault.db, kind, digest)


async def store_counts(vault: Vault) -> None:
    """Add what the tally has counted to the table; what cannot be stored now is kept for the next time."""
    counts = vault.tally.drain()
    if not counts:
        return

    async def work(tx: Tx) -> None:
        await store.add_lease_counts(tx, counts)

    try:
        await vault.db.run_tx("add_lease_counts", work)
    except BaseException:
        vault.tally.give_back(counts)
        raise


def _count(vault: Vault, service: str, action: Action, data_classes: Sequence[str]) -> None:
    quotas = {name: vault.policy.quota(service, name) for name in data_classes}
    try:
        vault.tally.take(service, action, data_classes, quotas, vault.clock.now())
    except Exception:
        LEASES_REFUSED.labels(service, "quota").inc()
        log.warning("quota_exceeded", system=code(service), keys=len(data_classes))
        raise


def _unwrap(kek: Kek, key: StoredKey) -> bytes:
    try:
        return kek.unwrap(key.epoch, key.wrapped, bound(key.key_id, key.name, key.generation, key.epoch))
    except WrongKek:
        log.error("unwrap_failed", key_id=key.key_id, epoch=key.epoch)
        raise


def refused(service: str, reason: str) -> Forbidden:
    """The error to raise, which is counted and logged."""
    LEASES_REFUSED.labels(service, reason).inc()
    log.warning("refused", system=code(service), reason=code(reason))
    return Forbidden("The policy does not grant this service that use. Ask the owner of the policy for a grant.")
