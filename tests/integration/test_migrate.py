"""`migrate` on a real Postgres: two at once, and files that were changed after they were applied."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from deploy.local.databases import execute
from deploy.local.interfaces import PostgresServer
from servicekit.core.errors import Misconfigured
from servicekit.db.migrate import migrate
from tests.support.infra import postgres_server

__all__ = ["postgres_server"]

# The migration stands still until the test lets go of this lock.
HELD = 4711
SLOW = f"SET LOCAL lock_timeout = 0; SELECT pg_advisory_xact_lock({HELD}); CREATE TABLE made (id int)"


@pytest.fixture
def owner_dsn(postgres_server: PostgresServer) -> str:
    return postgres_server.create_system_database(f"migrated{uuid4().hex[:8]}")[1]


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await holds():
            await asyncio.sleep(0.01)


async def test_of_two_at_once_the_second_waits_and_finds_nothing_to_do(owner_dsn: str, tmp_path: Path) -> None:
    """Both found the same migration missing, and the second one failed half-way."""
    (tmp_path / "0001_slow.sql").write_text(SLOW)
    holder: Any = await asyncpg.connect(owner_dsn)
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"
    try:
        await holder.execute(f"SELECT pg_advisory_lock({HELD})")
        first = asyncio.create_task(migrate(owner_dsn, [tmp_path]))
        await until(lambda: _is(holder, waiting, 1))
        second = asyncio.create_task(migrate(owner_dsn, [tmp_path]))
        await until(lambda: _is(holder, waiting, 2))
        await holder.execute(f"SELECT pg_advisory_unlock({HELD})")
        assert (await first, await second) == (["service/0001_slow"], [])
    finally:
        await holder.close()


async def _is(connection: Any, sql: str, value: int) -> bool:
    return bool(await connection.fetchval(sql) == value)


async def test_an_applied_migration_whose_file_was_changed_is_refused_by_name(owner_dsn: str, tmp_path: Path) -> None:
    """And nothing else is applied: who edits a file may mean the next one to stand on it."""
    (tmp_path / "0001_first.sql").write_text("CREATE TABLE made (id int)")
    await migrate(owner_dsn, [tmp_path])
    (tmp_path / "0001_first.sql").write_text("CREATE TABLE made (id bigint)")
    (tmp_path / "0002_next.sql").write_text("DROP TABLE made")
    with pytest.raises(Misconfigured, match="service/0001_first, and the files were changed"):
        await migrate(owner_dsn, [tmp_path])
    execute(owner_dsn, "SELECT FROM made")
    (tmp_path / "0001_first.sql").write_text("CREATE TABLE made (id int)")
    assert await migrate(owner_dsn, [tmp_path]) == ["service/0002_next"]


async def test_a_database_from_before_checksums_gets_them_with_the_next_migrate(owner_dsn: str, tmp_path: Path) -> None:
    (tmp_path / "0001_first.sql").write_text("CREATE TABLE made (id int)")
    execute(
        owner_dsn,
        "CREATE SCHEMA kit",
        "CREATE TABLE kit.migrations (name varchar(80) PRIMARY KEY, applied_at timestamptz NOT NULL)",
        "INSERT INTO kit.migrations VALUES ('service/0001_first', now())",
    )
    assert await migrate(owner_dsn, [tmp_path]) == []
    (tmp_path / "0001_first.sql").write_text("CREATE TABLE made (id bigint)")
    with pytest.raises(Misconfigured):
        await migrate(owner_dsn, [tmp_path])
