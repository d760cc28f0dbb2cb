"""The addresses that a customer keeps, each under an anchor of its own."""

from __future__ import annotations

from uuid import UUID

from account_service import store
from account_service.domain import MAX_ADDRESSES, check_room
from account_service.entries import Entry, lock_account, open_entries
from account_service.holdings import ADDRESSES
from event_contracts.account import Address, AddressDeleted, AddressSaved
from servicekit import Cursor, Kit, Page, Paging, Tx
from servicekit.core.errors import NotFound
from servicekit.kit import same_body


async def add_address(kit: Kit, subject_id: UUID, address_id: UUID, address: Address) -> None:
    """Again with the same id and address changes nothing.

    Raises `NotFound` without an account, `Conflict` when the book is full, `KeyReused` when the id is another address,
    `Gone` when the address was deleted.
    """
    (sealed,), digest = await kit.seal_new([(address, subject_id, address_id)], address)

    async def work(tx: Tx) -> bytes | None:
        await lock_account(tx, subject_id)
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
        await lock_account(tx, subject_id)
        number = await store.replace_address(tx, subject_id, address_id, sealed)
        if number is None:
            raise NotFound
        await tx.emit(AddressSaved(subject_id=subject_id, address_id=address_id, number=number, address=sealed))

    await kit.run_tx("replace_address", work)


async def delete_address(kit: Kit, subject_id: UUID, address_id: UUID) -> None:
    """Deletes it and releases its key. Raises `NotFound`."""

    async def work(tx: Tx) -> None:
        await lock_account(tx, subject_id)
        if not await ADDRESSES.delete(tx, subject_id, address_id):
            raise NotFound
        await tx.emit(AddressDeleted(subject_id=subject_id, address_id=address_id))

    await kit.run_tx("delete_address", work)


async def show_address(kit: Kit, subject_id: UUID, address_id: UUID) -> Entry[Address]:
    """Raises `NotFound`."""
    row = await store.find_address(kit.db, subject_id, address_id)
    if row is None:
        raise NotFound
    return (await open_entries(kit, [row], Address, column="address", anchor="address_id"))[0]


async def list_addresses(kit: Kit, subject_id: UUID, paging: Paging) -> Page[Entry[Address]]:
    rows = await store.list_addresses(kit.db, subject_id, paging)
    entries = await open_entries(kit, rows, Address, column="address", anchor="address_id")
    return paging.page(entries, [Cursor(row["added_at"], row["address_id"]) for row in rows])
