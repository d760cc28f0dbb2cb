"""Waiting for the list of revocations to grow: one look at the database when it did, or every so often, for all who wait."""

import asyncio
from typing import Final

from servicekit.core.clock import Clock, pause_until
from servicekit.db.postgres import Database
from vault_service import store
from vault_service.store import Head

_PAUSE: Final = 0.1


class Heads:
    """One per process. `listed` is set when this process has added to the list; others may, too."""

    def __init__(self, db: Database, clock: Clock, listed: asyncio.Event) -> None:
        self._db, self._clock, self._listed = db, clock, listed
        self._next: asyncio.Task[Head] | None = None

    async def after(self, number: int, wait: float) -> Head:
        """The head once it is past `number`, or as it is in `wait` seconds. Raises Unavailable."""
        give_up = self._clock.boottime() + wait
        head = await store.read_head(self._db)
        while head.revision <= number and self._clock.boottime() < give_up:
            if self._next is None or self._next.done():
                self._next = asyncio.create_task(self._look())
            head = await asyncio.shield(self._next)  # who leaves must not take the look away from the others
        return head

    async def _look(self) -> Head:
        await pause_until(self._listed, _PAUSE)
        self._listed.clear()
        return await store.read_head(self._db)
