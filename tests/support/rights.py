"""The privacy service on real Postgres, with participants and a vault that are fakes of this process. Fixture: `shop`.

The fakes answer what the outbox says was asked; the answers go through the service's own handlers.
"""

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from deploy.local import keys
from deploy.local.interfaces import PostgresServer
from event_contracts import Event
from event_contracts.privacy import (
    DescribeHoldings,
    EraseHoldings,
    ExportHoldings,
    HeldItem,
    HoldingsDescribed,
    HoldingsErased,
    HoldingsExported,
    HoldingsRectified,
    RecipientsTold,
    RectifyDelivery,
    RectifyHoldings,
    Refusal,
    TellRecipients,
    ToldRecipient,
)
from event_contracts.topics import system_replies
from event_contracts.vault_api import Holder, KeyOutcome
from privacy_service import vault_revocations
from privacy_service.app import SERVICE
from privacy_service.participants import participants
from privacy_service.replies import apply_replies
from privacy_service.sagas import jobs
from privacy_service.settings import PrivacySettings
from privacy_service.vault_revocations import Revocation, Revoked
from servicekit.core.clock import Clock, FakeClock
from servicekit.core.errors import KitError
from servicekit.core.faults import InjectedFault
from servicekit.core.health import Health
from servicekit.core.policy import Policy
from servicekit.db.outbox import Outbox
from servicekit.db.postgres import Tx
from servicekit.http.app import make_app
from servicekit.kafka.cloudevents import Received
from servicekit.kit import Kit
from tests.support.asgi import open_client
from tests.support.kits import open_test_kit

ROOT = Path(__file__).resolve().parents[2]
POLICY = Policy.load([ROOT / "shared" / "policy" / "policy.yaml"])
SYSTEMS = participants(POLICY)
COMMANDS: dict[str, type[Event]] = {command.type_name(): command for command in SERVICE.emits}


@dataclass
class FakeRevocations:
    """Keys by (subject, class, anchor), what was asked for, and the list. `held_up` are holders that are not done."""

    keys: dict[tuple[UUID, str, UUID], UUID] = field(default_factory=dict)
    states: dict[UUID, str] = field(default_factory=dict)
    scopes: dict[UUID, list[Revocation]] = field(default_factory=dict)
    calls: list[tuple[str, int]] = field(default_factory=list)
    held_up: list[str] = field(default_factory=list)
    number: int = 0

    async def revoke(self, kit: Kit, wanted: Sequence[Revocation]) -> list[Revoked]:
        self.calls.append(("revoke", len(wanted)))
        answers = []
        for each in wanted:
            before = dict(self.states)
            known = each in self.scopes.setdefault(each.request_id, [])
            for (subject, data_class, anchor), key in self.keys.items():
                if (
                    subject == each.subject
                    and self.states.get(key) != "destroyed"
                    and _covers(each, data_class, anchor)
                ):
                    self.states[key] = "held" if (data_class, anchor) in each.held else "fenced"
            if before != self.states or not known:
                self.number += 1
                self.scopes[each.request_id].append(each)
            answers.append(Revoked(each.request_id, self.number, self._outcomes(each), None, each.subject))
        return answers

    async def destroy(self, kit: Kit, request_ids: Sequence[UUID]) -> list[Revoked]:
        self.calls.append(("destroy", len(request_ids)))
        answers = []
        for request_id in request_ids:
            scopes = self.scopes[request_id]
            for key in (key for scope in scopes for key in self._outcomes(scope)):
                if key.state == "fenced":
                    self.states[key.key_id] = "destroyed"
            self.number += 1
            found = {key.key_id: key for scope in scopes for key in self._outcomes(scope) if key.state == "destroyed"}
            answers.append(Revoked(request_id, self.number, tuple(found.values()), date(2027, 1, 1), scopes[0].subject))
        return answers

    async def drained(self, kit: Kit, number: int) -> list[Holder]:
        self.calls.append(("drained", number))
        return [Holder(system, uuid4(), 0, "2027-01-01T00:00:00Z") for system in self.held_up]

    def _outcomes(self, scope: Revocation) -> tuple[KeyOutcome, ...]:
        return tuple(
            KeyOutcome(key, data_class, anchor, self.states[key], "ab" * 32)  # type: ignore[arg-type]
            for (subject, data_class, anchor), key in self.keys.items()
            if subject == scope.subject and key in self.states and _covers(scope, data_class, anchor)
        )


def _covers(scope: Revocation, data_class: str, anchor: UUID) -> bool:
    in_class = scope.data_classes is None or data_class in scope.data_classes
    return in_class and (scope.anchors is None or anchor in scope.anchors)


