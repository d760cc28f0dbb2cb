"""`privacyctl` as a process of its own, on a running vault, privacy service and third party."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest

from deploy.local import keys
from deploy.local.services import ROOT, SERVICES, ServiceSpec
from deploy.local.stack import Stack
from event_contracts import Event
from event_contracts.account import AccountRegistered, Contact, Identity
from event_contracts.order import OrderLine, OrderPlaced, OrderRecord, Payment
from privacy_service.inventory.http import FINDS_PER_MINUTE
from servicekit.app.service import Service, open_kit
from servicekit.core.settings import Settings
from servicekit.db.migrate import KIT_MIGRATIONS, migrate
from servicekit.db.outbox import Relay
from servicekit.db.postgres import Tx
from servicekit.kafka.client import Producer
from servicekit.kit import Kit
from servicekit.vault.client import IndexEntry
from tests.support.deliveries import make_delivery
from tests.support.infra import new_kafka, new_postgres
from tests.support.inventory_events import START
from tests.support.reviews_spec import REVIEWS

EMAIL, PHONE, NUMBER = "Ann.Canary-7f3a@Example.org", "+4915112345678", "7H3KQ-0ZX9M"
# The canaries as they could show: as typed, folded, or as the index folds them.
TRACES = ("canary-7f3a", "4915112345678", "7h3kq")
# Producers that this test plays itself, with the identities, users and databases of the real ones.
PLAYED = tuple(
    ServiceSpec(name, "tests.support.stub_service", (ROOT,), roles=("api",)) for name in ("account", "order")
)


@dataclass(frozen=True)
class World:
    """A running system, and two people in it: Ann, who sends a gift to Bob and reviews it."""

    stack: Stack
    ann: UUID
    bob: UUID
    order_id: UUID
    review_id: UUID

    def environment(self, **changes: str) -> dict[str, str]:
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        token = keys.staff_token(self.stack.keys, "support")
        return {**inherited, "PRIVACY_URL": self.stack.url("privacy"), "PRIVACY_TOKEN": token, **changes}

    def looks(self, kind: str) -> list[UUID | None]:
        async def read() -> list[UUID | None]:
            connection = await asyncpg.connect(self.stack.owner_dsn("privacy"))
            try:
                query = "SELECT subject_id FROM staff_looks WHERE kind = $1::text::look_kind ORDER BY look_id"
                return [row["subject_id"] for row in await connection.fetch(query, kind)]
            finally:
                await connection.close()

        return asyncio.run(read())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("privacyctl")
    real = tuple(spec for spec in SERVICES if spec.system in ("vault", "privacy"))
    kafka, postgres = new_kafka(folder / "kafka"), new_postgres()
    with Stack((*real, *PLAYED), extra=[REVIEWS], kafka=kafka, postgres=postgres, progress=lambda _: None) as stack:
        ann, bob, order_id = uuid4(), uuid4(), uuid4()
        (folder / "none").mkdir()
        asyncio.run(_publish(stack, folder / "none", ann, bob, order_id))
        world = World(stack, ann, bob, order_id, _post_review(stack, ann))
        _wait_for_inventory(world)
        yield world


async def _publish(stack: Stack, no_migrations: Path, ann: UUID, bob: UUID, order_id: UUID) -> None:
    async with _playing(stack, "account", no_migrations, [AccountRegistered]) as kit:
        index = [IndexEntry("email", await kit.digest("email", EMAIL), 1)]
        index.append(IndexEntry("phone", await kit.digest("phone", PHONE), 1))
        parts = [(Identity(name="Ann Canary-7f3a"), ann, ann), (Contact(email=EMAIL, phone=PHONE), ann, ann)]
        identity, contact = await kit.seal_many(parts, index)
        await _emit(kit, AccountRegistered(subject_id=ann, identity=identity, contact=contact))
    async with _playing(stack, "order", no_migrations, [OrderPlaced]) as kit:
        line = OrderLine(sku="LAMP-1", description="Lamp", quantity=1, unit_price=1299)
        record = OrderRecord(order_number=NUMBER, lines=(line,), currency="EUR", total=1299)
        payment = Payment(token="tok_12345678")
        index = [IndexEntry("order_number", await kit.digest("order_number", NUMBER), 1)]
        sealed = await kit.seal_many(
            [(make_delivery(), bob, order_id), (record, ann, order_id), (payment, ann, order_id)], index
        )
        delivery, order_record, token = sealed
        people = {"order_id": order_id, "buyer_id": ann, "consignee_id": bob, "placed_at": START}
        await _emit(kit, OrderPlaced(**people, delivery=delivery, record=order_record, payment=token))


def _playing(stack: Stack, system: str, no_migrations: Path, emits: Sequence[type[Event]]) -> Any:
    """A kit of the system on the running vault, as its real service would have."""
    settings = Settings(**{name.lower(): value for name, value in stack.env_of(system).items()})  # type: ignore[arg-type]
    return _Playing(stack.owner_dsn(system), Service(system, migrations=no_migrations, emits=emits), settings)


class _Playing:
    def __init__(self, owner_dsn: str, service: Service, settings: Settings) -> None:
        self._owner_dsn, self._service, self._opened = owner_dsn, service, open_kit(service, settings)

    async def __aenter__(self) -> Kit:
        await migrate(self._owner_dsn, [KIT_MIGRATIONS])
        return await self._opened.__aenter__()

    async def __aexit__(self, *error: Any) -> None:
        await self._opened.__aexit__(*error)


async def _emit(kit: Kit, event: Event) -> None:
    async def work(tx: Tx) -> None:
        await tx.emit(event)

    await kit.run_tx("emit", work)
    producer = Producer(kit.settings)
    assert kit.outbox is not None
    await Relay(kit.db, lambda: producer, kit.clock, kit.outbox.wake).publish_batch()
    await producer.stop()


def _post_review(stack: Stack, author: UUID) -> UUID:
    headers = {"Authorization": f"Bearer {keys.customer_token(stack.keys, author)}"}
    body = {"stars": 5, "display_name": "Ann Canary-7f3a"}
    response = httpx.post(f"{stack.url('reviews')}/v1/reviews", json=body, headers=headers, trust_env=False)
    assert response.status_code == 201, response.text
    return UUID(response.json()["review_id"])


def _wait_for_inventory(world: World) -> None:
    """Until what was published is in the inventory; the test's own time-out ends a wait in vain."""
    while len(_rows(world, world.ann)) < 5 or not _rows(world, world.bob):
        time.sleep(0.1)


