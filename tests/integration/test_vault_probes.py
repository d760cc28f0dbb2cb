"""What a vault tells its operator while it starts."""
# ruff: noqa: F811 - fixtures are imported, and named again as parameters

import asyncio
from urllib.parse import urlsplit

import pytest

from deploy.local.http import open_http
from deploy.local.services import ServiceProcess
from servicekit.http.connections import MAX_HEAD
from tests.support.infra import postgres_server  # noqa: F401 - a fixture
from tests.support.vaults import World, module_world, vault, world  # noqa: F401 - fixtures
from tests.support.wire import PostgresWire


@pytest.mark.fault(19, "a process starts while its database is away")
async def test_a_process_waits_for_its_database_and_lives_meanwhile(world: World, vault: ServiceProcess) -> None:
    server = urlsplit(world.app_dsn)
    wire = PostgresWire()
    async with wire.serving(f"{server.hostname}:{server.port}"):
        dsn = world.app_dsn.replace(f"{server.hostname}:{server.port}", wire.address)
        with wire.cut():
            process = world.launch({"DATABASE_DSN": dsn})
            while wire.refused < 3:
                await asyncio.sleep(0.05)
            async with open_http(process.health_url) as http:
                alive, ready = await http.get("/livez"), await http.get("/readyz")
            assert (alive.status_code, ready.status_code, ready.json()["missing"]) == (
                200,
                503,
                ["postgres", "starting"],
            )
            assert process.pid is not None
        await asyncio.to_thread(process.wait_healthy)
        async with open_http(process.health_url) as http:
            assert (await http.get("/readyz")).json()["missing"] == []
            assert (await http.get("/livez", headers={"X": "x" * MAX_HEAD})).status_code == 431
    await asyncio.to_thread(process.stop)
