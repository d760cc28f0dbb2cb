"""Postgres: a pool of connections, `run_tx` and the transaction that it gives to the work."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Protocol, TypeVar
from uuid import UUID

import asyncpg

from event_contracts import Event, Sealed
from event_contracts.personal import SealedPart, sealed_parts
from event_contracts.privacy import KeyReleased
from servicekit.core.errors import Fenced, Unavailable
from servicekit.core.faults import declare, faultpoint
from servicekit.core.metrics import PARTS_LEFT_OUT, TX_RETRIES, WRITES_FENCED
from servicekit.db.database_errors import AWAY, CONNECTION_ERRORS, unavailable

R = TypeVar("R")
Record = asyncpg.Record

ATTEMPTS = 8
# As long as the longest statement and the longest idle moment in it together: `wait_out` waits a little longer.
TRANSACTION_SECONDS = 45
# All who used the pool have ended by then: it waits for nobody who is wanted.
CLOSE_SECONDS = 1
_RETRIED = (
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.exceptions.InvalidCachedStatementError,
)

declare("tx.commit", "tx.committed")


class EventWriter(Protocol):
    """What a transaction needs of an outbox, which builds on this module."""

    source: str

    def now(self) -> datetime: ...

    async def write(self, tx: Tx, events: Sequence[Event]) -> None: ...


class Tx:
    """One open transaction. `Sealed` arguments are stored as their token bytes (`bytea`); the keys that they name, and
    those of emitted events, are checked against the fences before the commit."""

    def __init__(self, connection: Any, outbox: EventWriter | None) -> None:
        self._connection = connection
        self._outbox = outbox
        self._named: set[UUID] = set()
        self._passed: set[UUID] = set()
        self._wakes: list[asyncio.Event] = []

    async def execute(self, sql: str, *args: Any) -> str:
        status: str = await self._connection.execute(sql, *self._stored(args))
        return status

    async def fetch(self, sql: str, *args: Any) -> list[Record]:
        rows: list[Record] = await self._connection.fetch(sql, *self._stored(args))
        return rows

    async def fetchrow(self, sql: str, *args: Any) -> Record | None:
        row: Record | None = await self._connection.fetchrow(sql, *self._stored(args))
        return row

    async def fetchval(self, sql: str, *args: Any) -> Any:
        return await self._connection.fetchval(sql, *self._stored(args))

    async def emit(self, *events: Event) -> None:
        """Writes the events to the outbox, in this order. Lock the aggregate's row before (docs/protocols.md#publishing)."""
        if self._outbox is None:
            raise TypeError("this transaction belongs to a service that emits nothing: give Service(emits=[…])")
        self._named.update(part.key_id for event in events for part in sealed_parts(event))
        await self._outbox.write(self, events)

    async def release(self, parts: Collection[SealedPart]) -> None:
        """Says that this system has deleted all that it held under these keys, and keeps it from storing under them again.

        `Holding.delete` calls it. What was deleted is shredded when no row of any system is left under its key.
        """
        if self._outbox is None:
            raise TypeError("this transaction belongs to a service that emits nothing, so nobody would hear of it")
        await self._connection.execute(
            """-- release
            INSERT INTO kit.released_keys (key_id, subject_id)
            SELECT * FROM unnest($1::uuid[], $2::uuid[]) ON CONFLICT DO NOTHING""",
            [part.key_id for part in parts],
            [part.subject for part in parts],
        )
        await self.emit(
            *(
                KeyReleased(
                    subject_id=part.subject,
                    system=self._outbox.source,
                    data_class=part.data_class,
                    anchor=part.anchor,
                    key_id=part.key_id,
                )
                for part in parts
            )
        )

    def now(self) -> datetime:
        """The service's own time: what it records, and what retention counts from."""
        if self._outbox is None:
            raise TypeError("this transaction belongs to a service without an outbox, which has no clock")
        return self._outbox.now()

    def wake(self, sleeper: asyncio.Event) -> None:
        """Sets it once this has committed. A hint within the process: whoever sleeps looks by itself as well."""
        self._wakes.append(sleeper)

    def committed(self) -> None:
        for sleeper in self._wakes:
            sleeper.set()

    async def revoked(self, key_ids: Collection[UUID]) -> set[UUID]:
        """Those of the keys that are fenced, destroyed or released: what they sealed is left out of what a handler stores.

        Counts the parts left out, so give a key as often as it seals a part. One statement for all.
        """
        found = await self._find_revoked(key_ids)
        self._passed.update(key_id for key_id in key_ids if key_id not in found)
        if found:
            PARTS_LEFT_OUT.inc(sum(key_id in found for key_id in key_ids))
        return found

    async def erased_subjects(self, subjects: Collection[UUID]) -> set[UUID]:
        """Those of the people that are erased for good: no row is added that has but their id.

        Until the commit no further erasure is applied to this database, so what is added is what a sweep finds.
        """
        if not subjects:
            return set()
        await self._connection.execute("-- erased_subjects\nSELECT FROM kit.revocation_position FOR SHARE")
        rows = await self._connection.fetch(
            "-- erased_subjects\nSELECT subject_id FROM kit.revoked_subjects WHERE subject_id = ANY($1::uuid[])",
            list(set(subjects)),
        )
        return {row["subject_id"] for row in rows}

    async def refuse_revoked(self) -> None:
        """Raises `Fenced` when something that was stored or emitted names a revoked key. Called before the commit."""
        unchecked = self._named - self._passed
        # The id of this transaction is older than this statement, so a fence that it misses waits for its end.
        if unchecked and await self._find_revoked(unchecked):
            WRITES_FENCED.inc()
            raise Fenced

    async def _find_revoked(self, key_ids: Collection[UUID]) -> set[UUID]:
        if not key_ids:
            return set()
        rows = await self._connection.fetch(
            """-- find_revoked
            SELECT key_id FROM kit.revoked_keys WHERE key_id = ANY($1::uuid[])
            UNION ALL SELECT key_id FROM kit.released_keys WHERE key_id = ANY($1::uuid[])""",
            list(key_ids),
        )
        return {row["key_id"] for row in rows}

    def _stored(self, args: Sequence[Any]) -> list[Any]:
        for arg in args:
            if isinstance(arg, Sealed):
                self._named.add(arg.key_id)
            elif _has_sealed(arg):
                self._named.update(item.key_id for item in arg if isinstance(item, Sealed))
        return _stored(args)


