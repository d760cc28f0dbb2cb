"""A link to the package of an export, and the package itself."""

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from privacy_service.export import handlers
from servicekit import Customer, Kit, Limit, Staff, customer, get_log, limited, staff
from servicekit.core.errors import KitError
from servicekit.http.app import end_work

# A download that takes longer breaks, so that nobody who reads slowly keeps leased keys in use (law L12).
LONGEST_DOWNLOAD: Final = 600.0
LINKS: Final = Limit("links", 10, 3600)
DOWNLOADS: Final = Limit("downloads", 30, 60, "peer")
log = get_log("exports")

_Staff = Annotated[Staff, Depends(staff("support", "privacy_officer"))]
_Customer = Annotated[Customer, Depends(customer())]
_Token = Annotated[str, Path(min_length=43, max_length=43, pattern=r"^[A-Za-z0-9_-]+$")]


class LinkBody(BaseModel):
    """`url_path` is good for one download, until `expires_at`. It is shown once and stored nowhere."""

    url_path: str
    expires_at: datetime


class PackageResponse(StreamingResponse):
    """A zip file, sent as it is made. One that cannot be finished breaks off: no answer can follow on its first bytes.

    Nothing waits for who reads it slowly: no transaction is open, no work with a key in progress. Right before each piece it
    is made sure that the data is still there; what a connection has taken counts as sent.
    """

    media_type = "application/zip"

    def __init__(
        self, package: handlers.Package, status_code: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(package.chunks, status_code, headers)
        self._package = package

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(LONGEST_DOWNLOAD):
                await super().__call__(scope, receive, send)
        except (KitError, TimeoutError) as error:
            log.warning("download_broken", error=error)

    async def stream_response(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for chunk in self._package.chunks:
            # Returns when the client has taken what was sent before.
            await send({"type": "http.response.body", "body": b"", "more_body": True})
            async with self._package.kit.work():
                await self._package.check()
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def make_router(kit: Kit) -> APIRouter:
    """The routes of the role `api`."""
    router = APIRouter()

    @router.post("/v1/requests/{request_id}/link", status_code=201)
    async def link(request_id: UUID, who: _Staff) -> LinkBody:
        """Make a link to hand to the person. The one made before it and not used is void."""
        return _body(await handlers.make_link(kit, who, request_id))

    @router.post("/v1/me/requests/{request_id}/link", status_code=201, openapi_extra=limited(LINKS))
    async def own_link(request_id: UUID, who: _Customer) -> LinkBody:
        """The same, for the person who asked."""
        return _body(await handlers.make_link(kit, who, request_id))

    @router.get("/v1/exports/{token}", response_class=PackageResponse, openapi_extra=limited(DOWNLOADS))
    async def export(token: _Token, request: Request) -> PackageResponse:
        """The package. Whoever has the link may fetch it, once; after that its key is destroyed.

        A download that breaks uses the link up and ends nothing: make a new link and begin again.
        """
        end_work(request)  # each page that is opened is a unit of its own
        headers = {"Content-Disposition": 'attachment; filename="your-data.zip"'}
        return PackageResponse(await handlers.fetch(kit, token), headers=headers)

    return router


def _body(link: handlers.Link) -> LinkBody:
    return LinkBody(url_path=link.path, expires_at=link.expires_at)