def _rows(world: World, subject: UUID) -> list[dict[str, Any]]:
    headers = {"Authorization": f"Bearer {keys.staff_token(world.stack.keys, 'privacy_officer')}"}
    url = f"{world.stack.url('privacy')}/v1/subjects/{subject}/inventory"
    items: list[dict[str, Any]] = httpx.get(url, headers=headers, trust_env=False).json()["items"]
    return items


def call(environment: dict[str, str], *arguments: str, typed: str = "") -> "subprocess.CompletedProcess[str]":
    """Runs `privacyctl`; `typed` is piped in. Whatever comes out shows no canary."""
    command = [sys.executable, "-m", "privacyctl", *arguments]
    done = subprocess.run(
        command, env=environment, input=typed, capture_output=True, text=True, timeout=60, check=False
    )
    assert not [trace for trace in TRACES if trace in (done.stdout + done.stderr).casefold()]
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.parametrize(
    ("by", "term"), [("email", EMAIL.upper()), ("phone", "+49 151 12345678"), ("order-number", NUMBER)]
)
def test_a_person_is_found_by_each_kind_of_term(world: World, by: str, term: str) -> None:
    before = len(world.looks(f"find_{by}".replace("-", "_")))
    table = call(world.environment(), "find", "--by", by, typed=f"{term}\n")
    assert table.returncode == 0, table.stderr
    assert str(world.ann) in table.stdout
    found = call(world.environment(), "find", "--by", by, "--json", typed=term)
    held = {"data_class": "contact", "anchor": str(world.ann)}
    if by == "order-number":
        held = {"data_class": "order_record", "anchor": str(world.order_id)}
    assert json.loads(found.stdout) == {"items": [{"subject_id": str(world.ann), "held": [held]}]}
    assert world.looks(f"find_{by}".replace("-", "_"))[before:] == [world.ann, world.ann]


