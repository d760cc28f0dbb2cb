"""What becomes of the errors of the database's client."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from servicekit.core.errors import Unavailable
from servicekit.db.postgres import Database, Tx


class DyingConnection:
    """Idle when its server died: the farewell has been read, the end of the stream has not."""

    async def execute(self, sql: str, *args: Any) -> str:
        raise asyncpg.InternalClientError("cannot switch to state 15; another operation (2) is in progress")

    fetchval = execute


class DyingPool:
    @asynccontextmanager
    async def acquire(self, timeout: float) -> AsyncIterator[DyingConnection]:
        yield DyingConnection()


@pytest.mark.fault(3, "a statement right after the server died")
async def test_a_connection_whose_server_has_just_died_reads_as_a_database_that_is_away() -> None:
    """Else the relay takes it for a mistake of its own and ends, each time that Postgres is killed."""
    db = Database(DyingPool())

    async def work(tx: Tx) -> None:
        await tx.execute("SELECT 1")

    with pytest.raises(Unavailable):
        await db.fetchval("SELECT 1")
    with pytest.raises(Unavailable):
        await db.run_tx("test", work)
