"""What belongs to an account and lives by itself: addresses, favourites, browsing.

Each entry is sealed under its own anchor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar
from uuid import UUID

from account_service import store
from account_service.domain import MAX_ADDRESSES, MAX_FAVOURITES, Look, check_looks, check_room, month_of
from account_service.holdings import ADDRESSES, FAVOURITES
from event_contracts import Erased, PersonalData, Sealed
from event_contracts.account import (
    Address,
    AddressDeleted,
    AddressSaved,
    Browsing,
    BrowsingRecorded,
    Favourite,
    FavouriteAdded,
    FavouriteRemoved,
)
from event_contracts.moments import bounded
from servicekit import Cursor, Kit, Opening, Page, Paging, Record, Tx
from servicekit.core.errors import NotFound
from servicekit.kit import same_body

T = TypeVar("T", bound=PersonalData)


@dataclass(frozen=True)
class Entry(Generic[T]):
    """A row with its sealed part opened; `value` is None when it is erased."""

    row: Record
    value: T | None


async def add_address(kit: Kit, subject_id: UUID, address_id: UUID, address: Address) -> None:
    """Again with the same id and address changes nothing.

    Raises `NotFound` without an account, `Conflict` when the book is full, `KeyReused` when the id is another address,
    `Gone` when the address was deleted.
    """
    (sealed,), digest = await kit.seal_new([(address, subject_id, address_id)], address)

    async def work(tx: Tx) -> bytes | None:
        await _lock(tx, subject_id)
        row = await store.find_address(tx, subject_id, address_id)
        if row is not None:
            stored: bytes | None = row["body_digest"]
            return stored
        check_room(await store.count_addresses(tx, subject_id), MAX_ADDRESSES)
        await store.insert_address(tx, subject_id, address_id, sealed, digest, kit.clock.now())
        await tx.emit(AddressSaved(subject_id=subject_id, address_id=address_id, number=1, address=sealed))
        return digest

    same_body(await kit.run_tx("add_address", work), digest)


async def replace_address(kit: Kit, subject_id: UUID, address_id: UUID, address: Address) -> None:
    """Raises `NotFound`."""
    if await store.find_address(kit.db, subject_id, address_id) is None:
        raise NotFound
    sealed = await kit.seal(address, subject=subject_id, anchor=address_id)

    async def work(tx: Tx) -> None:
        await _lock(tx, subject_id)
        number = await store.replace_address(tx, subject_id, address_id, sealed)
        if number is None:
            raise NotFound
        await tx.emit(AddressSaved(subject_id=subject_id, address_id=address_id, number=number, address=sealed))

    await kit.run_tx("replace_address", work)


async def delete_address(kit: Kit, subject_id: UUID, address_id: UUID) -> None:
    """Deletes it and releases its key. Raises `NotFound`."""

    async def work(tx: Tx) -> None:
        await _lock(tx, subject_id)
        if not await ADDRESSES.delete(tx, subject_id, address_id):
            raise NotFound
        await tx.emit(AddressDeleted(subject_id=subject_id, address_id=address_id))

    await kit.run_tx("delete_address", work)


async def show_address(kit: Kit, subject_id: UUID, address_id: UUID) -> Entry[Address]:
    """Raises `NotFound`."""
    row = await store.find_address(kit.db, subject_id, address_id)
    if row is None:
        raise NotFound
    return (await _opened(kit, [row], Address, column="address", anchor="address_id"))[0]


async def list_addresses(kit: Kit, subject_id: UUID, paging: Paging) -> Page[Entry[Address]]:
    rows = await store.list_addresses(kit.db, subject_id, paging)
    entries = await _opened(kit, rows, Address, column="address", anchor="address_id")
    return paging.page(entries, [Cursor(row["added_at"], row["address_id"]) for row in rows])


async def add_favourite(kit: Kit, subject_id: UUID, favourite_id: UUID, favourite: Favourite) -> None:
    """Again with the same id and favourite changes nothing.

    Raises `NotFound` without an account, `Conflict` when the list is full, `KeyReused` when the id is another favourite,
    `Gone` when the favourite was removed.
    """
    (sealed,), digest = await kit.seal_new([(favourite, subject_id, favourite_id)], favourite)

    async def work(tx: Tx) -> bytes | None:
        await _lock(tx, subject_id)
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
        await _lock(tx, subject_id)
        if not await FAVOURITES.delete(tx, subject_id, favourite_id):
            raise NotFound
        await tx.emit(FavouriteRemoved(subject_id=subject_id, favourite_id=favourite_id))

    await kit.run_tx("delete_favourite", work)


async def list_favourites(kit: Kit, subject_id: UUID, paging: Paging) -> Page[Entry[Favourite]]:
    rows = await store.list_favourites(kit.db, subject_id, paging)
    entries = await _opened(kit, rows, Favourite, column="favourite", anchor="favourite_id")
    return paging.page(entries, [Cursor(row["added_at"], row["favourite_id"]) for row in rows])


async def record_browsing(kit: Kit, subject_id: UUID, looks: Sequence[Look]) -> int:
    """How many of the looks were new. One call to the vault and one transaction for all.

    Raises `Invalid`, `NotFound`.
    """
    if not looks:
        return 0
    checked = check_looks(looks, kit.clock.now())
    months = [month_of(subject_id, look.at) for look in checked]
    sealed: list[Sealed[Browsing]] = await kit.seal_many(
        [(look.browsing, subject_id, month) for look, month in zip(checked, months, strict=True)]
    )
    events = [
        BrowsingRecorded(
            subject_id=subject_id,
            browsing_id=look.browsing_id,
            month_id=month,
            kind=look.kind,
            seconds=look.seconds,
            browsing=token,
        )
        for look, month, token in zip(checked, months, sealed, strict=True)
    ]

    async def work(tx: Tx) -> int:
        await _lock(tx, subject_id)
        new = await store.insert_browsing(tx, subject_id, checked, months, sealed)
        await tx.emit(*(event for event in events if event.browsing_id in new))
        return len(new)

    return await kit.run_tx("record_browsing", work)


async def list_browsing(kit: Kit, subject_id: UUID, paging: Paging) -> Page[Entry[Browsing]]:
    rows = await store.list_browsing(kit.db, subject_id, paging)
    entries = await _opened(kit, rows, Browsing, column="browsing", anchor="month_id")
    return paging.page(entries, [Cursor(row["at"], row["browsing_id"]) for row in rows])


async def list_notices(kit: Kit, subject_id: UUID, paging: Paging) -> Page[Record]:
    rows = await store.list_notices(kit.db, subject_id, paging)
    return paging.page(rows, [Cursor(bounded(row["at"]), row["notice_id"]) for row in rows])


async def _lock(tx: Tx, subject_id: UUID) -> None:
    if await store.lock_account(tx, subject_id) is None:
        raise NotFound("There is no account for this access token. Register one.")


async def _opened(kit: Kit, rows: Sequence[Record], model: type[T], *, column: str, anchor: str) -> list[Entry[T]]:
    wanted: list[Opening[T]] = [Opening(Sealed(row[column]), model, row["subject_id"], row[anchor]) for row in rows]
    values = await kit.open_many(wanted, purpose="own_access")
    return [Entry(row, None if isinstance(value, Erased) else value) for row, value in zip(rows, values, strict=True)]
