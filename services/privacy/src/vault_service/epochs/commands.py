"""What the operator of the vault calls by hand, with the vault's environment: `epochs`, `rotate-kek`, `missing-keys`."""

import sys
from collections.abc import Iterable
from datetime import datetime
from typing import Final
from uuid import UUID

from servicekit.core.clock import Clock
from servicekit.core.errors import Invalid
from servicekit.db.postgres import Database
from vault_service.epochs import handlers, store
from vault_service.kek import Kek
from vault_service.settings import VaultSettings

COMMANDS: Final = ("epochs", "rotate-kek", "missing-keys")


async def run(command: str, settings: VaultSettings, clock: Clock) -> int:
    """The exit code: 1 when keys are missing. Raises Misconfigured, Invalid, Unavailable."""
    settings.require("database_dsn")
    db = await Database.connect(settings.database_dsn, f"vault-{command}")
    try:
        if command == "missing-keys":
            return await _missing_keys(db, sys.stdin)
        kek = await handlers.prepare(db, handlers.make_provider(settings), clock)
        if command == "rotate-kek":
            await handlers.open_next(db, kek, clock)
            await handlers.finish(db, kek, clock)
        await _show(db, kek, settings, clock)
    finally:
        await db.close()
    return 0


async def _show(db: Database, kek: Kek, settings: VaultSettings, clock: Clock) -> None:
    shown = await handlers.overview(db, kek, settings, clock.now())
    print(f"{'epoch':>5}  {'state':9}  {'keys':>9}  {'opened':16}  {'closed':16}  {'emptied':16}  {'destroyed':16}")
    for epoch, keys in shown.epochs:
        times = (epoch.opened_at, epoch.closed_at, epoch.emptied_at, epoch.destroyed_at)
        print(f"{epoch.number:>5}  {epoch.state:9}  {keys:>9}  {'  '.join(map(_time, times))}")
    print(f"provider: {shown.provider}")
    print(f"horizon of what is erased today: {shown.horizon}")
    for stray in shown.strays:
        print(f"no epoch accounts for {stray}: see deploy/runbooks/restore.md")


def _time(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M}" if at else f"{'-':16}"


async def _missing_keys(db: Database, lines: Iterable[str]) -> int:
    """Key ids, one a line, as privacy's inventory names them → those that this vault never had, or has lost."""
    try:
        wanted = [UUID(line.strip()) for line in lines if line.strip()]
    except ValueError:
        raise Invalid("The input is not a list of key ids, one a line.") from None
    missing = await store.missing_keys(db, wanted)
    for key_id in missing:
        print(key_id)
    print(f"{len(missing)} of {len(wanted)} keys are not in this vault", file=sys.stderr)
    return 1 if missing else 0
