"""What this process knows of the holders of keys, in memory: what it has written of them, and which leases can still run."""

from collections import deque
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

_MOST: Final = 10_000
# Heads that follow sooner are seen a little later: so few are kept, and none runs out too early.
_APART: Final = 0.1


@dataclass(slots=True)
class Notes:
    """When this process last wrote of each holder, on the boot clock: it writes once per half lease time, not per lease."""

    _written: dict[tuple[str, UUID], float] = field(default_factory=dict)

    def is_fresh(self, system: str, holder: UUID, now: float, lease: float) -> bool:
        """Whether what was written covers a lease that is asked for now: one and a half lease times were noted."""
        written = self._written.get((system, holder))
        return written is not None and now + lease <= written + 1.5 * lease

    def write(self, system: str, holder: UUID, now: float) -> None:
        if len(self._written) >= _MOST:
            self._written.clear()
        self._written[system, holder] = now

    def forget(self, system: str, holder: UUID) -> None:
        self._written.pop((system, holder), None)


@dataclass(slots=True)
class Ages:
    """When this process first saw each head of the list, on the boot clock.

    A lease runs from the moment of its request. So a lease that was granted before an entry is over one lease time
    after that entry was first seen, however often its holder asks for other leases.
    """

    # (boot time, head), the oldest first. The first one is older than a lease, the rest is not.
    _seen: deque[tuple[float, int]] = field(default_factory=deque)

    def see(self, head: int, now: float, lease: float) -> None:
        """The list has `head` entries now."""
        if not self._seen or (head > self._seen[-1][1] and now >= self._seen[-1][0] + _APART):
            self._seen.append((now, head))
        while len(self._seen) > 1 and self._seen[1][0] + lease <= now:
            self._seen.popleft()

    def over(self, now: float, lease: float) -> int:
        """No lease runs any more that was granted before an entry up to this number."""
        return max((head for at, head in self._seen if at + lease <= now), default=0)

    def left(self, number: int, now: float, lease: float) -> float:
        """The seconds until that is so for this entry; a whole lease when it was not seen yet."""
        return next((max(0.0, at + lease - now) for at, head in self._seen if head >= number), lease)
