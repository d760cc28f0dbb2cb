"""Which recipients know of an erasure: asked for by the privacy service, and said again whenever that changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from operator import itemgetter
from typing import Any, Final
from uuid import UUID

from event_contracts.carrier import shipments_topic
from event_contracts.privacy import RecipientsTold, TellRecipients, ToldRecipient
from event_contracts.topics import TOPICS
from logistics_gateway import erasures_store
from servicekit import Kit, Received, Record, RecordId, Tx

SYSTEM: Final = "logistics-gateway"
# How long a carrier's topic keeps a record. The notice is the last thing that is ever sent about a shipment.
KEPT_HOURS: Final = {topic.name: topic.retention_hours for topic in TOPICS}


async def apply_recipients(kit: Kit, tx: Tx, events: Sequence[Received[Any]], _: Mapping[RecordId, Any]) -> None:
    """Notes who asks, and answers all of them with the state of the ledger."""
    asked = [(r.event.request_id, r.event.subject_id) for r in events if isinstance(r.event, TellRecipients)]
    await erasures_store.ask_recipients(tx, asked, kit.clock.now())
    await tell(tx, {subject_id for _, subject_id in asked}, {request_id for request_id, _ in asked})


async def tell(tx: Tx, subject_ids: Iterable[UUID], request_ids: Iterable[UUID] | None = None) -> None:
    """The whole state of each request about these persons, or of `request_ids` alone. Nothing where nobody asked."""
    rows = await erasures_store.recipients(tx, subject_ids)
    wanted = None if request_ids is None else set(request_ids)
    by_request = groupby(rows, key=itemgetter("request_id", "subject_id"))
    await tx.emit(
        *(
            recipients_told(request_id, subject_id, list(group))
            for (request_id, subject_id), group in by_request
            if wanted is None or request_id in wanted
        )
    )


def recipients_told(request_id: UUID, subject_id: UUID, rows: Sequence[Record]) -> RecipientsTold:
    """One line for each carrier of the rows; a row without one says that nothing of the person's has left."""
    told = tuple(_told(row) for row in rows if row["carrier"] is not None)
    return RecipientsTold(request_id=request_id, subject_id=subject_id, system=SYSTEM, recipients=told)


def _told(row: Record) -> ToldRecipient:
    hours = KEPT_HOURS[shipments_topic(row["carrier"])]
    told_at: datetime | None = row["told_at"]
    return ToldRecipient(
        recipient=row["carrier"],
        shipments=row["shipments"],
        told=row["told"],
        answered=row["answered"],
        topic_clean_at=None if told_at is None or hours is None else told_at + timedelta(hours=hours),
    )
