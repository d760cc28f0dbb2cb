"""Calls an ASGI app in this process, without a socket."""

import asyncio
from typing import Any

import httpx
from starlette.types import ASGIApp


class AsgiClient:
    """A blocking HTTP client of `app`; for tests whose app needs no event loop of its own between requests."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def get(self, url: str, **options: Any) -> httpx.Response:
        return self.request("GET", url, **options)

    def post(self, url: str, **options: Any) -> httpx.Response:
        return self.request("POST", url, **options)

    def request(self, method: str, url: str, **options: Any) -> httpx.Response:
        async def call() -> httpx.Response:
            async with open_client(self._app) as client:
                return await client.request(method, url, **options)

        return asyncio.run(call())


def open_client(app: ASGIApp) -> httpx.AsyncClient:
    """An asynchronous client of `app`: `async with open_client(app) as client`."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")
