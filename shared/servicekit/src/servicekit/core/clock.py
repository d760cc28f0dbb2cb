"""Time comes from here and nowhere else, so that tests can move it."""

import asyncio
import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta


class Clock:
    """The machine's clock. `CLOCK_OFFSET_SECONDS` in the environment moves `now`, for tests of running processes."""

    def __init__(self, offset: timedelta | None = None) -> None:
        self._offset = (
            timedelta(seconds=float(os.environ.get("CLOCK_OFFSET_SECONDS") or 0)) if offset is None else offset
        )

    def now(self) -> datetime:
        """The time of day, aware, UTC."""
        return datetime.now(UTC) + self._offset

    def boottime(self) -> float:
        """Seconds on a clock that never goes back and goes on during suspend:
        what leases are counted by (docs/protocols.md#asking-the-vault).
        """
        return time.clock_gettime(time.CLOCK_BOOTTIME)


class FakeClock(Clock):
    """A clock that stands still until `tick`, for tests."""

    def __init__(self, now: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        super().__init__(timedelta())
        self._now = now
        self._boottime = 1_000.0

    def now(self) -> datetime:
        return self._now

    def boottime(self) -> float:
        return self._boottime

    def tick(self, seconds: float) -> None:
        """Both clocks go on by `seconds`."""
        self._now += timedelta(seconds=seconds)
        self._boottime += seconds


class Backoff:
    """Pauses in seconds, each twice as long as the one before, up to the longest; `reset` begins again."""

    def __init__(self, first: float, longest: float) -> None:
        self.seconds, self._first, self._longest = first, first, longest

    def next(self) -> float:
        """The pause to make now; the one after it is longer."""
        pause, self.seconds = self.seconds, min(self.seconds * 2, self._longest)
        return pause

    def reset(self) -> None:
        self.seconds = self._first


async def pause_until(stopping: asyncio.Event, seconds: float) -> None:
    """Sleeps so long, or until `stopping` is set."""
    await pause_until_any((stopping,), seconds)


async def pause_until_any(events: Sequence[asyncio.Event], seconds: float | None) -> None:
    """Sleeps so long (None: for ever), or until one of the events is set."""
    if any(event.is_set() for event in events):
        return
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
