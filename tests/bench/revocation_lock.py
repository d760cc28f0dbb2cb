"""`revocation_lock`: how long an erasure waits for the row that writers of ids share, on a Postgres of its own.

`Tx.erased_subjects` locks `kit.revocation_position` FOR SHARE until its commit, `apply_entries` FOR UPDATE. Postgres lets a
sharer pass one that waits for all of them, so writers whose transactions overlap without a gap can hold an erasure up.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from uuid import uuid4

from deploy.local.given_postgres import choose_postgres
from servicekit.core.errors import Unavailable
from servicekit.db.migrate import KIT_MIGRATIONS, migrate
from servicekit.db.postgres import Database, Tx
from servicekit.participant.revocations import read_position
from tests.bench.figures import Figure

# As many readers of one service as apply a batch at a time, and the rows that each writes in it.
WRITERS = {"revocation_lock_1_ms": 1, "revocation_lock_4_ms": 4, "revocation_lock_8_ms": 8}
ROWS = 500
TRIES = 20


async def run() -> AsyncIterator[Figure]:
    server = choose_postgres()
    try:
        server.start()
        app, owner = server.create_system_database("locked")
        await migrate(owner, [KIT_MIGRATIONS])
        db = await Database.connect(app, "bench", max_connections=max(WRITERS.values()) + 1)
        try:
            for name, writers in WRITERS.items():
                waits, refused = await _measure(db, writers)
                note = f"longest {max(waits):,.0f} ms; {refused} of {TRIES} gave up after 5 s; batches of {ROWS} rows"
                yield Figure(name, statistics.median(waits), "ms", note)
        finally:
            await db.close()
    finally:
        server.close()


async def _measure(db: Database, writers: int) -> tuple[list[float], int]:
    """Milliseconds that each try took while `writers` commit batches without a pause, and how many tries gave up."""
    stopping = asyncio.Event()
    writing = [asyncio.create_task(_write(db, stopping)) for _ in range(writers)]
    waits, refused = list[float](), 0
    try:
        for _ in range(TRIES):
            started = time.monotonic()
            try:
                await db.run_tx("apply_entries", lambda tx: read_position(tx, lock=True))
            except Unavailable:
                refused += 1
            waits.append(1000 * (time.monotonic() - started))
    finally:
        stopping.set()
        await asyncio.gather(*writing)
    return waits, refused


async def _write(db: Database, stopping: asyncio.Event) -> None:
    async def work(tx: Tx) -> None:
        await tx.erased_subjects([uuid4()])
        await tx.execute(
            "INSERT INTO kit.released_keys (key_id, subject_id) SELECT * FROM unnest($1::uuid[], $1::uuid[])",
            [uuid4() for _ in range(ROWS)],
        )

    while not stopping.is_set():
        await db.run_tx("write", work)
