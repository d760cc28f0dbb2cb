"""KEK epochs at work: a vault's start, a new epoch, re-wrapping, an epoch's end, and the horizon (docs/vault.md#kek-epochs)."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import partial
from typing import Final
from uuid import UUID

from servicekit import Tx, get_log
from servicekit.core.clock import Clock
from servicekit.core.errors import Misconfigured, Unavailable
from servicekit.core.faults import declare, faultpoint
from servicekit.db.postgres import Database
from vault_service import store as vault_store
from vault_service.domain import PROBE, StoredKey, bound, probe_bound
from vault_service.epochs import store
from vault_service.epochs.domain import IN_USE, Epoch, describe_lost, horizon_of, is_due
from vault_service.kek import Kek, KekMissing, Provider, WrongKek, wrap_under
from vault_service.kek_files import FileKek
from vault_service.settings import VaultSettings

BATCH: Final = 500
# Keys of one epoch that do not unwrap, after which there is no sense in going on.
_MOST_BROKEN: Final = 1000

declare("vault.kek_created", "vault.epoch_opened", "vault.rewrapped", "vault.epoch_emptied", "vault.kek_destroyed")
log = get_log("vault")


def make_provider(settings: VaultSettings) -> Provider:
    """The provider that the environment names. Raises Misconfigured."""
    if settings.kek_provider == "aws-kms":
        # Its libraries take a sixth of the vault's start, and most vaults do without them.
        from vault_service.kms import KmsKek

        settings.require("kms_alias")
        return KmsKek(settings.kms_alias, settings.kek_deletion, settings.kms_region, settings.kms_endpoint)
    settings.require("kek_dir")
    assert settings.kek_dir is not None
    return FileKek(settings.kek_dir, settings.kek_deletion)


async def prepare(db: Database, provider: Provider, clock: Clock) -> Kek:
    """The KEKs of this database, loaded; a new vault opens its first epoch.

    Raises Misconfigured unless every key that lives can be opened; the message counts those that cannot.
    """
    if not await store.read_epochs(db):
        await _open_first(db, provider, clock)
    kek = await _with_index(db, provider)
    usable, why = [], []
    for epoch in await store.read_epochs(db):
        if epoch.state in IN_USE:
            try:
                await kek.ready([epoch.number])
                kek.unwrap(epoch.number, epoch.probe, probe_bound(epoch.number))
                usable.append(epoch.number)
            except KekMissing as error:
                why.append(error.detail)
            except WrongKek:
                why.append(f"What {provider.name} has for epoch {epoch.number} is not the KEK of this database.")
    if why or not set(await store.named_epochs(db)).issubset(usable):
        raise Misconfigured(" ".join((*why, await _what_is_lost(db, usable))))
    return kek


async def _open_first(db: Database, provider: Provider, clock: Clock) -> None:
    epoch, handle = await provider.first()
    probe = await _probe(provider, epoch, handle)

    async def work(tx: Tx) -> bool:
        await store.lock_epochs(tx)
        if await store.read_epochs(tx):
            return False
        await store.open_epoch(tx, epoch, handle, probe, clock.now())
        return True

    if not await db.run_tx("open_first_epoch", work) and handle:
        await provider.destroy(epoch, handle)  # another process has opened it with a KEK of its own


async def _with_index(db: Database, provider: Provider) -> Kek:
    async def write(tx: Tx, handle: bytes) -> None:
        await store.write_index_handle(tx, handle)

    if await store.read_index_handle(db) is None:
        made = await provider.create_index()
        await db.run_tx("write_index_handle", lambda tx: write(tx, made))
    handle = await store.read_index_handle(db)
    if handle is None:
        raise Unavailable("The row that names the key of the blind indexes is gone. Start again.")
    try:
        index = await provider.load_index(handle)
    except KekMissing as error:
        raise Misconfigured(f"The key of the blind indexes is not there. {error.detail}") from None
    return Kek(provider, index, lambda epoch: store.read_handle(db, epoch))


async def _what_is_lost(db: Database, usable: Sequence[int]) -> str:
    lost = [each for each in await store.count_keys(db) if each[0] not in usable]
    if not lost:
        return "No living key was wrapped under it: see deploy/runbooks/kek.md."
    return (
        f"Living keys that cannot be opened: {describe_lost(lost)}. The vault stays closed, because it would read as if"
        " these people were erased: restore the KEKs, or another copy of the database (deploy/runbooks/restore.md)."
    )


async def open_next(db: Database, kek: Kek, clock: Clock, after: int | None = None) -> int:
    """Open an epoch with a new KEK and close the active one, which must be `after` if that is given.

    Made in the provider first, then in the database, so that no row names a KEK that is not there. Of two calls at
    once one has an effect. Returns the active epoch.
    """
    epochs = await store.read_epochs(db)
    active = _active(epochs).number
    if after not in (None, active):
        return active
    epoch, handle = await kek.provider.create(max(each.number for each in epochs))
    faultpoint("vault.kek_created")
    probe = await _probe(kek.provider, epoch, handle)

    async def work(tx: Tx) -> bool:
        await store.lock_epochs(tx)
        if _active(await store.read_epochs(tx)).number != active:
            return False
        await store.open_epoch(tx, epoch, handle, probe, clock.now())
        return True

    is_ours = await db.run_tx("open_epoch", work)
    faultpoint("vault.epoch_opened")
    if is_ours:
        log.info("epoch_opened", epoch=epoch)
    else:
        await kek.provider.destroy(epoch, handle)
    # Loaded by the handle in the row alone: another process may have made an epoch of the same number.
    await refresh(db, kek)
    return _active(await store.read_epochs(db)).number


async def _probe(provider: Provider, epoch: int, handle: bytes) -> bytes:
    return wrap_under(await provider.load(epoch, handle), PROBE, probe_bound(epoch))


async def rewrap(db: Database, kek: Kek, clock: Clock, old: int) -> bool:
    """Wrap the living keys of a closed epoch under the active one, batch by batch; True once the epoch is empty.

    Where it was cut off it goes on; any number of processes may do it at once.
    """
    broken: list[UUID] = []
    while len(broken) < _MOST_BROKEN:
        moved, unreadable = await kek.with_loaded(partial(_rewrap_batch, db, kek, old, tuple(broken)))
        broken += unreadable
        if not moved and not unreadable:
            break
        await asyncio.sleep(0)
    for key_id in broken:
        log.error("rewrap_failed", key_id=key_id, epoch=old)
    return not broken and await _end_if_empty(db, clock, old)


async def _rewrap_batch(db: Database, kek: Kek, old: int, but: Sequence[UUID]) -> tuple[int, list[UUID]]:
    async def work(tx: Tx) -> tuple[int, list[UUID]]:
        target = await vault_store.lock_active_epoch(tx)
        if target == old:
            return 0, []
        fresh: list[StoredKey] = []
        unreadable: list[UUID] = []
        for key in await store.take_keys(tx, old, BATCH, but):
            try:
                fresh.append(_wrapped_anew(kek, key, target))
            except WrongKek:
                unreadable.append(key.key_id)
        moved = await store.write_rewrapped(tx, old, fresh) if fresh else 0
        faultpoint("vault.rewrapped")
        return moved, unreadable

    return await db.run_tx("rewrap", work)


def _wrapped_anew(kek: Kek, key: StoredKey, target: int) -> StoredKey:
    raw = kek.unwrap(key.epoch, key.wrapped, bound(key.key_id, key.name, key.generation, key.epoch))
    wrapped = kek.wrap(target, raw, bound(key.key_id, key.name, key.generation, target))
    return StoredKey(key.key_id, key.name, key.generation, target, wrapped)


async def _end_if_empty(db: Database, clock: Clock, epoch: int) -> bool:
    async def work(tx: Tx) -> bool:
        await store.lock_epochs(tx)
        is_empty = await store.is_empty(tx, epoch)
        if is_empty:
            await store.mark_empty(tx, epoch, clock.now())
        return is_empty

    is_empty = await db.run_tx("mark_empty", work)
    faultpoint("vault.epoch_emptied")
    return is_empty


async def destroy(db: Database, kek: Kek, clock: Clock, epoch: Epoch) -> bool:
    """Destroy the KEK of an empty epoch, in the provider and then in the database; False while its delay runs.

    The state `empty` is the intent: after a crash between the two it is done again, which changes nothing.
    """
    if epoch.emptied_at is None or clock.now() < epoch.emptied_at + kek.provider.waits:
        return False
    await kek.provider.destroy(epoch.number, epoch.handle)
    kek.forget(epoch.number)
    faultpoint("vault.kek_destroyed")

    async def work(tx: Tx) -> None:
        await store.mark_destroyed(tx, epoch.number, clock.now())

    await db.run_tx("mark_destroyed", work)
    log.info("epoch_destroyed", epoch=epoch.number)
    return True


async def finish(db: Database, kek: Kek, clock: Clock) -> None:
    """Take closed and empty epochs as far as they can go at once; the next turn goes on."""
    for epoch in await store.read_epochs(db):
        if epoch.state == "closed":
            await rewrap(db, kek, clock, epoch.number)
    for epoch in await store.read_epochs(db):
        if epoch.state == "empty":
            await destroy(db, kek, clock, epoch)


async def turn(db: Database, kek: Kek, clock: Clock, settings: VaultSettings) -> None:
    """What the job does: the next epoch when it is due, and whatever earlier ones still need."""
    await refresh(db, kek)
    active = _active(await store.read_epochs(db))
    if is_due(active.opened_at, settings.kek_life, clock.now()):
        await open_next(db, kek, clock, active.number)
    await finish(db, kek, clock)


async def refresh(db: Database, kek: Kek) -> None:
    """Learn of epochs that other processes opened, and forget the KEKs of those that are destroyed."""
    epochs = await store.read_epochs(db)
    kek.keep_only([epoch.number for epoch in epochs if epoch.state != "destroyed"])
    await kek.ready([epoch.number for epoch in epochs if epoch.state in IN_USE])


async def horizon(db: Database, settings: VaultSettings, now: datetime) -> date:
    """The day from which on no copy of the vault's database opens what is destroyed in it at `now`."""
    return _horizon(await store.read_epochs(db), settings, now)


