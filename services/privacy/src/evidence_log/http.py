"""What auditors, staff and everybody read of the evidence."""

from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from fastapi.responses import PlainTextResponse, Response
from pydantic import BaseModel

from evidence_log import handlers
from servicekit import Kit, Staff, staff
from servicekit.core.errors import Invalid

MOST_LEAVES: Final = 1000

_Staff = Annotated[Staff, Depends(staff("support", "privacy_officer", "auditor"))]
_Auditor = Annotated[Staff, Depends(staff("privacy_officer", "auditor"))]
_Size = Annotated[int, Query(ge=0, le=2**62)]


class Consistency(BaseModel):
    """`proof` (hex) shows that the log of `to` leaves begins with the log of `from` leaves."""

    proof: list[str]


def make_router(kit: Kit) -> APIRouter:
    """The routes of the role `api`."""
    router = APIRouter()

    @router.get("/v1/requests/{request_id}/certificate", response_class=Response)
    async def certificate(
        request_id: UUID, who: _Staff, amendment: Annotated[int | None, Query(ge=0, le=2**31 - 1)] = None
    ) -> Response:
        """The certificate of a request, latest amendment first. Keep the bytes as they are: they are what is signed."""
        document = await handlers.read_certificate(kit, request_id, amendment)
        return Response(document, media_type="application/json")

    @router.get("/v1/evidence/checkpoint", response_class=PlainTextResponse)
    async def checkpoint() -> PlainTextResponse:
        """The newest checkpoint that the witness has signed. Anybody may keep it, and hold the log to it later."""
        return PlainTextResponse(await handlers.read_checkpoint(kit))

    @router.get("/v1/evidence/consistency")
    async def consistency(start: Annotated[int, Query(alias="from", ge=1, le=2**62)], to: _Size) -> Consistency:
        """The proof that nothing of the log's first `from` leaves changed when it grew to `to`."""
        return Consistency(proof=[hash_.hex() for hash_ in await handlers.prove_consistency(kit, start, to)])

    @router.get("/v1/evidence/leaves", response_class=Response)
    async def leaves(who: _Auditor, start: Annotated[_Size, Query(alias="from")], to: _Size) -> Response:
        """The leaves `from` up to `to` (not included), a line of JSON each, with the checkpoints between them."""
        if not start <= to <= start + MOST_LEAVES:
            raise Invalid(f"One answer holds at most {MOST_LEAVES} leaves. Ask for the next ones after these.")
        return Response(await handlers.read_log(kit, start, to), media_type="application/x-ndjson")

    return router
