"""The server of a process's HTTP edge: `serving`."""

import asyncio
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from starlette.types import ASGIApp

from servicekit.core.settings import Settings
from servicekit.http.connections import Connections, ServerConfig


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # The process stops all its parts in order; the server must not answer signals by itself.
        yield


@asynccontextmanager
async def serving(
    app: ASGIApp, settings: Settings, *, address: tuple[str, int] | None = None, by_peer: bool = True
) -> AsyncIterator[int]:
    """Serve `app` at HTTP_HOST and HTTP_PORT or another `address`; gives the port. On leaving, requests under way get 5 s to
    end.

    `by_peer=False` is for callers that are services, many of them behind one address: their identity is what is counted.
    """
    host, port = address or (settings.http_host, settings.http_port)
    connections = Connections(settings, by_peer)
    config = ServerConfig(
        app,
        connections=connections,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        lifespan="off",
        proxy_headers=bool(settings.http_trusted_proxies),
        forwarded_allow_ips=list(settings.http_trusted_proxies),
        server_header=False,
        timeout_graceful_shutdown=5,
        timeout_keep_alive=math.ceil(settings.http_idle_seconds),
        backlog=512,
    )
    server = _Server(config)
    with config.bind_socket() as listening:
        listening.listen(config.backlog)  # whoever connects from now on is served, as soon as the server runs
        async with connections.watched():
            task = asyncio.create_task(server.serve(sockets=[listening]), name="http")
            try:
                yield listening.getsockname()[1]
            finally:
                server.should_exit = True
                await task