@pytest.mark.parametrize(
    ("written", "country"),
    [("0151 / 1234 5678", "DE"), ("0049 (0)151 12345678", "de"), ("(0)151-12345678", "DE"), ("+49 151 12345678", "NL")],
)
def test_a_person_is_found_by_a_phone_as_people_write_it(world: World, written: str, country: str) -> None:
    found = call(world.environment(), "find", "--by", "phone", "--country", country, "--json", typed=written)
    assert [item["subject_id"] for item in json.loads(found.stdout)["items"]] == [str(world.ann)]


def test_a_phone_of_no_known_country_is_asked_about(world: World) -> None:
    """Not "nobody was found": the number may be that of somebody."""
    before = len(world.looks("find_phone"))
    asked = call(world.environment(), "find", "--by", "phone", typed="0151 12345678\n")
    assert (asked.returncode, asked.stdout) == (2, "")
    assert "--country DE" in asked.stderr
    short = call(world.environment(), "find", "--by", "phone", "--country", "FR", typed="88.60.15.31")
    assert (short.returncode, short.stdout) == (2, "")
    assert "as in FR: 01 23 45 67 89" in short.stderr
    unknown = call(world.environment(), "find", "--by", "phone", "--country", "XX", typed="0151 12345678")
    assert unknown.returncode == 2
    assert "ISO 3166-1" in unknown.stderr
    assert len(world.looks("find_phone")) == before


def test_the_inventory_of_both_people_in_a_gift_order_and_of_a_third_party(world: World) -> None:
    ann = json.loads(call(world.environment(), "inventory", str(world.ann), "--json").stdout)["items"]
    assert {(item["system"], item["data_class"], item["anchor"]) for item in ann} == {
        ("account", "identity", str(world.ann)),
        ("account", "contact", str(world.ann)),
        ("order", "order_record", str(world.order_id)),
        ("order", "payment", str(world.order_id)),
        ("reviews", "identity", str(world.review_id)),
    }
    table = call(world.environment(), "inventory", str(world.bob))
    assert table.returncode == 0, table.stderr
    assert str(world.order_id) in table.stdout
    assert "delivery" in table.stdout
    assert world.looks("inventory")[-2:] == [world.ann, world.bob]


def test_nothing_found_is_exit_code_1(world: World) -> None:
    nobody = call(world.environment(), "find", "--by", "email", typed="nobody@example.org\n")
    assert (nobody.returncode, nobody.stdout) == (1, "")
    assert world.looks("find_email")[-1] is None
    empty = call(world.environment(), "find", "--by", "email", "--json", typed="nobody@example.org\n")
    assert (empty.returncode, json.loads(empty.stdout)) == (1, {"items": []})
    assert call(world.environment(), "inventory", str(uuid4())).returncode == 1


def test_a_wrong_call_is_exit_code_2(world: World) -> None:
    good = world.environment()
    assert call(good, "find", "--by", "email", EMAIL).returncode == 2
    assert call(good, "find", EMAIL, "--by", "email").returncode == 2
    assert call(good, "find", "--by", "name").returncode == 2
    assert call(good, "find", "--by", "email", typed="\n").returncode == 2
    assert call(good, "find", "--by", "email", typed="x" * 400).returncode == 2
    assert call(good, "inventory", "7").returncode == 2
    unset = call({**good, "PRIVACY_URL": ""}, "find", "--by", "email", typed=EMAIL)
    assert (unset.returncode, "PRIVACY_URL" in unset.stderr) == (2, True)
    unset = call({**good, "PRIVACY_TOKEN": ""}, "find", "--by", "email", typed=EMAIL)
    assert (unset.returncode, "PRIVACY_TOKEN" in unset.stderr) == (2, True)


