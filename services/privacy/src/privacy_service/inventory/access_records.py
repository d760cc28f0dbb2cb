"""Every look of a staff member at people: a row to be shown to them, and a leaf of the evidence log, in one transaction.

Looks at what another service shows to staff come as its events.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from event_contracts.order import TaxRecordRead
from evidence_log.handlers import append
from evidence_log.leaves import Look
from privacy_service.inventory import store
from servicekit import Received, Tx

PEOPLE_PER_LEAF: Final = 500
TAX_RECORD: Final = "tax_record"


async def write_looks(
    tx: Tx, staff_id: UUID, role: str, looked_at: datetime, kind: str, subject_ids: Sequence[UUID]
) -> None:
    """Two statements, however many people were seen; one row and leaf without a person when nobody was."""
    await store.insert_looks(tx, staff_id, role, looked_at, kind, subject_ids)
    parts = [subject_ids[at : at + PEOPLE_PER_LEAF] for at in range(0, len(subject_ids) or 1, PEOPLE_PER_LEAF)]
    await append(
        tx, [Look(staff_id=staff_id, role=role, look=kind, subject_ids=tuple(part), at=looked_at) for part in parts]
    )


async def note_looks(tx: Tx, reported: Sequence[Received[TaxRecordRead]]) -> None:
    """Looks that the order service has reported. One that is reported again adds nothing."""
    if not reported:
        return
    await store.insert_reported_looks(tx, TAX_RECORD, reported)
    await append(
        tx,
        [
            Look(
                staff_id=each.event.staff_id,
                role=each.event.role,
                look=TAX_RECORD,
                subject_ids=(each.event.buyer_id,),
                reason=each.event.reason.value,
                at=each.time,
                leaf_id=each.id,
            )
            for each in reported
        ],
    )
