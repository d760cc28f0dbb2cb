"""A vault's database, keys and processes for tests. A module takes the fixtures `module_world`, `vault` and `world`."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest

from deploy.local import keys
from deploy.local.http import open_http
from deploy.local.interfaces import PostgresServer
from deploy.local.services import SERVICES, ServiceProcess
from event_contracts import Erased
from servicekit.core.clock import Clock
from servicekit.db.postgres import Database
from servicekit.vault.client import KeyName, LeaseName, ServiceIdentity, VaultClient
from servicekit.vault.token import SealingKey
from vault_service import epochs
from vault_service.kek import Kek
from vault_service.kek_files import FileKek

POLICY = Path(__file__).resolve().parents[2] / "shared" / "policy" / "policy.yaml"
SYSTEMS = ("account", "order", "logistics-gateway", "privacy", "vault")
(SPEC,) = (spec for spec in SERVICES if spec.system == "vault")


@dataclass
class World:
    """A vault's database and key files, and the processes and clients that a test starts on them."""

    folder: Path
    app_dsn: str
    owner_dsn: str
    policy: Path = POLICY
    processes: list[ServiceProcess] = field(default_factory=list)
    clients: list[VaultClient] = field(default_factory=list)

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "DATABASE_DSN": self.app_dsn,
            "MIGRATIONS_DSN": self.owner_dsn,
            "POLICY_FILES": str(self.policy),
            "SERVICE_KEYS_DIR": str(self.folder / "keys" / "service_keys"),
            "KEK_DIR": str(self.folder / "keys" / "kek"),
            "REVOCATIONS_FILE": str(self.folder / "revocations.jsonl"),
            "REVOCATIONS_KEY_FILE": str(self.folder / "keys" / "revocations.pem"),
        }

    def start(self, extra: Mapping[str, str] | None = None) -> ServiceProcess:
        process = self.launch(extra)
        process.wait_healthy()
        return process

    def launch(self, extra: Mapping[str, str] | None = None) -> ServiceProcess:
        """Without waiting until it is healthy."""
        name = f"vault-{len(self.processes)}"
        process = ServiceProcess(SPEC, "all", name, self.folder / f"{name}.log", self.environment)
        self.processes.append(process)
        process.launch(extra)
        return process

    def identity(self, system: str) -> ServiceIdentity:
        return ServiceIdentity(system, keys.identity_file(self.folder / "keys", system).read_bytes(), Clock())

    def client(self, process: ServiceProcess, system: str, patience: float = 5) -> VaultClient:
        client = VaultClient(process.url, self.identity(system), Clock(), patience=patience)
        self.clients.append(client)
        return client

    async def sql(self, statement: str, *args: object) -> list[Any]:
        connection = await asyncpg.connect(self.owner_dsn)
        try:
            return list(await connection.fetch(statement, *args))
        finally:
            await connection.close()

    async def close(self) -> None:
        for client in self.clients:
            await client.close()
        self.stop()

    def stop(self) -> None:
        for process in self.processes:
            process.close()


@pytest.fixture(scope="module")
def module_world(postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("vault")
    keys.write_keys(folder / "keys", SYSTEMS, ["meridian"])
    world = World(folder, *postgres_server.create_system_database("vault"))
    run_vault(world, "migrate")
    return world


@pytest.fixture(scope="module")
def vault(module_world: World) -> Iterator[ServiceProcess]:
    """One vault that runs through all tests that do not harm it."""
    try:
        yield module_world.start()
    finally:
        module_world.stop()


@pytest.fixture
async def world(module_world: World) -> AsyncIterator[World]:
    """The same database and keys; the clients and further processes of a test end with it."""
    own = World(module_world.folder, module_world.app_dsn, module_world.owner_dsn)
    yield own
    await own.close()


def run_vault(
    world: World, role: str, environment: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "vault_service", role]
    done = subprocess.run(
        command,
        env={**world.environment(), **(environment or {})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if environment is None:
        assert done.returncode == 0, done.stderr
    return done


async def loaded_kek(world: World, database: Database) -> Kek:
    """The KEKs of a vault that runs, for handlers that a test calls itself."""
    return await epochs.prepare(database, FileKek(world.folder / "keys" / "kek"), Clock())


def names(data_class: str = "delivery", count: int = 1) -> list[KeyName]:
    return [KeyName(uuid4(), data_class, uuid4()) for _ in range(count)]


def leases(wanted: list[KeyName], sealing: list[SealingKey]) -> list[LeaseName]:
    return [LeaseName(key.key_id, *name) for name, key in zip(wanted, sealing, strict=True)]


def commitments(found: list[SealingKey] | list[SealingKey | Erased]) -> list[bytes]:
    return [key.commitment for key in found if isinstance(key, SealingKey)]


async def post(world: World, process: ServiceProcess, system: str, path: str, body: object) -> httpx.Response:
    async with open_http(process.url, headers=bearer(world.identity(system).token())) as http:
        return await http.post(path, json=body)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def as_json(name: KeyName) -> dict[str, str]:
    return {"subject": str(name.subject), "data_class": name.data_class, "anchor": str(name.anchor)}
