"""SQL of shipments that wait too long."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from logistics_gateway.progress import END, HANDED_OVER, UNKNOWN
from logistics_gateway.store import PAGE, SHOWN
from servicekit import Cursor, Paging, Record, Tx
from servicekit.db.postgres import Database

# The gauge of blocked shipments is read each minute, so it counts no further than this.
COUNTED: Final = 10_000
# Under way at a carrier, by its own last word or ours that it was sent.
_UNDERWAY = "state = 'sent' AND ended_at IS NULL AND recall IS NULL"


async def blocked_before(tx: Tx, before: datetime) -> list[Record]:
    """A page of lines that are blocked since before `before`, locked."""
    return await tx.fetch(
        f"""-- blocked_before
        SELECT shipment_id, order_id, rank FROM disclosures WHERE state = 'blocked' AND blocked_since < $1
        ORDER BY blocked_since, shipment_id LIMIT {PAGE} FOR UPDATE""",  # noqa: S608 - a number of our own
        before,
    )


async def end_blocked(tx: Tx, shipment_ids: Sequence[UUID], now: datetime) -> None:
    """Notes the end of what never left, or was recalled."""
    await tx.execute(
        """-- end_blocked
        UPDATE disclosures SET progress = 'undeliverable', rank = $2, progress_at = $3, ended_at = $3
        WHERE shipment_id = ANY($1::uuid[])""",
        list(shipment_ids),
        END,
        now,
    )


async def keep_as_sent(tx: Tx, shipment_ids: Sequence[UUID]) -> None:
    """blocked → sent, of parcels that went on their way as they were before the correction that is blocked."""
    await tx.execute(
        """-- keep_as_sent
        UPDATE disclosures SET state = 'sent', delivery = NULL, next_try_at = NULL, blocked_since = NULL
        WHERE shipment_id = ANY($1::uuid[]) AND state = 'blocked' AND rank >= $2""",
        list(shipment_ids),
        HANDED_OVER,
    )


async def end_silent(tx: Tx, now: datetime) -> list[Record]:
    """Ends a page of shipments whose carrier has said nothing new for the term of their lane. Returns them."""
    return await tx.fetch(
        f"""-- end_silent
        UPDATE disclosures SET progress = 'unknown', rank = {UNKNOWN}, progress_at = $1, ended_at = $1
        WHERE shipment_id IN (
            SELECT shipment_id FROM disclosures WHERE {_UNDERWAY} AND not_after < $1
                AND coalesce(heard_at, sent_at) + (not_after - recorded_at) < $1
            ORDER BY not_after, shipment_id LIMIT {PAGE} FOR UPDATE)
        RETURNING order_id, shipment_id""",  # noqa: S608 - names and numbers of our own
        now,
    )


async def count_blocked(db: Database) -> dict[str, int]:
    """How many lines wait for each reason, of the `COUNTED` that have waited longest."""
    rows = await db.fetch(
        """-- count_blocked
        SELECT coalesce(reason, 'unknown') AS reason, count(*) AS lines FROM (
            SELECT reason FROM disclosures WHERE state = 'blocked' ORDER BY blocked_since, shipment_id LIMIT $1) AS oldest
        GROUP BY 1""",
        COUNTED,
    )
    return {row["reason"]: row["lines"] for row in rows}


async def list_blocked(db: Database, paging: Paging) -> list[Record]:
    """The oldest first; `cursor_at` is what the next page begins after."""
    after = paging.after or _START
    return await db.fetch(
        f"""-- list_blocked
        SELECT {SHOWN}, blocked_since AS cursor_at FROM disclosures
        WHERE state = 'blocked' AND (blocked_since, shipment_id) > ($1, $2)
        ORDER BY blocked_since, shipment_id LIMIT $3""",  # noqa: S608 - names of our own
        after.at,
        after.id,
        paging.fetch,
    )


async def list_silent(db: Database, paging: Paging, silent: timedelta, now: datetime) -> list[Record]:
    """Shipments under way of which nothing new was heard for `silent`; first those whose message is valid no more."""
    after = paging.after or _START
    return await db.fetch(
        f"""-- list_silent
        SELECT {SHOWN}, not_after AS cursor_at FROM disclosures
        WHERE {_UNDERWAY} AND (not_after, shipment_id) > ($1, $2) AND coalesce(heard_at, sent_at) < $4
        ORDER BY not_after, shipment_id LIMIT $3""",  # noqa: S608 - names of our own
        after.at,
        after.id,
        paging.fetch,
        now - silent,
    )


_START = Cursor(datetime.fromisoformat("2000-01-01T00:00:00+00:00"), UUID(int=0))
