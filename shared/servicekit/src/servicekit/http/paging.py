"""Paging by key: `?limit=…&cursor=…` in, `{"items": […], "next": …}` out.

A cursor is the last row's (time, id), opaque to callers.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final, Generic, TypeVar
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel

from event_contracts import base64url
from servicekit.core.errors import Invalid

T = TypeVar("T")
MAX_LIMIT = 100
_EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)


class Page(BaseModel, Generic[T]):
    """A part of a list; `next` is the cursor of the part after it, null at the end."""

    items: list[T]
    next: str | None


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a page ends: a list is in order of (time, id)."""

    at: datetime
    id: UUID

    def encode(self) -> str:
        return base64url.encode(f"{self.at.isoformat()} {self.id.hex}".encode())

    @classmethod
    def decode(cls, text: str) -> "Cursor":
        """Raises `Invalid`."""
        try:
            at, _, row = base64url.decode(text).decode("ascii").partition(" ")
            cursor = cls(datetime.fromisoformat(at), UUID(row))
            # A row is from our own time; what lies outside cannot be compared with one.
            if not _EARLIEST <= cursor.at < _LATEST:
                raise ValueError("not a time of ours")
        except (ValueError, TypeError):
            raise Invalid("The cursor is not one that this service gave. Begin again without it.") from None
        return cursor


@dataclass(frozen=True, slots=True)
class Paging:
    """What a caller wants: at most `limit` rows after `after` (None: from the start)."""

    limit: int
    after: Cursor | None

    @property
    def fetch(self) -> int:
        """How many rows to read: one more than asked for tells whether there is a next page."""
        return self.limit + 1

    def page(self, rows: list[T], cursors: list[Cursor]) -> "Page[T]":
        """The page of up to `fetch` rows, whose places in the list are `cursors`."""
        more = len(rows) > self.limit
        return Page(items=rows[: self.limit], next=cursors[self.limit - 1].encode() if more else None)


async def paging(
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="How many items at most.")] = 50,
    cursor: Annotated[str | None, Query(max_length=200, description="`next` of the page before.")] = None,
) -> Paging:
    """A dependency: `Annotated[Paging, Depends(paging)]`."""
    return Paging(limit, Cursor.decode(cursor) if cursor else None)