@dataclass(frozen=True, slots=True)
class Overview:
    """What operators see; `keys` of an epoch are those that it still wraps, of all classes."""

    provider: str
    horizon: date
    epochs: list[tuple[Epoch, int]]
    strays: list[str]


async def overview(db: Database, kek: Kek, settings: VaultSettings, now: datetime) -> Overview:
    """All epochs, with their keys counted: for operators, not for a loop."""
    epochs = await store.read_epochs(db)
    keys = Counter[int]()
    for epoch, _, count in await store.count_keys(db):
        keys[epoch] += count
    strays = await kek.provider.strays([(epoch.number, epoch.handle) for epoch in epochs])
    shown = [(epoch, keys[epoch.number]) for epoch in epochs]
    return Overview(kek.provider.name, _horizon(epochs, settings, now), shown, strays)


def _horizon(epochs: Sequence[Epoch], settings: VaultSettings, now: datetime) -> date:
    opened_at = _active(epochs).opened_at
    return horizon_of(opened_at, settings.kek_life, settings.kek_deletion, settings.kek_copies, now)


def _active(epochs: Sequence[Epoch]) -> Epoch:
    active = next((epoch for epoch in epochs if epoch.state == "active"), None)
    if active is None:
        raise Unavailable("No KEK epoch is active: the database is not a whole one. Restore it.")
    return active
