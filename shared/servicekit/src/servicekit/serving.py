"""The server of a process's HTTP edge: `serving`."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from fastapi import FastAPI

from servicekit.settings import Settings


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # The process stops all its parts in order; the server must not answer signals by itself.
        yield


@asynccontextmanager
async def serving(app: FastAPI, settings: Settings) -> AsyncIterator[int]:
    """Serve `app` at the address of the settings; gives the port. On leaving, requests under way get 5 s to end."""
    config = uvicorn.Config(
        app,
        host=settings.http_host,
        port=settings.http_port,
        log_config=None,
        access_log=False,
        lifespan="off",
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=5,
        backlog=512,
        limit_concurrency=500,
    )
    server = _Server(config)
    with config.bind_socket() as listening:
        task = asyncio.create_task(server.serve(sockets=[listening]), name="http")
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            await task