def test_a_refusal_is_exit_code_3(world: World) -> None:
    folder = world.stack.keys
    refused = [
        keys.customer_token(folder, world.ann),
        keys.staff_token(folder, "support", minutes=-5),
        keys.staff_token(folder, "warehouse"),  # type: ignore[arg-type]
    ]
    for token in refused:
        environment = world.environment(PRIVACY_TOKEN=token)
        assert call(environment, "find", "--by", "email", typed=EMAIL).returncode == 3
        assert call(environment, "inventory", str(world.ann)).returncode == 3


def test_too_many_searches_are_exit_code_3_and_say_when_to_try_again(world: World) -> None:
    token = keys.staff_token(world.stack.keys, "support", uuid4())
    with httpx.Client(headers={"Authorization": f"Bearer {token}"}, trust_env=False, timeout=30) as http:
        for _ in range(FINDS_PER_MINUTE + 5):
            http.post(f"{world.stack.url('privacy')}/v1/find", json={"by": "email", "term": "a@b.example"})
    refused = call(world.environment(PRIVACY_TOKEN=token), "find", "--by", "email", typed=EMAIL)
    assert refused.returncode in (0, 3)  # a slow machine refills the bucket meanwhile
    if refused.returncode == 3:
        assert "Try again in" in refused.stderr


def test_the_local_stacks_token_serves_as_well(world: World) -> None:
    environment = world.environment(SUPPORT_TOKEN=keys.staff_token(world.stack.keys, "support"), PRIVACY_TOKEN="")
    assert call(environment, "inventory", str(world.ann)).returncode == 0


def test_at_a_terminal_the_term_is_asked_for_and_not_shown(world: World) -> None:
    program = (
        "import os, pty, sys; "
        "sys.exit(os.waitstatus_to_exitcode(pty.spawn([sys.executable, '-m', 'privacyctl', 'find', '--by', 'email'])))"
    )
    command = [sys.executable, "-c", program]
    environment = world.environment(COLUMNS="200", TERM="dumb")
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        shown = ""
        while "email: " not in shown:
            shown += process.stdout.read(1)
        process.stdin.write(f"{EMAIL}\n")
        process.stdin.flush()
        shown += process.stdout.read()
    assert process.returncode == 0, shown
    assert str(world.ann) in shown
    assert "canary" not in shown.casefold()


def test_help_is_fast_because_it_imports_no_client(world: World) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "privacyctl", "--help"]
    done = subprocess.run(command, env=world.environment(), capture_output=True, text=True, timeout=60, check=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "typer" in imported
    assert not imported & {"httpx", "rich.table", "asyncpg", "fastapi", "servicekit"}


def test_no_log_and_no_row_of_the_system_shows_a_term(world: World) -> None:
    for log in world.stack.logs.iterdir():
        text = log.read_text(errors="replace").casefold()
        assert not [trace for trace in TRACES if trace in text], log.name


def test_a_service_that_is_away_is_exit_code_4(world: World) -> None:
    nowhere = world.environment(PRIVACY_URL="http://127.0.0.1:9")
    assert call(nowhere, "inventory", str(world.ann)).returncode == 4
    other = world.environment(PRIVACY_URL=world.stack.url("privacy") + "/elsewhere")
    assert call(other, "inventory", str(world.ann)).returncode == 4
    vault = world.stack.process("vault")
    vault.stop()
    try:
        away = call(world.environment(), "find", "--by", "email", typed=EMAIL)
        assert (away.returncode, "503" in away.stderr) == (4, True)
    finally:
        vault.start()
