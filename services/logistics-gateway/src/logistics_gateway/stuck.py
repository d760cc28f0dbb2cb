"""Jobs: a shipment that waits too long ends, and the order service hears of it. Nothing stays open for ever."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

from event_contracts.logistics_gateway import Progress, ShipmentProgressed
from logistics_gateway import store as ledger
from logistics_gateway import stuck_store
from logistics_gateway.progress import HANDED_OVER
from logistics_gateway.sending import Gateway
from servicekit import Kit, Record, Tx, get_log
from servicekit.core.logs import code
from servicekit.core.metrics import SHIPMENTS_BLOCKED, SHIPMENTS_GIVEN_UP

log = get_log("stuck")
BLOCKED_TOO_LONG = "blocked_too_long"


async def end_blocked(kit: Kit) -> None:
    """What was blocked for the longest time never leaves; a carrier that may have an older version is told to delete it.

    A parcel that was handed over meanwhile goes on as it left, and its carrier's word ends it.
    """
    gateway = kit.context(Gateway)
    now = kit.clock.now()
    before = now - timedelta(seconds=gateway.settings.blocked_longest_seconds)

    async def work(tx: Tx) -> int:
        rows = await stuck_store.blocked_before(tx, before)
        waiting = [row for row in rows if row["rank"] < HANDED_OVER]
        await stuck_store.keep_as_sent(tx, [row["shipment_id"] for row in rows if row["rank"] >= HANDED_OVER])
        ids = [row["shipment_id"] for row in waiting]
        await ledger.cancel(tx, ids, BLOCKED_TOO_LONG)
        await stuck_store.end_blocked(tx, ids, now)
        await tx.emit(*(_ended(row, Progress.UNDELIVERABLE, kit) for row in waiting))
        return len(rows)

    await _until_done(kit, "end_blocked", work, Progress.UNDELIVERABLE)
    SHIPMENTS_BLOCKED.clear()
    for reason, lines in (await stuck_store.count_blocked(kit.db)).items():
        SHIPMENTS_BLOCKED.labels(reason).set(lines)


async def end_silent(kit: Kit) -> None:
    """A parcel whose carrier says nothing new for the term of its lane ends as `unknown`; a late word still counts."""
    now = kit.clock.now()

    async def work(tx: Tx) -> int:
        rows = await stuck_store.end_silent(tx, now)
        await tx.emit(*(_ended(row, Progress.UNKNOWN, kit) for row in rows))
        return len(rows)

    await _until_done(kit, "end_silent", work, Progress.UNKNOWN)


async def _until_done(kit: Kit, name: str, work: Callable[[Tx], Awaitable[int]], end: Progress) -> None:
    while count := await kit.run_tx(name, work):
        SHIPMENTS_GIVEN_UP.labels(end.value).inc(count)
        log.warning("shipments_given_up", count=count, end=code(end.value))


def _ended(row: Record, end: Progress, kit: Kit) -> ShipmentProgressed:
    return ShipmentProgressed(order_id=row["order_id"], shipment_id=row["shipment_id"], kind=end, at=kit.clock.now())
