"""Which transactions can still write a system's rows: what a fence waits for (docs/protocols.md#fence-wait-out-sweep).

`pg_stat_activity` shows `backend_xid` of every session to every role. So no right is needed beyond those of PUBLIC.
Sessions of other databases do not count, nor do sessions whose role cannot write one of the tables.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from servicekit.core.clock import Clock
from servicekit.core.errors import Misconfigured, Unavailable
from servicekit.db.postgres import Database, Tx

# Longer than a transaction may take (servicekit.db.postgres), and than a session of another role may stand idle in one.
LONGEST_WAIT: Final = 50.0
_FIRST_PAUSE: Final = 0.005
_LONGEST_PAUSE: Final = 0.1
_XIDS: Final = 1 << 32
_NAME: Final = re.compile(r"[A-Za-z0-9_.:/ -]{1,63}")

# The session's own role counts, and every role that it can take with SET ROLE. A superuser can take all of them.
# A role that was dropped meanwhile has no name; its session counts. Sessions without a role are the server's own.
_WRITERS: Final = """-- read_writers
    SELECT now.next_xid, s.pid, s.usename AS role, s.application_name AS application, s.backend_xid::text::bigint AS xid
    FROM (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS next_xid) AS now
    LEFT JOIN pg_stat_activity AS s
      ON s.datname = current_database() AND s.backend_xid IS NOT NULL AND s.pid <> pg_backend_pid()
     AND s.usesysid IS NOT NULL
     AND (s.usename IS NULL OR EXISTS (
        SELECT FROM unnest($1::text[]) AS named (name),
             LATERAL (SELECT name::regclass AS part UNION SELECT relid FROM pg_partition_tree(name::regclass)) AS parts,
             pg_roles AS r
        WHERE pg_has_role(s.usesysid, r.oid, 'MEMBER') AND has_any_column_privilege(r.oid, parts.part, 'INSERT, UPDATE')))
    ORDER BY age(s.backend_xid) DESC"""


@dataclass(frozen=True, slots=True)
class Writer:
    """A transaction in progress that may have written a row. `xid` is its full id, of 64 bits."""

    pid: int
    role: str
    application: str
    xid: int

    def __str__(self) -> str:
        return f"role {self.role}, application {self.application}, process {self.pid}"


@dataclass(frozen=True, slots=True)
class Writers:
    """The writers of one moment, the oldest first. Every id below `next_xid` had been drawn before that moment."""

    next_xid: int
    open: tuple[Writer, ...]

    @property
    def horizon(self) -> int:
        """Every writer with an id below this has ended, and a later statement sees what it committed."""
        return min((self.next_xid, *(writer.xid for writer in self.open)))


async def read_writers(source: Database | Tx, tables: Sequence[str]) -> Writers:
    """Who may be writing these tables now. Within a transaction only the first call looks; later calls repeat it.

    Raises `Misconfigured` when the role may not look.
    """
    try:
        rows = await source.fetch(_WRITERS, list(tables))
    except asyncpg.InsufficientPrivilegeError:
        raise Misconfigured(
            "This role may not read pg_stat_activity, so nothing tells when old writers have ended, and no erasure"
            " can go on. GRANT SELECT ON pg_stat_activity to this role."
        ) from None
    next_xid = rows[0]["next_xid"]
    found = (_writer(row, next_xid) for row in rows if row["pid"] is not None)
    return Writers(next_xid, tuple(sorted(found, key=lambda writer: writer.xid)))


def _writer(row: Any, near: int) -> Writer:
    # An operator chooses the application's name, so only a plain one is repeated.
    application = row["application"] if _NAME.fullmatch(row["application"] or "") else "unnamed"
    return Writer(row["pid"], row["role"] or "dropped", application, full_xid(row["xid"], near))


def full_xid(xid: int, near: int) -> int:
    """The 64-bit id of a transaction in progress, from its lower 32 bits and an id that is less than 2^31 away."""
    behind = (near - xid) % _XIDS
    return near - behind if behind < _XIDS // 2 else near - behind + _XIDS


async def draw_horizon(db: Database) -> int:
    """Every transaction that has its id by now has one below this. It is an id of its own, drawn and ended here.

    The next id of a snapshot is no such number: it is one past the last *completed* id, so a writer in progress may have it.
    """
    drawn: int = await db.fetchval("-- draw_horizon\nSELECT pg_current_xact_id()::text::bigint")
    return drawn


async def wait_out(db: Database, clock: Clock, tables: Sequence[str]) -> None:
    """Returns when every writer of these tables has ended that may have missed what is committed by now.

    Raises `Unavailable`, which names the oldest writer, when that takes longer than time-outs allow.
    """
    horizon = await draw_horizon(db)
    give_up, pause = clock.boottime() + LONGEST_WAIT, _FIRST_PAUSE
    while (writers := await read_writers(db, tables)).horizon < horizon:
        if clock.boottime() > give_up:
            raise Unavailable(
                f"A transaction from before the erasure does not end ({writers.open[0]}). End that session;"
                " the erasure is tried again by itself."
            )
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


async def check_writers(db: Database, tables: Sequence[str]) -> None:
    """Raises `Misconfigured` unless this database tells of every transaction that can write these tables."""
    prepared = await db.fetchval("-- check_writers\nSELECT current_setting('max_prepared_transactions')::int")
    if prepared:
        raise Misconfigured(
            "The database server allows prepared transactions. They belong to no session, so an erasure cannot wait for"
            " them. Set max_prepared_transactions = 0 and restart the server."
        )
    await read_writers(db, tables)


class OldestWriter:
    """What health says of the oldest transaction that concerns this database: its role, its application and its age."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: dict[tuple[int, int], float] = {}
        self._oldest: Writer | None = None

    def note(self, writers: Writers) -> None:
        """The age counts from the first look that saw it: when it began is told to its own role only."""
        now = self._clock.boottime()
        self._seen = {(each.pid, each.xid): self._seen.get((each.pid, each.xid), now) for each in writers.open}
        self._oldest = writers.open[0] if writers.open else None

    def fact(self) -> str | None:
        """None when no transaction is open."""
        if self._oldest is None:
            return None
        age = self._clock.boottime() - self._seen[self._oldest.pid, self._oldest.xid]
        return f"{self._oldest}, open for at least {age:.0f} s"
