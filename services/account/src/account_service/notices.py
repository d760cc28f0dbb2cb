"""What the shop tells a customer about orders."""

from __future__ import annotations

from uuid import UUID

from account_service import store
from event_contracts.moments import bounded
from servicekit import Cursor, Kit, Page, Paging, Record


async def list_notices(kit: Kit, subject_id: UUID, paging: Paging) -> Page[Record]:
    """Newest first."""
    rows = await store.list_notices(kit.db, subject_id, paging)
    return paging.page(rows, [Cursor(bounded(row["at"]), row["notice_id"]) for row in rows])
