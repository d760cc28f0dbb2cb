"""Each access of staff to data of people: a row that is shown to them, and a leaf of the evidence log, in one transaction.

An access to what another service shows to staff comes as its event.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from event_contracts.order import TaxRecordRead
from evidence_log.handlers import append
from evidence_log.leaves import AccessRecord
from privacy_service.inventory import store
from servicekit import Received, Tx

PEOPLE_PER_LEAF: Final = 500
TAX_RECORD: Final = "tax_record"


async def record_access(
    tx: Tx, staff_id: UUID, role: str, accessed_at: datetime, kind: str, subject_ids: Sequence[UUID]
) -> None:
    """Two statements, however many people were seen; one row and leaf without a person when nobody was."""
    await store.insert_access_records(tx, staff_id, role, accessed_at, kind, subject_ids)
    parts = [subject_ids[at : at + PEOPLE_PER_LEAF] for at in range(0, len(subject_ids) or 1, PEOPLE_PER_LEAF)]
    await append(
        tx,
        [
            AccessRecord(staff_id=staff_id, role=role, look=kind, subject_ids=tuple(part), at=accessed_at)
            for part in parts
        ],
    )


async def record_reported_access(tx: Tx, reported: Sequence[Received[TaxRecordRead]]) -> None:
    """Looks that the order service has reported. One that is reported again adds nothing."""
    if not reported:
        return
    await store.insert_reported_access(tx, TAX_RECORD, reported)
    await append(
        tx,
        [
            AccessRecord(
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
