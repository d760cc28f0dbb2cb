"""How a process of a service ends. The listener is the real one; the other parts are made for the test."""

import asyncio
import signal
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import APIRouter

from servicekit.app import service
from servicekit.app.service import Service
from servicekit.core.clock import Clock
from servicekit.core.health import Health
from servicekit.core.settings import Settings


class NoFollower:
    def __init__(self, *arguments: object, **named: object) -> None: ...

    async def run(self, stopping: asyncio.Event, *arguments: object) -> None:
        await stopping.wait()


async def test_the_listener_ends_while_a_part_still_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other they would need more than the process has: 6 s for the parts, 5 s for requests under way."""
    stopping, ending, let_go = asyncio.Event(), asyncio.Event(), asyncio.Event()
    settings = Settings(http_host="127.0.0.1", http_port=unused_port())
    monkeypatch.setattr(service, "Follower", NoFollower)
    monkeypatch.setattr(service, "PARTS_SECONDS", 600)
    monkeypatch.setattr(service, "_parts", lambda *arguments: [("slow", let_go.wait())])
    monkeypatch.setattr(signal, "setitimer", lambda *arguments: ending.set())
    kit: Any = SimpleNamespace(settings=settings, clock=Clock(), works=None, limits=None)
    shop = Service("shop", Path("none"), router=lambda kit: APIRouter())
    running = asyncio.create_task(
        service._run_parts(shop, kit, ("api",), Health("shop", "api", "1", Clock()), stopping)
    )
    try:
        while not await listens(settings):
            await asyncio.sleep(0)
        stopping.set()
        await ending.wait()
        async with asyncio.timeout(30):
            while await listens(settings):
                await asyncio.sleep(0.01)
        assert not running.done()
    finally:
        let_go.set()
        await running


def unused_port() -> int:
    with socket.socket() as any_socket:
        any_socket.bind(("127.0.0.1", 0))
        port: int = any_socket.getsockname()[1]
        return port


async def listens(settings: Settings) -> bool:
    try:
        _, writer = await asyncio.open_connection(settings.http_host, settings.http_port)
    except OSError:
        return False
    writer.close()
    return True