@dataclass
class Shop:
    """The service, and everybody it talks to."""

    kit: Kit
    clock: FakeClock
    vault: FakeRevocations
    keys: Path
    silent: set[str] = field(default_factory=set)
    left: dict[str, int] = field(default_factory=dict)
    recipients: tuple[ToldRecipient, ...] = ()
    refuses: Refusal | None = None
    misfits: tuple[str, ...] = ()
    _held: dict[tuple[UUID, str], list[HeldItem]] = field(default_factory=dict)
    sent: list[Event] = field(default_factory=list)

    def holds(
        self,
        subject: UUID,
        system: str,
        data_class: str,
        anchor: UUID,
        *,
        is_open: bool = False,
        closed_at: datetime | None = None,
    ) -> UUID:
        """The system says from then on that it holds this, and there is a key for it. Returns the key's id."""
        items = self._held.setdefault((subject, system), [])
        items[:] = [item for item in items if (item.data_class, item.anchor) != (data_class, anchor)]
        items.append(HeldItem(data_class=data_class, anchor=anchor, row_count=1, is_open=is_open, closed_at=closed_at))
        return self.vault.keys.setdefault((subject, data_class, anchor), uuid4())

    async def knows(self, *subjects: UUID) -> None:
        """The inventory has read an event that names these people."""
        for subject in subjects:
            await self.sql(
                """INSERT INTO inventory (subject_id, system, data_class, anchor, first_seen, last_seen)
                VALUES ($1, 'account', 'contact', $1, now(), now()) ON CONFLICT DO NOTHING""",
                subject,
            )

    def drops(self, subject: UUID, system: str, data_class: str, anchor: UUID) -> None:
        """The system holds this no more."""
        items = self._held[subject, system]
        items[:] = [item for item in items if (item.data_class, item.anchor) != (data_class, anchor)]

    async def revoked(self, *key_ids: UUID) -> None:
        """This database has applied their revocation, as a follower of the list does."""
        await self.kit.run_tx("test", lambda tx: _revoke(tx, key_ids))

    async def asked(self) -> list[Event]:
        """The commands that were committed since the last time."""
        rows = await self.kit.db.fetch(
            "SELECT number, headers, body FROM kit.outbox WHERE published_at IS NULL ORDER BY number"
        )
        await self.sql("UPDATE kit.outbox SET published_at = now() WHERE published_at IS NULL")
        found = [
            contract.model_validate_json(row["body"])
            for row in rows
            for name, contract in COMMANDS.items()
            if json.loads(row["headers"])["ce_type"] == name
        ]
        self.sent += found
        return found

    def answers(self, command: Event) -> list[Event]:
        """What the participants that are not silent answer."""
        return [answer for system in SYSTEMS if system not in self.silent for answer in self._answer(command, system)]

    def _answer(self, command: Event, system: str) -> list[Event]:
        match command:
            case DescribeHoldings(request_id=request, subject_id=subject):
                items = [i for i in self._held.get((subject, system), []) if not self._is_gone(subject, i)]
                return [
                    HoldingsDescribed(
                        request_id=request, subject_id=subject, system=system, part=1, parts=1, items=tuple(items)
                    )
                ]
            case EraseHoldings(request_id=request, subject_id=subject, number=number):
                return [
                    HoldingsErased(
                        request_id=request,
                        subject_id=subject,
                        system=system,
                        number=number,
                        erased=len(self._held.get((subject, system), [])),
                        left=self.left.get(system, 0),
                    )
                ]
            case TellRecipients(request_id=request, subject_id=subject) if system == "logistics-gateway":
                return [
                    RecipientsTold(request_id=request, subject_id=subject, system=system, recipients=self.recipients)
                ]
            case RectifyHoldings(request_id=request, subject_id=subject) if system == "account":
                return [_rectified(request, subject, system, self.refuses)]
            case RectifyDelivery(request_id=request, subject_id=subject) if system == "order":
                return [_rectified(request, subject, system, self.refuses, self.misfits)]
            case ExportHoldings(request_id=request, subject_id=subject):
                return [
                    HoldingsExported(
                        request_id=request,
                        subject_id=subject,
                        system=system,
                        attempt=1,
                        part=1,
                        is_last=True,
                        row_count=0,
                        content=None,
                    )
                ]
        return []

    def _is_gone(self, subject: UUID, item: HeldItem) -> bool:
        key = self.vault.keys[subject, item.data_class, item.anchor]
        return self.vault.states.get(key) in ("fenced", "destroyed")

    async def hear(self, *replies: Event) -> None:
        """One batch of the reader of replies."""
        events = [
            Received(reply, uuid4(), self.clock.now(), system, system_replies(system), 0, 0)
            for reply in replies
            for system in [str(getattr(reply, "system"))]  # noqa: B009 - replies have one, events in general none
        ]

        async def work(tx: Tx) -> None:
            await apply_replies(self.kit, tx, events, {})

        if replies:
            await self.kit.run_tx("answers", work)

    async def work(self) -> None:
        await jobs.carry_on(self.kit)

    async def settle(self) -> None:
        """Until nothing more happens by itself."""
        while True:
            await self.work()
            commands = await self.asked()
            if not commands:
                return
            await self.hear(*(answer for command in commands for answer in self.answers(command)))

    async def settle_with_faults(self) -> None:
        """The same while things fail: a batch is read again, and a lease runs out."""
        for _ in range(100):
            self.clock.tick(10)
            try:
                await self.work()
                commands = await self.asked()
            except (InjectedFault, KitError):
                continue
            if not commands and not await self._waiting():
                return
            replies = [answer for command in commands for answer in self.answers(command)]
            await self._hear_in_the_end(replies)
        raise AssertionError("it does not settle")

    async def _hear_in_the_end(self, replies: Sequence[Event]) -> None:
        for _ in range(5):
            try:
                await self.hear(*replies)
            except InjectedFault:
                continue
            return
        raise AssertionError("the same fault each time")

    async def _waiting(self) -> int:
        """Subjects whose time has not come."""
        count: int = await self.kit.db.fetchval(
            "SELECT count(*) FROM rights_subjects WHERE next_try_at IS NOT NULL AND step <> 'held'"
        )
        return count

    async def tick(self, **delta: float) -> None:
        self.clock.tick(timedelta(**delta).total_seconds())

    async def sql(self, statement: str, *args: Any) -> str:
        async def work(tx: Tx) -> str:
            return await tx.execute(statement, *args)

        return await self.kit.run_tx("test", work)

    def client(self) -> httpx.AsyncClient:
        """Tokens live by the machine's clock, requests by the shop's."""
        health = Health("privacy", "api", "0", self.kit.clock)
        assert SERVICE.router is not None
        return open_client(
            make_app(self.kit.settings, Clock(), health, [SERVICE.router(self.kit)], limits=self.kit.limits)
        )

    def staff(self, role: Any = "support", staff_id: UUID | None = None) -> dict[str, str]:
        return {"Authorization": f"Bearer {keys.staff_token(self.keys, role, staff_id)}"}

    def customer(self, subject: UUID) -> dict[str, str]:
        return {"Authorization": f"Bearer {keys.customer_token(self.keys, subject)}"}


