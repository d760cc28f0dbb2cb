"""The vault's process: settings → parts → roles. It holds no key of its own but the KEK."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from fastapi import FastAPI

from servicekit import Tx, get_log
from servicekit.app.probes import STARTING, connect_once_up, serving_probes
from servicekit.app.process import run_process, stop_signal
from servicekit.app.republish import REPUBLISH, since_of
from servicekit.core.clock import Clock
from servicekit.core.faults import check_armed
from servicekit.core.gc_settings import settle
from servicekit.core.health import Health
from servicekit.core.policy import Policy
from servicekit.db.migrate import check_schema, migrate
from servicekit.db.postgres import Database
from servicekit.db.writers import OldestWriter, check_writers, read_writers
from servicekit.http.app import make_app
from servicekit.http.serving import serving
from vault_service import epochs, handlers
from vault_service import key_expiry_http as aging_http
from vault_service import lease_holders as holders
from vault_service import lease_holders_store as holders_store
from vault_service.callers import Callers
from vault_service.epochs import commands as epoch_commands
from vault_service.epochs import http as epoch_http
from vault_service.handlers import Vault
from vault_service.http import make_router
from vault_service.jobs import every
from vault_service.kek import Kek
from vault_service.revocations import handlers as revocations
from vault_service.revocations import http as revocations_http
from vault_service.revocations.file import ListRefused, RevocationFile
from vault_service.revocations.publishing import Publisher
from vault_service.revocations.store import KEY_TABLES, unmark_published
from vault_service.settings import VaultSettings
from vault_service.store import delete_lease_counts

ROLES: Final = ("api", "jobs", "all")
MIGRATIONS: Final = (Path(__file__).parent / "migrations",)
COUNTS_KEPT: Final = timedelta(days=400)
_STORE_COUNTS_EVERY: Final = 1.0
_CHECK_LIST_EVERY: Final = 1.0
_PUBLISH_EVERY: Final = 0.2
_PRUNE_EVERY: Final = 3600.0
_LOOK_AT_EPOCHS_EVERY: Final = 1.0
_LOOK_AT_WRITERS_EVERY: Final = 2.0
_EPOCHS_SLOWEST: Final = timedelta(minutes=10)
_STALE_AFTER: Final = timedelta(seconds=60)
_STALE_SOON: Final = timedelta(seconds=15)

log = get_log("vault")


async def run(role: str, settings: VaultSettings) -> None:
    """One process in one role, until SIGTERM or SIGINT. Raises Misconfigured."""
    stop = stop_signal()
    async with running(role, settings, Clock(), stop):
        settle()
        log.info("started")
        await stop.wait()
    log.info("stopped")


@asynccontextmanager
async def running(role: str, settings: VaultSettings, clock: Clock, stop: asyncio.Event) -> AsyncIterator[None]:
    """The parts of one role. On leaving they end in the reverse order."""
    settings.require("database_dsn")
    health = Health("vault", role, _version(), clock)
    async with AsyncExitStack() as parts:
        await parts.enter_async_context(serving_probes(health, settings))
        db = await connect_once_up(settings.database_dsn, f"vault-{role}", health, stop)
        parts.push_async_callback(db.close)
        await check_schema(db, MIGRATIONS)
        await check_writers(db, KEY_TABLES)
        kek = await epochs.prepare(db, epochs.make_provider(settings), clock)

        async def loop(
            seconds: float, name: str, work: Callable[[], Awaitable[None]], stale_after: timedelta, needs: str = ""
        ) -> None:
            await parts.enter_async_context(every(seconds, name, work, health.loop(name, stale_after, needs=needs)))

        if role in ("jobs", "all"):
            await loop(_PRUNE_EVERY, "prune", partial(_prune, db, clock), 3 * timedelta(seconds=_PRUNE_EVERY))
            turn = partial(epochs.turn, db, kek, clock, settings)
            await loop(_LOOK_AT_EPOCHS_EVERY, "kek_epochs", turn, _EPOCHS_SLOWEST)
            if settings.kafka_bootstrap:
                publisher = Publisher(db, settings)
                parts.push_async_callback(publisher.stop)
                await loop(_PUBLISH_EVERY, "publish", publisher.publish, _STALE_AFTER)
            else:
                log.warning("revocations_not_published")
        if role in ("api", "all"):
            vault = await _open_vault(settings, clock, db, kek)
            parts.push_async_callback(handlers.store_counts, vault)
            await loop(_LOOK_AT_WRITERS_EVERY, "writers", _watch_writers(db, clock, health), _STALE_AFTER)
            await loop(_STORE_COUNTS_EVERY, "counts", partial(handlers.store_counts, vault), _STALE_SOON)
            check_list = partial(_check_list, vault, health)
            await loop(_CHECK_LIST_EVERY, "revocation_list", check_list, _STALE_SOON, needs="postgres")
            await loop(_CHECK_LIST_EVERY, "ages", partial(_see_head, vault), _STALE_SOON)
            await loop(_LOOK_AT_EPOCHS_EVERY, "keks", partial(epochs.refresh, db, kek), _STALE_AFTER)
            app = _api(settings, clock, health, vault)
            await parts.enter_async_context(serving(app, settings, by_peer=False))
        check_armed()
        health.accept(STARTING)
        yield


async def _open_vault(settings: VaultSettings, clock: Clock, db: Database, kek: Kek) -> Vault:
    settings.require("policy_files", "service_keys_dir", "revocations_file")
    assert settings.revocations_file is not None
    file = RevocationFile.open(settings.revocations_file, settings.read("revocations_key_file"))
    vault = Vault(db, Policy.load(settings.policy_files), kek, clock, file=file)
    await revocations.catch_up(vault)
    return vault


def _api(settings: VaultSettings, clock: Clock, health: Health, vault: Vault) -> FastAPI:
    assert settings.service_keys_dir is not None
    routers = [
        make_router(vault),
        revocations_http.make_router(vault, settings),
        epoch_http.make_router(vault, settings),
        aging_http.make_router(vault),
    ]
    most = settings.http_requests_per_service
    app = make_app(settings, clock, health, routers, refuse_cards=False, requests_per_caller=most)
    app.state.callers = Callers(settings.service_keys_dir, clock)
    health.facts["policy"] = lambda: vault.policy.version
    return app


async def _check_list(vault: Vault, health: Health) -> None:
    """A database that was restored under a running vault is behind the file: it catches up, or nothing is served."""
    try:
        if await revocations.differs(vault):
            await revocations.catch_up(vault)
    except ListRefused:
        health.refuse("revocation_list")
        raise
    health.accept("revocation_list")


def _watch_writers(db: Database, clock: Clock, health: Health) -> Callable[[], Awaitable[None]]:
    """Health names the oldest transaction that a revocation would wait for."""
    oldest = OldestWriter(clock)
    health.facts["oldest_writer"] = oldest.fact

    async def look() -> None:
        oldest.note(await read_writers(db, KEY_TABLES))

    return look


async def _see_head(vault: Vault) -> None:
    await holders.see_head(vault)


async def _prune(db: Database, clock: Clock) -> None:
    async def work(tx: Tx) -> None:
        await delete_lease_counts(tx, (clock.now() - COUNTS_KEPT).date())
        await holders_store.forget_old(tx)

    await db.run_tx("prune", work)


async def _republish(settings: VaultSettings, since: datetime) -> None:
    settings.require("database_dsn")
    db = await Database.connect(settings.database_dsn, "vault-republish")
    try:
        again = await unmark_published(db, since)
    finally:
        await db.close()
    print(f"{again} entries are published again when the vault runs")


def _version() -> str:
    try:
        return version("privacy-service")
    except PackageNotFoundError:
        return "0"


def main(argv: list[str]) -> int:
    """`api`, `jobs`, `all` (both), `migrate` as the owner of the schema, or a command → the exit code."""
    since = since_of(argv)
    role = "republish" if since is not None else argv[0] if len(argv) == 1 else ""
    known = (*ROLES, "migrate", *epoch_commands.COMMANDS)
    if since is None and role not in known:
        print(f"usage: python -m vault_service {'|'.join((*known, REPUBLISH))}", file=sys.stderr)
        return 2
    settings = VaultSettings()
    has_keys = role not in ("migrate", "republish")
    return run_process("vault", role, settings.log_level, partial(_run, role, settings, since), has_keys=has_keys)


async def _run(role: str, settings: VaultSettings, since: datetime | None) -> int | None:
    if role == "migrate":
        settings.require("migrations_dsn")
        applied = await migrate(settings.migrations_dsn, MIGRATIONS)
        log.info("migrated", applied=len(applied))
    elif since is not None:
        await _republish(settings, since)
    elif role in epoch_commands.COMMANDS:
        return await epoch_commands.run(role, settings, Clock())
    else:
        await run(role, settings)
    return None
