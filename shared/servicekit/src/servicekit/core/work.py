"""What a process has under way, and whether it may begin anything: pure, without I/O.

`Work` counts what was begun and has not ended, so that a holder of keys can say when nothing that used a key is left
(docs/protocols.md#the-list-of-revocations). `Gate` is shut while this system's database is behind the list of revocations.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from servicekit.core.clock import pause_until_any


class Work:
    """Units of work by the order in which they began: a batch from prepare to deliver, a request, a run of a job."""

    def __init__(self) -> None:
        self._begun = 0
        self._running: dict[int, None] = {}  # in the order of beginning, so the first one is the oldest

    def begin(self) -> int:
        """The number of a unit that begins; to be handed to `end`."""
        self._begun += 1
        self._running[self._begun] = None
        return self._begun

    def end(self, unit: int) -> None:
        """Ending a unit twice does no harm."""
        self._running.pop(unit, None)

    @asynccontextmanager
    async def unit(self) -> AsyncIterator[None]:
        number = self.begin()
        try:
            yield
        finally:
            self.end(number)

    @property
    def mark(self) -> int:
        """A place in time: what began until here has a number up to this one."""
        return self._begun

    def has_ended(self, mark: int) -> bool:
        """Whether all that began before `mark` was taken has ended."""
        return next(iter(self._running), mark + 1) > mark


class Gate:
    """Open, unless someone shut it."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()

    @property
    def is_open(self) -> bool:
        return self._open.is_set()

    def open(self) -> None:
        self._open.set()

    def shut(self) -> None:
        self._open.clear()

    async def passed(self, stopping: asyncio.Event) -> bool:
        """Waits until the gate is open; False when `stopping` was set before."""
        if self._open.is_set():
            return not stopping.is_set()
        await pause_until_any((self._open, stopping), None)
        return not stopping.is_set()
