"""Keys that this process holds on lease, in memory, bounded in number and in time. No I/O."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Generic, NamedTuple, TypeVar
from uuid import UUID

from msgspec import Struct

from servicekit.core.clock import Clock
from servicekit.core.metrics import VAULT_CACHED_KEYS
from servicekit.vault.token import SealingKey


class KeyName(NamedTuple):
    """What a key belongs to."""

    subject: UUID
    data_class: str
    anchor: UUID


class Lease(Struct, frozen=True, eq=False):
    """A key with its name; `deadline` on the boot clock, in seconds."""

    key: SealingKey
    name: KeyName
    deadline: float


K = TypeVar("K")


class _Recent(OrderedDict[K, Lease], Generic[K]):
    """At most `limit` leases; the one not used for longest goes first."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit

    def use(self, key: K, now: float) -> Lease | None:
        lease = self.get(key)
        if lease is None:
            return None
        if now >= lease.deadline:
            del self[key]
            return None
        self.move_to_end(key)
        return lease

    def keep(self, key: K, lease: Lease) -> None:
        self[key] = lease
        self.move_to_end(key)
        if len(self) > self.limit:
            self.popitem(last=False)

    def drop(self, key_ids: frozenset[UUID]) -> None:
        for key in [key for key, lease in self.items() if lease.key.key_id in key_ids]:
            del self[key]


class Leases:
    """Two caches: keys to seal with, by name; keys to open with, by id and purpose."""

    def __init__(self, clock: Clock, limit: int) -> None:
        self._clock = clock
        self._ensured: _Recent[KeyName] = _Recent(limit)
        self._opened: _Recent[tuple[UUID, str]] = _Recent(limit)
        self._incarnation: str | None = None
        self._applied = 0
        VAULT_CACHED_KEYS.set_function(lambda: len(self._ensured) + len(self._opened))
        self.era = 0  # counts incarnations seen, so that a reply from before the last change is known

    def ensured(self, name: KeyName) -> SealingKey | None:
        lease = self._ensured.use(name, self._clock.boottime())
        return None if lease is None else lease.key

    def opened(self, key_id: UUID, name: KeyName, purpose: str) -> SealingKey | None:
        """Only for the very name and purpose that the vault granted; otherwise the vault must say what is wrong."""
        lease = self._opened.use((key_id, purpose), self._clock.boottime())
        return lease.key if lease is not None and lease.name == name else None

    def put_ensured(self, lease: Lease) -> None:
        self._ensured.keep(lease.name, lease)

    def put_opened(self, lease: Lease, purpose: str) -> None:
        self._opened.keep((lease.key.key_id, purpose), lease)

    def is_live(self, purpose: str, key_ids: Iterable[UUID]) -> bool:
        now = self._clock.boottime()
        leases = (self._opened.get((key_id, purpose)) for key_id in key_ids)
        return all(lease is not None and now < lease.deadline for lease in leases)

    def accepts(self, incarnation: str, revision: int, era: int) -> bool:
        """Whether a reply to a request made in `era` may be used: not behind what was applied, nor of a former vault.

        A new incarnation (the vault was restored, or is another one) drops all leases.
        """
        if incarnation != self._incarnation and era != self.era:
            return False
        self._meet(incarnation)
        return revision >= self._applied

    def applied(self, incarnation: str, revision: int) -> None:
        self._meet(incarnation)
        self._applied = max(self._applied, revision)

    def _meet(self, incarnation: str) -> None:
        if incarnation != self._incarnation:
            self.clear()
            self._incarnation, self._applied, self.era = incarnation, 0, self.era + 1

    def drop(self, key_ids: Iterable[UUID]) -> None:
        gone = frozenset(key_ids)
        if not gone:
            return  # most turns: two full caches would be searched for nothing
        self._ensured.drop(gone)
        self._opened.drop(gone)

    def clear(self) -> None:
        self._ensured.clear()
        self._opened.clear()
