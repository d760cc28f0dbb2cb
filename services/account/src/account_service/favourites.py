"""The favourites of a customer, each under an anchor of its own."""

from __future__ import annotations

from uuid import UUID

from account_service import store
from account_service.domain import MAX_FAVOURITES, check_room
from account_service.entries import Entry, lock_account, open_entries
from account_service.holdings import FAVOURITES
from event_contracts.account import Favourite, FavouriteAdded, FavouriteRemoved
from servicekit import Cursor, Kit, Page, Paging, Tx
from servicekit.core.errors import NotFound
from servicekit.kit import same_body


async def add_favourite(kit: Kit, subject_id: UUID, favourite_id: UUID, favourite: Favourite) -> None:
    """Again with the same id and favourite changes nothing.

    Raises `NotFound` without an account, `Conflict` when the list is full, `KeyReused` when the id is another favourite,
    `Gone` when the favourite was removed.
    """
    (sealed,), digest = await kit.seal_new([(favourite, subject_id, favourite_id)], favourite)

    async def work(tx: Tx) -> bytes | None:
        await lock_account(tx, subject_id)
        row = await store.find_favourite(tx, subject_id, favourite_id)
        if row is not None:
            stored: bytes | None = row["body_digest"]
            return stored
        check_room(await store.count_favourites(tx, subject_id), MAX_FAVOURITES)
        await store.insert_favourite(tx, subject_id, favourite_id, sealed, digest, kit.clock.now())
        await tx.emit(FavouriteAdded(subject_id=subject_id, favourite_id=favourite_id, favourite=sealed))
        return digest

    same_body(await kit.run_tx("add_favourite", work), digest)


async def delete_favourite(kit: Kit, subject_id: UUID, favourite_id: UUID) -> None:
    """Deletes it and releases its key. Raises `NotFound`."""

    async def work(tx: Tx) -> None:
        await lock_account(tx, subject_id)
        if not await FAVOURITES.delete(tx, subject_id, favourite_id):
            raise NotFound
        await tx.emit(FavouriteRemoved(subject_id=subject_id, favourite_id=favourite_id))

    await kit.run_tx("delete_favourite", work)


async def list_favourites(kit: Kit, subject_id: UUID, paging: Paging) -> Page[Entry[Favourite]]:
    rows = await store.list_favourites(kit.db, subject_id, paging)
    entries = await open_entries(kit, rows, Favourite, column="favourite", anchor="favourite_id")
    return paging.page(entries, [Cursor(row["added_at"], row["favourite_id"]) for row in rows])
