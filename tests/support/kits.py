"""A kit of one service on real Kafka and Postgres, with a vault that is a fake of this process."""

import secrets
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

from event_contracts import Erased, Event
from servicekit.core.clock import Clock
from servicekit.core.errors import Gone
from servicekit.core.settings import Settings
from servicekit.db.migrate import KIT_MIGRATIONS, migrate
from servicekit.db.outbox import Outbox
from servicekit.db.postgres import Database
from servicekit.kit import Kit
from servicekit.vault.client import IndexEntry, LeaseName, New
from servicekit.vault.leases import KeyName
from servicekit.vault.token import SealingKey


@dataclass
class FakeVault:
    """Keys of this process; `erased` ids read as erased. `calls` counts requests."""

    keys: dict[KeyName, SealingKey] = field(default_factory=dict)
    erased: set[UUID] = field(default_factory=set)
    calls: int = 0

    async def ensure(
        self, wanted: Sequence[KeyName], index: Sequence[IndexEntry] = (), new: New | None = None
    ) -> list[SealingKey]:
        self.calls += 1
        if new is not None and any(name in self.keys and self.keys[name].key_id in self.erased for name in wanted):
            raise Gone
        return [self.keys.setdefault(name, SealingKey.derive(uuid4(), secrets.token_bytes(32))) for name in wanted]

    async def lease(self, purpose: str, wanted: Sequence[LeaseName]) -> list[SealingKey | Erased]:
        self.calls += 1
        return [Erased(w.key_id) if w.key_id in self.erased else self.keys[w.name] for w in wanted]

    def is_live(self, purpose: str, key_ids: Iterable[UUID]) -> bool:
        return self.erased.isdisjoint(key_ids)


class OpenPolicy:
    """Grants everything."""

    recipients: Mapping[str, Any] = {}
    classes: Mapping[str, Any] = {"quarantine": SimpleNamespace(retention=SimpleNamespace(days=14))}

    def may_open(self, service: str, data_class: str, purpose: str) -> bool:
        return True


@asynccontextmanager
async def open_test_kit(
    name: str,
    dsns: tuple[str, str],
    settings: Settings,
    emits: Sequence[type[Event]] = (),
    migrations: Sequence[Path] = (),
) -> AsyncIterator[Kit]:
    """Migrates the database and opens a kit on it; `dsns` are those of the application and the owner role."""
    await migrate(dsns[1], [KIT_MIGRATIONS, *migrations])
    clock = Clock()
    db = await Database.connect(dsns[0], name)
    vault: Any = FakeVault()
    policy: Any = OpenPolicy()
    outbox = Outbox(name, clock, frozenset(event.topic_of(name) for event in emits))
    try:
        yield Kit(name, settings, clock, policy, vault, db, outbox)
    finally:
        await db.close()
