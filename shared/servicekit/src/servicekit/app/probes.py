"""What a process tells its operator, on a listener of its own: `/livez`, `/readyz` and `/metrics`.

The public listener knows none of them: counters by route and outcome tell a stranger what others do.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from servicekit.core import metrics
from servicekit.core.clock import pause_until
from servicekit.core.errors import Unavailable
from servicekit.core.health import Health
from servicekit.core.logs import get_log
from servicekit.core.settings import Settings
from servicekit.db.postgres import Database
from servicekit.http.serving import serving

log = get_log("probes")
STARTING: Final = "starting"
_RETRY_SECONDS: Final = 0.5


def make_probes(health: Health) -> Starlette:
    """`/livez` answers as long as the process runs, whatever is away. `/readyz` says whether it can serve, and what is missing."""

    async def livez(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        report = health.report()
        return JSONResponse(report, 200 if report["ready"] else 503)

    async def show_metrics(_: Request) -> Response:
        return Response(metrics.render(), media_type=metrics.CONTENT_TYPE)

    return Starlette(routes=[Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", show_metrics)])


@asynccontextmanager
async def serving_probes(health: Health, settings: Settings) -> AsyncIterator[int]:
    """Serve them at HEALTH_HOST and HEALTH_PORT; gives the port. The process is not ready until `health.accept(STARTING)`."""
    health.refuse(STARTING)
    address = (settings.health_host, settings.health_port)
    async with serving(make_probes(health), settings, address=address) as port:
        yield port


async def connect_once_up(dsn: str, name: str, health: Health, stopping: asyncio.Event) -> Database:
    """As `Database.connect`, and tries until the server answers: nobody has to start a process again because its database
    is away. Meanwhile it is not ready. Raises `Unavailable` when the process stops before.
    """
    health.refuse("postgres")
    while True:
        try:
            database = await Database.connect(dsn, name)
        except Unavailable as error:
            log.warning("database_away", error=error)
            await pause_until(stopping, _RETRY_SECONDS)
            if stopping.is_set():
                raise
        else:
            health.accept("postgres")
            return database