def _stored(args: Sequence[Any]) -> list[Any]:
    return [
        arg.token
        if isinstance(arg, Sealed)
        else [item.token if isinstance(item, Sealed) else item for item in arg]
        if _has_sealed(arg)
        else arg
        for arg in args
    ]


def _has_sealed(arg: Any) -> bool:
    # Columns of thousands of values come by here, and most hold none.
    return isinstance(arg, list) and Sealed in set(map(type, arg))


class Snapshot:
    """Reads of one moment, page by page."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def pages(self, sql: str, *args: Any, size: int) -> AsyncIterator[list[Record]]:
        """The rows of a query through a cursor, at most `size` of them at once."""
        cursor = await self._connection.cursor(sql, *args)
        while rows := await cursor.fetch(size):
            yield list(rows)


async def _retried(name: str, ask: Callable[[], Awaitable[R]]) -> R:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return await ask()
        except _RETRIED:
            if attempt == ATTEMPTS:
                raise
            TX_RETRIES.labels(name).inc()
            await asyncio.sleep(random.uniform(0, 0.01 * 2**attempt))
    raise AssertionError("unreachable")


class Database:
    """A pool of at most `max_connections`, each with time-outs, of one role on one database."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    @classmethod
    async def connect(cls, dsn: str, name: str, *, max_connections: int = 8) -> Database:
        """Opens the pool. Raises `Unavailable` when the server refuses."""
        try:
            pool = await asyncpg.create_pool(
                dsn,
                min_size=1,
                max_size=max_connections,
                command_timeout=30,
                server_settings={
                    "application_name": name,
                    "lock_timeout": "5s",
                    "statement_timeout": "30s",
                    # bounds the wait for old writers (docs/protocols.md#fence-wait-out-sweep), frees a stopped process' locks
                    "idle_in_transaction_session_timeout": "15s",
                    "plan_cache_mode": "force_generic_plan",
                },
                init=_bound_transactions,
                # no session state is set later, so the reset between two users of a connection is a lost round trip
                reset=_keep,
            )
        except CONNECTION_ERRORS as error:
            raise Unavailable(AWAY) from error
        return cls(pool)

    async def close(self) -> None:
        try:
            await asyncio.wait_for(self._pool.close(), CLOSE_SECONDS)
        except TimeoutError:
            self._pool.terminate()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        try:
            async with self._pool.acquire(timeout=10) as connection:
                yield connection
        except CONNECTION_ERRORS as error:
            raise unavailable(error) from error

    async def fetch(self, sql: str, *args: Any) -> list[Record]:
        """One statement, retried when the server says that it lost a race: then nothing of it is stored."""

        async def ask() -> list[Record]:
            async with self._connection() as connection:
                rows: list[Record] = await connection.fetch(sql, *_stored(args))
                return rows

        return await _retried("fetch", ask)

    async def fetchrow(self, sql: str, *args: Any) -> Record | None:
        async with self._connection() as connection:
            row: Record | None = await connection.fetchrow(sql, *_stored(args))
            return row

    async def fetchval(self, sql: str, *args: Any) -> Any:
        async with self._connection() as connection:
            return await connection.fetchval(sql, *_stored(args))

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Snapshot]:
        """Reads that all see the database as it is at this moment. It has no transaction id, so nobody waits for it."""
        async with self._connection() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
            if _knows_transaction_timeout(connection):
                await connection.execute("-- snapshot\nSET LOCAL transaction_timeout = 0")
            yield Snapshot(connection)

    async def run_tx(self, name: str, work: Callable[[Tx], Awaitable[R]], outbox: EventWriter | None = None) -> R:
        """Runs `work` in a READ COMMITTED transaction and commits it.

        Retried when the server says that the transaction lost a race, so `work` must be re-runnable and do no network
        call of its own. Raises `Unavailable` when the server is away: then the commit's outcome may be unknown, and
        the caller's natural key decides on the next try. Raises `Fenced`, with nothing stored, when what it writes
        names a revoked key.
        """
        return await _retried(name, lambda: self._try_tx(name, work, outbox))

    async def _try_tx(self, name: str, work: Callable[[Tx], Awaitable[R]], outbox: EventWriter | None) -> R:
        async with self._connection() as connection:
            # The transaction has its id before any later statement reads the fences (docs/protocols.md#fence-wait-out-sweep).
            await connection.execute(f"-- {name}\nBEGIN; SELECT pg_current_xact_id()")
            tx = Tx(connection, outbox)
            try:
                result = await work(tx)
                await tx.refuse_revoked()
                faultpoint("tx.commit")
                await connection.execute("COMMIT")
            except BaseException:
                if not connection.is_closed():
                    await asyncio.shield(_roll_back(connection))
                raise
            faultpoint("tx.committed")
            tx.committed()
            return result


async def is_up(db: Database) -> bool:
    """Whether the server answers a statement that cannot fail by itself."""
    try:
        await db.fetchval("-- is_up\nSELECT 1")
    except Unavailable:
        return False
    return True


async def _bound_transactions(connection: Any) -> None:
    """A client that stands still between preparing a statement and sending it is neither idle nor at work for the server:
    the other two time-outs pass it by, and it would keep its locks. A server older than 17 cannot help it."""
    if _knows_transaction_timeout(connection):
        await connection.execute(f"-- connect\nSET transaction_timeout = '{TRANSACTION_SECONDS}s'")


def _knows_transaction_timeout(connection: Any) -> bool:
    return bool(connection.get_server_version() >= (17,))


async def _keep(connection: Any) -> None:
    """Leaves the session as it is."""


async def _roll_back(connection: Any) -> None:
    if connection.is_in_transaction():
        try:
            await connection.execute("ROLLBACK")
        except CONNECTION_ERRORS:
            connection.terminate()
