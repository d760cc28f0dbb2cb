"""Migrations, and the gate that keeps a process off a schema it does not know."""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import asyncpg

from servicekit.core.errors import Misconfigured, SchemaMismatch
from servicekit.db.postgres import Database

KIT_MIGRATIONS: Final = Path(__file__).parent / "migrations"
# Any number that no other user of advisory locks takes: one database has one lock of it.
_LOCK: Final = 0x6D69677261746521


def migration_files(folders: Iterable[Path]) -> list[tuple[str, Path]]:
    """All `NNNN_name.sql` of the folders, in the order of folders and numbers, with names such as `kit/0001_outbox`."""
    found = []
    for folder in folders:
        owner = "kit" if folder == KIT_MIGRATIONS else "service"
        found += [(f"{owner}/{file.stem}", file) for file in sorted(folder.glob("[0-9]*.sql"))]
    return found


async def migrate(dsn: str, folders: Sequence[Path]) -> list[str]:
    """Applies the migrations that are missing, each in its own transaction, as the owner role. Returns their names.

    A second `migrate` of the same database waits for the first. Raises `Misconfigured`, with nothing applied, when the
    file of an applied migration was changed.
    """
    connection: Any = await asyncpg.connect(dsn, server_settings={"application_name": "migrate"})
    try:
        # The session's end frees it, however the process ends.
        await connection.execute(f"-- migrate: lock\nSELECT pg_advisory_lock({_LOCK}); SET lock_timeout = '5s'")
        return await _apply(connection, migration_files(folders))
    finally:
        await connection.close()


async def _apply(connection: Any, files: Sequence[tuple[str, Path]]) -> list[str]:
    await connection.execute(
        """-- migrate: table
        CREATE SCHEMA IF NOT EXISTS kit;
        CREATE TABLE IF NOT EXISTS kit.migrations (name varchar(80) PRIMARY KEY, applied_at timestamptz NOT NULL);
        ALTER TABLE kit.migrations ADD COLUMN IF NOT EXISTS checksum bytea"""
    )
    rows = await connection.fetch("-- migrate: known\nSELECT name, checksum FROM kit.migrations")
    known = {row["name"]: row["checksum"] for row in rows}
    sums = {name: sha256(file.read_bytes()).digest() for name, file in files}
    if edited := [name for name, checksum in sums.items() if known.get(name) not in (None, checksum)]:
        raise Misconfigured(
            f"Nothing was migrated. The database has applied {', '.join(edited)}, and the files were changed since: "
            "put back their first text, and write what is to change as a new migration."
        )
    # Databases that were migrated before checksums were kept have none: their files are taken as they are now.
    old = [name for name in sums if name in known and known[name] is None]
    await connection.execute(
        """-- migrate: record
        UPDATE kit.migrations m SET checksum = u.checksum
        FROM unnest($1::text[], $2::bytea[]) AS u(name, checksum) WHERE m.name = u.name""",
        old,
        [sums[name] for name in old],
    )
    applied = []
    for name, file in files:
        if name not in known:
            async with connection.transaction():
                await connection.execute(file.read_text())
                await connection.execute(
                    "-- migrate: applied\nINSERT INTO kit.migrations VALUES ($1, now(), $2)", name, sums[name]
                )
            applied.append(name)
    return applied


async def check_schema(db: Database, folders: Sequence[Path]) -> None:
    """Raises `SchemaMismatch` unless the database has exactly the migrations that this code was written for."""
    try:
        rows = await db.fetch("-- check_schema\nSELECT name FROM kit.migrations")
    except asyncpg.UndefinedTableError:
        rows = []
    if {row["name"] for row in rows} != {name for name, _ in migration_files(folders)}:
        raise SchemaMismatch
