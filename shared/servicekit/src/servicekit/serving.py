"""The server of a process's HTTP edge: `serving`."""

import asyncio
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from fastapi import FastAPI

from servicekit.connections import Connections, ServerConfig
from servicekit.settings import Settings


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # The process stops all its parts in order; the server must not answer signals by itself.
        yield


@asynccontextmanager
async def serving(app: FastAPI, settings: Settings, *, by_peer: bool = True) -> AsyncIterator[int]:
    """Serve `app` at the address of the settings; gives the port. On leaving, requests under way get 5 s to end.

    `by_peer=False` is for callers that are services, many of them behind one address: their identity is what is counted.
    """
    connections = Connections(settings, by_peer)
    config = ServerConfig(
        app,
        connections=connections,
        host=settings.http_host,
        port=settings.http_port,
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
