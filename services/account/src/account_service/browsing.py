"""What a customer looked at: page views, sealed under one anchor a month."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from account_service import store
from account_service.domain import PageView, check_page_views, month_of
from account_service.entries import Entry, lock_account, open_entries
from event_contracts import Sealed
from event_contracts.account import Browsing, BrowsingRecorded
from servicekit import Cursor, Kit, Page, Paging, Tx


async def record_browsing(kit: Kit, subject_id: UUID, views: Sequence[PageView]) -> int:
    """How many of the page views were new. One call to the vault and one transaction for all.

    Raises `Invalid`, `NotFound`.
    """
    if not views:
        return 0
    checked = check_page_views(views, kit.clock.now())
    months = [month_of(subject_id, view.at) for view in checked]
    sealed: list[Sealed[Browsing]] = await kit.seal_many(
        [(view.browsing, subject_id, month) for view, month in zip(checked, months, strict=True)]
    )
    events = [
        BrowsingRecorded(
            subject_id=subject_id,
            browsing_id=view.browsing_id,
            month_id=month,
            kind=view.kind,
            seconds=view.seconds,
            browsing=token,
        )
        for view, month, token in zip(checked, months, sealed, strict=True)
    ]

    async def work(tx: Tx) -> int:
        await lock_account(tx, subject_id)
        new = await store.insert_browsing(tx, subject_id, checked, months, sealed)
        await tx.emit(*(event for event in events if event.browsing_id in new))
        return len(new)

    return await kit.run_tx("record_browsing", work)


async def list_browsing(kit: Kit, subject_id: UUID, paging: Paging) -> Page[Entry[Browsing]]:
    rows = await store.list_browsing(kit.db, subject_id, paging)
    entries = await open_entries(kit, rows, Browsing, column="browsing", anchor="month_id")
    return paging.page(entries, [Cursor(row["at"], row["browsing_id"]) for row in rows])
