"""A cancellation can be read before its order: partitions are read side by side, and added ones move keys.

It is remembered until the order comes, which then never leaves.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from event_contracts.order import ORDER_EVENTS
from event_contracts.topics import TOPICS
from logistics_gateway import store
from logistics_gateway.cancellations_store import forget, take
from logistics_gateway.domain import CANCELLED
from servicekit import Kit, Tx, get_log

log = get_log("cancellations")
# As long as Kafka keeps an order: after that it cannot come any more.
KEPT: Final = timedelta(hours=next(topic.retention_hours or 0 for topic in TOPICS if topic.name == ORDER_EVENTS))


async def cancel_late(kit: Kit) -> None:
    """Job: an order that was recorded while another process remembered its cancellation is recalled; old ones are forgotten."""
    now = kit.clock.now()

    async def work(tx: Tx) -> int:
        taken = await take(tx)
        recalled = await store.cancel(tx, taken, CANCELLED)
        if recalled:
            log.warning("cancelled_late", count=len(recalled))
        return len(taken)

    async def drop(tx: Tx) -> int:
        return await forget(tx, now - KEPT)

    while await kit.run_tx("cancel_late", work):
        pass
    dropped = await kit.run_tx("forget_cancellations", drop)
    if dropped:
        log.warning("early_cancellations_dropped", count=dropped)
