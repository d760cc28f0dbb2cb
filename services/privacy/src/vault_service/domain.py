"""The vault's rules, pure: what a key is bound to, when a new generation begins, how much a service may have."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Final, Literal
from uuid import UUID

from msgspec import Struct

from servicekit.core.errors import TooMany
from servicekit.vault.leases import KeyName

PROBE: Final = bytes(32)
Action = Literal["ensured", "leased"]
_WRAP_LABEL: Final = b"wrap/v1"


class StoredKey(Struct, frozen=True):
    """A key as it lies in the database."""

    key_id: UUID
    name: KeyName
    generation: int
    epoch: int
    wrapped: bytes


class Standing(Struct, frozen=True):
    """How a name stands: its usable key if it has one, else the generation that a new one would be.

    `is_gone`: it had a key, and has no usable one.
    """

    name: KeyName
    key: StoredKey | None
    next_generation: int
    is_fenced: bool
    is_gone: bool


def standing(name: KeyName, generation: int, active: StoredKey | None, is_fenced: bool, fence: int) -> Standing:
    """From the name's highest generation (0 if there never was a key), that key if it is active, and the fences.

    A fence on the subject is final. A fence on the class covers generations up to `fence`; what comes in anew begins
    the next one (docs/protocols.md#keys). A fenced or destroyed key is never used or made again.
    """
    usable = active if generation > fence else None
    return Standing(name, usable, max(generation, fence) + 1, is_fenced, generation > 0 and usable is None)


def bound(key_id: UUID, name: KeyName, generation: int, epoch: int) -> bytes:
    """What a wrapped key is bound to, so that rows cannot be swapped: each part after its length in 2 bytes."""
    numbers = (generation.to_bytes(4, "big"), epoch.to_bytes(4, "big"))
    parts = (_WRAP_LABEL, key_id.bytes, name.subject.bytes, name.data_class.encode(), name.anchor.bytes, *numbers)
    return b"".join([len(part).to_bytes(2, "big") + part for part in parts])


def probe_bound(epoch: int) -> bytes:
    """What the probe of an epoch is bound to."""
    return b"probe/v1" + epoch.to_bytes(4, "big")


@dataclass(slots=True)
class Tally:
    """How many keys each service got, by class and day, and the quota by minute.

    In memory, since a shared row would make all leases of a service wait for each other: `drain` hands the counts to
    whoever stores them (at most a second of them is lost in a crash), and the quota holds per process.
    """

    _minute: int = 0
    _in_minute: Counter[tuple[str, str, Action]] = field(default_factory=Counter)
    _counts: Counter[tuple[str, str, date, Action]] = field(default_factory=Counter)

    def take(
        self, service: str, action: Action, data_classes: Iterable[str], quotas: Mapping[str, int], now: datetime
    ) -> None:
        """Count one key for each of `data_classes`. Raises TooMany, and counts nothing, where that exceeds a quota."""
        wanted = Counter(data_classes)
        minute = int(now.timestamp()) // 60
        if minute != self._minute:
            self._minute = minute
            self._in_minute.clear()
        if any(self._in_minute[service, name, action] + count > quotas[name] for name, count in wanted.items()):
            raise TooMany(
                60 - now.second, "This service has had its quota of keys for this minute. Wait and try again."
            )
        for name, count in wanted.items():
            self._in_minute[service, name, action] += count
            self._counts[service, name, now.date(), action] += count

    def drain(self) -> Counter[tuple[str, str, date, Action]]:
        """The counts since the last time."""
        counts, self._counts = self._counts, Counter()
        return counts

    def give_back(self, counts: Counter[tuple[str, str, date, Action]]) -> None:
        """Take back counts that could not be stored."""
        self._counts.update(counts)
