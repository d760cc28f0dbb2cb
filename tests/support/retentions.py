"""Retention runs of the fixture `shop`, with systems that find what is past its time and a vault that lists its keys."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from event_contracts import Event
from event_contracts.privacy import ExpiredFound, ExpiredItem, FindExpired, KeyReleased
from event_contracts.vault_api import AgedKey
from privacy_service.retention import vault_keys
from privacy_service.retention.worker import carry_retention
from servicekit.db.postgres import Tx
from servicekit.kit import Kit
from tests.support.rights import SYSTEMS, Shop


@dataclass
class Retention:
    """What is past its time, and what the vault has. `page` is how many items a system answers at most."""

    shop: Shop
    page: int = 1000
    expired: dict[tuple[str, str, bool], list[ExpiredItem]] = field(default_factory=dict)
    keys: list[AgedKey] = field(default_factory=list)
    looked_at: list[UUID] = field(default_factory=list)

    def expire(
        self, system: str, data_class: str, subject: UUID, closed_at: datetime, *, unused: bool = False
    ) -> tuple[UUID, UUID]:
        """The system holds an anchor of that class which closed then. Returns (anchor, key)."""
        anchor = uuid4()
        key = self.shop.holds(subject, system, data_class, anchor, closed_at=closed_at)
        item = ExpiredItem(subject_id=subject, data_class=data_class, anchor=anchor, closed_at=closed_at)
        self.expired.setdefault((system, data_class, unused), []).append(item)
        return anchor, key

    def has_key(self, subject: UUID, data_class: str, created_at: datetime, anchor: UUID | None = None) -> AgedKey:
        """The vault has a key of that age."""
        anchor = anchor or uuid4()
        key = self.shop.vault.keys.setdefault((subject, data_class, anchor), uuid4())
        aged = AgedKey(key, subject, data_class, anchor, created_at)
        self.keys.append(aged)
        return aged

    async def release(self, subject: UUID, system: str, data_class: str) -> KeyReleased:
        """There is a key of an anchor that an event of the system has named, and that the system has deleted."""
        anchor = uuid4()
        key_id = self.shop.vault.keys.setdefault((subject, data_class, anchor), uuid4())
        event = KeyReleased(subject_id=subject, system=system, data_class=data_class, anchor=anchor, key_id=key_id)
        await self.names_key(event)
        return event

    async def names_key(self, released: KeyReleased) -> None:
        """An event of this system has named what this is a key of."""
        await self.shop.sql(
            "INSERT INTO inventory VALUES ($1, $2, $3, $4, $5, now(), now())",
            released.subject_id,
            released.system,
            released.data_class,
            released.anchor,
            released.key_id,
        )

    def answers(self, command: Event) -> list[Event]:
        if not isinstance(command, FindExpired):
            return self.shop.answers(command)
        return [self.answer(command, system) for system in SYSTEMS if system not in self.shop.silent]

    def answer(self, asked: FindExpired, system: str) -> ExpiredFound:
        """As a participant answers: what is erased is there no more, the oldest first, behind the place asked for."""
        place = (asked.after_closed_at, asked.after_anchor)
        items = [
            item
            for item in self.expired.get((system, asked.data_class, asked.unused), [])
            if item.closed_at < asked.closed_before
            and not self.shop._is_gone(item.subject_id, item)  # type: ignore[arg-type]
            and (asked.after_anchor is None or (item.closed_at, item.anchor) > place)
        ]
        items.sort(key=lambda item: (item.closed_at, item.anchor))
        return ExpiredFound(
            request_id=asked.request_id,
            system=system,
            data_class=asked.data_class,
            is_all=len(items) <= self.page,
            items=tuple(items[: self.page]),
        )

    async def read_aged(
        self, kit: Kit, before: datetime, after: tuple[datetime, UUID] | None, data_class: str | None
    ) -> Sequence[AgedKey]:
        """What the vault answers."""
        found = [
            key
            for key in sorted(self.keys, key=lambda key: (key.created_at, key.key_id))
            if key.created_at < before
            and (after is None or (key.created_at, key.key_id) > after)
            and data_class in (None, key.data_class)
            and self.shop.vault.states.get(key.key_id) is None
        ][: vault_keys.KEYS_A_PAGE]
        self.looked_at += [key.key_id for key in found]
        return found

    async def settle(self) -> None:
        """Until nothing more happens by itself."""
        while True:
            await carry_retention(self.shop.kit)
            await self.shop.work()
            commands = await self.shop.asked()
            if not commands:
                return
            await self.shop.hear(*(answer for command in commands for answer in self.answers(command)))

    async def start(self, client: httpx.AsyncClient, *, dry_run: bool = False) -> str:
        body = {"dry_run": dry_run}
        answer = await client.post("/v1/retention/runs", json=body, headers=self.shop.staff("privacy_officer"))
        assert answer.status_code == 202, answer.text
        return str(answer.json()["run_id"])

    async def show(self, client: httpx.AsyncClient, run_id: str) -> dict[str, Any]:
        answer = await client.get(f"/v1/retention/runs/{run_id}", headers=self.shop.staff("privacy_officer"))
        assert answer.status_code == 200, answer.text
        state: dict[str, Any] = answer.json()
        return state

    async def counts(self, client: httpx.AsyncClient, run_id: str) -> dict[str, tuple[int, int, int, int]]:
        """(found, held, under way, opened) by class, of a run that has ended."""
        state = await self.show(client, run_id)
        assert state["ended_at"] is not None
        return {i["data_class"]: (i["found"], i["held"], i["under_way"], i["opened"]) for i in state["items"]}

    async def requests(self) -> int:
        """How many requests the runs have opened."""
        count: int = await self.shop.kit.db.fetchval("SELECT count(*) FROM rights_requests WHERE kind = 'retention'")
        return count

    async def names(self, subject: UUID, anchor: UUID, data_class: str = "identity") -> None:
        """An event has named this anchor."""

        async def work(tx: Tx) -> None:
            await tx.execute(
                "INSERT INTO inventory VALUES ($1, 'account', $2, $3, $4, $5, $5)",
                subject,
                data_class,
                anchor,
                uuid4(),
                self.shop.clock.now(),
            )

        await self.shop.kit.run_tx("test", work)


@pytest.fixture
def retention(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Retention:
    made = Retention(shop)
    monkeypatch.setattr(vault_keys, "read_aged", made.read_aged)
    return made
