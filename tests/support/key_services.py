"""KEK providers for tests: a folder of files, and AWS KMS as moto's server plays it on a free loopback port.

`keyhouse` is a vault's database of its own, with the vaults that a test opens on it within its own process.
"""

import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from moto.server import ThreadedMotoServer

from deploy.local.interfaces import PostgresServer
from servicekit.core.clock import Clock
from servicekit.core.faults import arm
from servicekit.core.policy import Policy
from servicekit.db.migrate import migrate
from servicekit.db.postgres import Database
from servicekit.vault.client import LeaseName
from tests.support.vaults import POLICY, names
from vault_service import handlers
from vault_service.app import MIGRATIONS
from vault_service.epochs import handlers as epochs
from vault_service.epochs.store import read_epochs
from vault_service.handlers import Vault
from vault_service.kek import Provider
from vault_service.kek_files import FileKek
from vault_service.kms import KmsKek

Keys = dict[LeaseName, bytes]
REGION = "eu-central-1"
WEEK = timedelta(days=7)
AWS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
}


@pytest.fixture(scope="session")
def kms_endpoint() -> Iterator[str]:
    """A KMS that keeps its keys in memory, and credentials for it in the environment."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in AWS.items():
            patch.setenv(name, value)
        yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["file", "aws-kms"])
def provider(request: pytest.FixtureRequest, tmp_path: Path) -> Provider:
    """Each provider in turn, with what a new vault needs."""
    if request.param == "file":
        return FileKek(new_folder(tmp_path / "kek"))
    return KmsKek(f"test-{uuid4().hex}", WEEK, REGION, request.getfixturevalue("kms_endpoint"))


def new_folder(folder: Path) -> Path:
    """KEK_DIR of a new vault."""
    folder.mkdir(mode=0o700)
    for name in ("epoch-1.key", "index.key"):
        (folder / name).touch(mode=0o600)
        (folder / name).write_bytes(secrets.token_bytes(32))
    return folder


@dataclass
class Keyhouse:
    """A vault's database of its own, and the vaults that a test opens on it within its own process."""

    app_dsn: str
    owner_dsn: str
    databases: list[Database] = field(default_factory=list)

    async def database(self) -> Database:
        self.databases.append(await Database.connect(self.app_dsn, "test"))
        return self.databases[-1]

    async def open(self, provider: Provider, clock: Clock | None = None) -> Vault:
        db, clock = await self.database(), clock or Clock()
        return Vault(db, Policy.load([POLICY]), await epochs.prepare(db, provider, clock), clock)

    async def sql(self, statement: str, *args: object) -> None:
        owner = await Database.connect(self.owner_dsn, "test")
        self.databases.append(owner)
        await owner.fetch(statement, *args)


@pytest.fixture
async def keyhouse(postgres_server: PostgresServer) -> AsyncIterator[Keyhouse]:
    house = Keyhouse(*postgres_server.create_system_database(f"v{uuid4().hex[:12]}"))
    await migrate(house.owner_dsn, MIGRATIONS)
    yield house
    arm({})
    for database in house.databases:
        await database.close()


async def ensure(vault: Vault, count: int) -> Keys:
    _, made = await handlers.ensure_keys(vault, "order", names(count=count), [])
    return {LeaseName(key.key_id, *key.name): raw for key, raw in made}


async def lease(vault: Vault, keys: Keys) -> Keys:
    _, leased = await handlers.lease_keys(vault, "logistics-gateway", "delivery", list(keys))
    return {name: raw for name, (_, raw) in zip(keys, leased, strict=True) if raw is not None}


async def states(db: Database) -> dict[int, str]:
    return {epoch.number: epoch.state for epoch in await read_epochs(db)}


async def rotate(vault: Vault) -> int:
    epoch = await epochs.open_next(vault.db, vault.kek, vault.clock)
    await epochs.finish(vault.db, vault.kek, vault.clock)
    return epoch
