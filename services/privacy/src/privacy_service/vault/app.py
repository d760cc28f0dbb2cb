"""The vault's process: settings → parts → roles. It has no Kafka and holds no key of its own but the KEK."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import uvloop
from fastapi import FastAPI

from privacy_service.vault import handlers, store
from privacy_service.vault.callers import Callers
from privacy_service.vault.handlers import Vault
from privacy_service.vault.http import make_router
from privacy_service.vault.kek import FileKek
from privacy_service.vault.settings import VaultSettings
from servicekit.clock import Clock
from servicekit.errors import KitError, Misconfigured
from servicekit.faults import check_armed
from servicekit.harden import harden
from servicekit.health import Health, Progress
from servicekit.http import make_app, serving
from servicekit.logs import configure_logs, get_log
from servicekit.policy import Policy
from servicekit.postgres import Database, Tx, check_schema, migrate

ROLES: Final = ("api", "jobs", "all")
MIGRATIONS: Final = (Path(__file__).parent / "migrations",)
COUNTS_KEPT: Final = timedelta(days=400)
_STORE_COUNTS_EVERY: Final = 1.0
_PRUNE_EVERY: Final = 3600.0

log = get_log("vault")


async def run(role: str, settings: VaultSettings) -> None:
    """One process in one role, until SIGTERM or SIGINT. Raises Misconfigured."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with running(role, settings, Clock()) as port:
        log.info("started", port=port)
        await stop.wait()
    log.info("stopped")


@asynccontextmanager
async def running(role: str, settings: VaultSettings, clock: Clock) -> AsyncIterator[int]:
    """The parts of one role, serving on the port that is given. On leaving they end in the reverse order."""
    settings.require("database_dsn")
    health = Health("vault", role, _version(), clock)
    async with AsyncExitStack() as parts:
        db = await Database.connect(settings.database_dsn, f"vault-{role}")
        parts.push_async_callback(db.close)
        await check_schema(db, MIGRATIONS)
        if role in ("jobs", "all"):
            prune = health.loop("prune", timedelta(seconds=3 * _PRUNE_EVERY))
            await parts.enter_async_context(_every(_PRUNE_EVERY, lambda: _prune(db, clock), prune))
        if role in ("api", "all"):
            vault = await _open_vault(settings, clock, db)
            parts.push_async_callback(handlers.store_counts, vault)
            counts = health.loop("counts", timedelta(seconds=15))
            await parts.enter_async_context(_every(_STORE_COUNTS_EVERY, lambda: _store_counts(vault), counts))
            app = _api(settings, clock, health, vault)
        else:
            app = make_app(settings, clock, health)
        check_armed()
        yield await parts.enter_async_context(serving(app, settings))


async def _open_vault(settings: VaultSettings, clock: Clock, db: Database) -> Vault:
    settings.require("policy_files", "kek_dir", "service_keys_dir")
    assert settings.kek_dir is not None
    kek = FileKek(settings.kek_dir)
    vault = Vault(db, Policy.load(settings.policy_files), kek, clock)
    await handlers.prepare(vault, kek.newest_epoch())
    return vault


def _api(settings: VaultSettings, clock: Clock, health: Health, vault: Vault) -> FastAPI:
    assert settings.service_keys_dir is not None
    app = make_app(settings, clock, health, [make_router(vault)], refuse_cards=False)
    app.state.callers = Callers(settings.service_keys_dir, clock)
    health.facts["policy"] = lambda: vault.policy.version
    return app


async def _store_counts(vault: Vault) -> None:
    await store.read_head(vault.db)  # so that health says at once when the database is away
    await handlers.store_counts(vault)


async def _prune(db: Database, clock: Clock) -> None:
    async def work(tx: Tx) -> None:
        await store.delete_lease_counts(tx, (clock.now() - COUNTS_KEPT).date())

    await db.run_tx("delete_lease_counts", work)


@asynccontextmanager
async def _every(seconds: float, work: Callable[[], Awaitable[None]], progress: Progress) -> AsyncIterator[None]:
    """Runs `work` now, and again every so often. A failure is logged and shows in the health; the next turn comes."""

    async def loop() -> None:
        while True:
            try:
                await work()
                progress.beat()
            except KitError as error:
                log.warning("loop_failed", error=error)
            await asyncio.sleep(seconds)

    task = asyncio.create_task(loop())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _version() -> str:
    try:
        return version("privacy-service")
    except PackageNotFoundError:
        return "0"


def main(argv: list[str]) -> int:
    """`api`, `jobs`, `all` (both), or `migrate` as the owner of the schema. Returns the exit code."""
    role = argv[0] if len(argv) == 1 else ""
    if role not in (*ROLES, "migrate"):
        print(f"usage: python -m privacy_service.vault {'|'.join((*ROLES, 'migrate'))}", file=sys.stderr)
        return 2
    settings = VaultSettings()
    configure_logs("vault", role, settings.log_level)
    try:
        if role == "migrate":
            settings.require("migrations_dsn")
            applied = uvloop.run(migrate(settings.migrations_dsn, MIGRATIONS))
            log.info("migrated", applied=len(applied))
        else:
            harden()
            uvloop.run(run(role, settings))
    except KitError as error:
        log.error("cannot_run", error=error)
        if isinstance(error, Misconfigured):
            print(error.detail, file=sys.stderr)
        return 1
    return 0
