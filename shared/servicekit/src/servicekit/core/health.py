"""Health is progress: a loop that has work and does not get on is unhealthy, however alive its process is."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

from servicekit.core.clock import Clock

Fact = int | float | str | bool | None
_STALE_AFTER = timedelta(seconds=60)


@dataclass
class Progress:
    """How one loop gets on. It beats on every turn, idle ones included, and says how much work is left."""

    clock: Clock
    stale_after: float
    lag: int = 0
    stopped: str | None = None  # why a part of it waits for an operator (a code)
    needs_operator: str | None = None  # the same for all of it, while the process is well
    _beat_at: float | None = None
    _advanced_at: float = 0.0
    _has_failed: bool = False

    def beat(self, lag: int = 0, advanced: bool = False) -> None:
        """A turn is over; `lag` items are left, and `advanced` if this turn got something done."""
        now = self.clock.boottime()
        # With nothing to do, standing still is progress.
        if advanced or lag == 0 or self._beat_at is None:
            self._advanced_at = now
        self._beat_at, self.lag, self.needs_operator = now, lag, None
        self._has_failed = False

    def stop(self, reason: str) -> None:
        """It stands still for a reason (a code) that no restart helps: an operator must act, and the process is well."""
        self.beat()
        self.needs_operator = reason

    def fail(self) -> None:
        """A turn failed in a way that nobody expected; the loop is unhealthy until its next beat."""
        self._has_failed = True

    def problem(self) -> str | None:
        """A code that says what is wrong, or None."""
        now = self.clock.boottime()
        if self._has_failed:
            return "failed"
        if self._beat_at is None:
            return "starting"
        if now - self._beat_at > self.stale_after:
            return "no_sign_of_life"
        if now - self._advanced_at > self.stale_after:
            return "no_progress"
        return None


@dataclass
class Health:
    """What /readyz of one process reports. `facts` are read when asked: `health.facts["outbox_depth"] = lambda:
    depth`.
    """

    service: str
    role: str
    version: str
    clock: Clock
    facts: dict[str, Callable[[], Fact]] = field(default_factory=dict)
    _loops: dict[str, Progress] = field(default_factory=dict)
    _needs: dict[str, str] = field(default_factory=dict)
    _refusals: set[str] = field(default_factory=set)

    def loop(self, name: str, stale_after: timedelta = _STALE_AFTER, *, needs: str = "") -> Progress:
        """The progress of the loop `name`, which is unhealthy from now until its first beat.

        `needs` is what the loop asks for and no request can do without, such as `postgres`. While the loop gets none of it,
        the process is not ready.
        """
        if needs:
            self._needs[name] = needs
        return self._loops.setdefault(name, Progress(self.clock, stale_after.total_seconds()))

    def refuse(self, reason: str) -> None:
        """The process must not serve, for this reason (a code), until `accept`."""
        self._refusals.add(reason)

    def accept(self, reason: str) -> None:
        self._refusals.discard(reason)

    @property
    def refuses(self) -> bool:
        return bool(self._refusals)

    def report(self) -> dict[str, object]:
        """JSON-ready. `ready`: requests can be served, else `missing` says what they lack. `ok`: also every loop gets on, else
        `problems` has a code by loop. What an operator must set going, lag by loop, and the facts.
        """
        problems = {name: problem for name, loop in self._loops.items() if (problem := loop.problem())}
        problems |= dict.fromkeys(sorted(self._refusals), "refused")
        away = {need for name, need in self._needs.items() if problems.get(name, "starting") != "starting"}
        missing = sorted(self._refusals | away)
        who = {"service": self.service, "role": self.role, "version": self.version}
        lag = {name: loop.lag for name, loop in self._loops.items()}
        stuck = {n: why for n, loop in self._loops.items() if (why := loop.stopped or loop.needs_operator) is not None}
        facts = {name: fact() for name, fact in self.facts.items()}
        state = {"ready": not missing, "missing": missing, "ok": not problems, "problems": problems}
        return {**who, **state, "needs_operator": stuck, "lag": lag, **facts}
