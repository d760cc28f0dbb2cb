"""What staff may see of a shipment: its line of the ledger, without personal data."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from event_contracts.carrier import RefusalReason, ReplyKind
from event_contracts.codes import DataClass, FieldPath, LaneId, PolicyVersion, Purpose, SystemName, Version
from event_contracts.logistics_gateway import Progress
from event_contracts.moments import bounded
from logistics_gateway import store
from logistics_gateway import stuck_store as stuck
from logistics_gateway.domain import State
from logistics_gateway.sending import Gateway
from servicekit import Cursor, Kit, Page, Paging, Staff, paging, staff
from servicekit.core.errors import NotFound

Reason = FieldPath  # a code of the same form, such as `no_lane` or `missing.consignee.email`
SupportOrOfficer = Annotated[Staff, Depends(staff("support", "privacy_officer"))]


class Shipment(BaseModel):
    """One disclosure: who was to get which fields of the delivery, why, and how far it is. `number`: its version."""

    shipment_id: UUID
    order_id: UUID
    state: State
    reason: Reason | None
    carrier: SystemName | None
    lane: LaneId | None
    lane_version: Version | None
    policy_version: PolicyVersion
    data_class: DataClass
    purpose: Purpose
    fields: tuple[FieldPath, ...]
    number: Version
    not_after: datetime | None
    recorded_at: datetime
    next_try_at: datetime | None
    sent_at: datetime | None
    recall: Literal["due", "sent"] | None
    recalled_at: datetime | None
    erasure: Literal["due", "sent"] | None
    erasure_sent_at: datetime | None
    erased_at: datetime | None
    acknowledged_at: datetime | None
    refused_at: datetime | None
    handed_over_at: datetime | None
    delivered_at: datetime | None
    progress: ReplyKind | Progress | None
    progress_at: datetime | None
    ended_at: datetime | None
    refusal: RefusalReason | None
    blocked_since: datetime | None


class Stuck(StrEnum):
    BLOCKED = "blocked"
    SILENT = "silent"


def make_router(kit: Kit) -> APIRouter:
    router = APIRouter(prefix="/v1")

    @router.get("/shipments/{shipment_id}")
    async def read_shipment(shipment_id: UUID, who: SupportOrOfficer) -> Shipment:
        row = await store.find(kit.db, shipment_id)
        if row is None:
            raise NotFound
        return Shipment(**dict(row))

    @router.get("/shipments")
    async def list_shipments(
        state: Stuck, who: SupportOrOfficer, paging: Annotated[Paging, Depends(paging)]
    ) -> Page[Shipment]:
        """Shipments that wait: `blocked` ones, and those whose carrier is `silent`; the oldest first, no personal data."""
        gateway = kit.context(Gateway)
        if state is Stuck.BLOCKED:
            rows = await stuck.list_blocked(kit.db, paging)
        else:
            silent = timedelta(seconds=gateway.settings.silent_seconds)
            rows = await stuck.list_silent(kit.db, paging, silent, kit.clock.now())
        shown = paging.page(rows, [Cursor(bounded(row["cursor_at"]), row["shipment_id"]) for row in rows])
        return Page[Shipment](items=[Shipment(**dict(row)) for row in shown.items], next=shown.next)

    return router
