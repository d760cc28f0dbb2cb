"""Errors of the database: those that say that it is away, and those that a statement may cause itself."""

from __future__ import annotations

import asyncpg

from servicekit.core.errors import Doubtful, Unavailable

# The server is away, full, locked or ends the session: whatever the work was, it is not to blame, so the caller decides.
CONNECTION_ERRORS: tuple[type[Exception], ...] = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a connection that is used between its server's last words and its end
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InsufficientResourcesError,
    asyncpg.PostgresIOError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.LockNotAvailableError,
    asyncpg.QueryCanceledError,  # the statement took too long: so does every one on a server that is overloaded
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.TransactionTimeoutError,
    OSError,
    TimeoutError,
)
# Of these, what a statement that is wrong or never ends raises as well: it may be to blame (see `Doubtful`).
DOUBTFUL_ERRORS: tuple[type[Exception], ...] = (
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.QueryCanceledError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.TransactionTimeoutError,
    TimeoutError,
)
AWAY = "The database does not answer. Nothing was lost; try again later."


def unavailable(error: Exception) -> Exception:
    """What the caller is told. A value that no statement can take is the caller's own fault, and stays what it is."""
    if isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError):
        return error
    return Doubtful(AWAY) if isinstance(error, DOUBTFUL_ERRORS) else Unavailable(AWAY)
