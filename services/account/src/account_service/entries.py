"""Entries of an account, each sealed under an anchor of its own: what addresses, favourites and browsing share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar
from uuid import UUID

from account_service import store
from event_contracts import Erased, PersonalData, Sealed
from servicekit import Kit, Opening, Record, Tx
from servicekit.core.errors import NotFound

T = TypeVar("T", bound=PersonalData)


@dataclass(frozen=True)
class Entry(Generic[T]):
    """A row with its sealed part opened; `value` is None when it is erased."""

    row: Record
    value: T | None


async def lock_account(tx: Tx, subject_id: UUID) -> None:
    """Raises `NotFound`."""
    if await store.lock_account(tx, subject_id) is None:
        raise NotFound("There is no account for this access token. Register one.")


async def open_entries(kit: Kit, rows: Sequence[Record], model: type[T], *, column: str, anchor: str) -> list[Entry[T]]:
    """The rows' entries, for the person's own access; one call to the vault for all."""
    wanted: list[Opening[T]] = [Opening(Sealed(row[column]), model, row["subject_id"], row[anchor]) for row in rows]
    values = await kit.open_many(wanted, purpose="own_access")
    return [Entry(row, None if isinstance(value, Erased) else value) for row, value in zip(rows, values, strict=True)]