@pytest.fixture
async def shop(postgres_server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shop]:
    """A database of its own; approved erasures do not wait."""
    keys.write_keys(tmp_path / "keys", ["privacy"], [])
    settings = PrivacySettings(
        customer_public_key_file=tmp_path / "keys" / "customer.pub.pem",
        staff_public_key_file=tmp_path / "keys" / "staff.pub.pem",
        id_key_file=keys.id_key_file(tmp_path / "keys", "privacy"),
        erasure_wait_seconds=0,
        command_retry_seconds=1,
        hold_check_seconds=3600,
    )
    vault = FakeRevocations()
    for name in ("revoke", "destroy", "drained"):
        monkeypatch.setattr(vault_revocations, name, getattr(vault, name))
    dsns = postgres_server.create_system_database(f"rights{uuid4().hex[:8]}")
    async with open_test_kit("privacy", dsns, settings, SERVICE.emits, [SERVICE.migrations]) as kit:
        clock = FakeClock(datetime.fromisoformat("2026-11-24T00:00:00+00:00"))
        outbox = Outbox("privacy", clock, frozenset(event.topic_of("privacy") for event in SERVICE.emits))
        kit = replace(kit, policy=POLICY, clock=clock, outbox=outbox)
        yield Shop(kit, clock, vault, tmp_path / "keys")


async def _revoke(tx: Tx, key_ids: Sequence[UUID]) -> None:
    await tx.execute(
        "INSERT INTO kit.revoked_keys SELECT u, gen_random_uuid(), 1 FROM unnest($1::uuid[]) AS u", list(key_ids)
    )
    await tx.execute("DELETE FROM key_looks WHERE key_id = ANY($1::uuid[])", list(key_ids))


def _rectified(
    request: UUID, subject: UUID, system: str, refused: Refusal | None, misfits: tuple[str, ...] = ()
) -> Event:
    number = 0 if refused else 2
    return HoldingsRectified(
        request_id=request, subject_id=subject, system=system, number=number, refused=refused, misfits=misfits
    )


async def open_erasure(shop: Shop, client: httpx.AsyncClient, *subjects: UUID, **more: Any) -> str:
    await shop.knows(*subjects)
    body = {"kind": "erasure", "subject_ids": [str(s) for s in subjects], "identity_check": "callback", **more}
    answer = await client.post("/v1/requests", json=body, headers=shop.staff("support"))
    assert answer.status_code == 201, answer.text
    return str(answer.json()["request_id"])


async def approve(shop: Shop, client: httpx.AsyncClient, request_id: str) -> httpx.Response:
    return await client.post(f"/v1/requests/{request_id}/approve", headers=shop.staff("privacy_officer"))


async def show(shop: Shop, client: httpx.AsyncClient, request_id: str) -> dict[str, Any]:
    answer = await client.get(f"/v1/requests/{request_id}", headers=shop.staff("support"))
    assert answer.status_code == 200, answer.text
    state: dict[str, Any] = answer.json()
    return state


async def certificates(shop: Shop, request_id: str) -> int:
    count: int = await shop.kit.db.fetchval("SELECT count(*) FROM certificates WHERE request_id = $1", UUID(request_id))
    return count
