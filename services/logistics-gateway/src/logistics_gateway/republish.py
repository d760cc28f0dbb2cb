"""What the gateway sends again to a Kafka that came back from an older copy: its ledger is its outbox to carriers."""

from __future__ import annotations

from datetime import datetime

from logistics_gateway import store
from logistics_gateway.stuck_events import emit_blocked, reasons
from servicekit import Tx
from servicekit.db.inbox import Place, set_back


async def say_again(tx: Tx, since: datetime) -> int:
    """What was sent since then and no carrier has answered leaves again, under the same ids. Returns the messages.

    Carriers deduplicate. A parcel needs its order's event once more: the orders' reader goes back to where that was.
    """
    parcels = await store.lost_parcels(tx, since)
    first: dict[Place, int] = {}
    for row in parcels:
        place = row["topic"], row["partition"]
        first[place] = min(row["position"], first.get(place, row["position"]))
    await set_back(tx, first)
    await emit_blocked(tx, reasons(parcels))
    return len(parcels) + await store.lost_notices(tx, since)
