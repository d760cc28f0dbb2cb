"""Staff ask what is really held, and read the replies as they come."""

from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from privacy_service.probes import handlers
from servicekit import Kit, Limit, Staff, limited, staff

PROBES: Final = Limit("probes", 30, 60)
_Staff = Annotated[Staff, Depends(staff("support", "privacy_officer"))]


class ProbeId(BaseModel):
    request_id: UUID


class ProbeAnswer(BaseModel):
    """`row_count` is absent while the system is silent."""

    system: str
    row_count: int | None
    answered_at: datetime | None


class ProbeState(BaseModel):
    request_id: UUID
    subject_id: UUID
    asked_at: datetime
    complete: bool
    items: list[ProbeAnswer]


def make_router(kit: Kit) -> APIRouter:
    """The routes of the role `api`."""
    router = APIRouter()

    @router.post("/v1/subjects/{subject_id}/probes", status_code=202, openapi_extra=limited(PROBES))
    async def probe(subject_id: UUID, who: _Staff) -> ProbeId:
        """Ask every participant how many rows it holds about one person."""
        return ProbeId(request_id=await handlers.probe_subject(kit, who, subject_id))

    @router.get("/v1/probes/{request_id}")
    async def show_probe(request_id: UUID, who: _Staff) -> ProbeState:
        """What the participants have answered so far; a silent one is named."""
        probe = await handlers.read_probe(kit, request_id)
        return ProbeState(
            request_id=probe.request_id,
            subject_id=probe.subject_id,
            asked_at=probe.asked_at,
            complete=all(reply.row_count is not None for reply in probe.replies),
            items=[
                ProbeAnswer(system=a.system, row_count=a.row_count, answered_at=a.answered_at) for a in probe.replies
            ],
        )

    return router
