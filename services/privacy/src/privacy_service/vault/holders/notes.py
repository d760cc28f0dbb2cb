"""What this process has written of the holders of keys, in memory."""

from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

_MOST: Final = 10_000


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
