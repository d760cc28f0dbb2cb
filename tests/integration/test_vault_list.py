"""The list of revocations and its file, on a real PostgreSQL: numbers, kills, restored databases, files that do not fit."""
# ruff: noqa: F811 - fixtures are imported, and named again as parameters

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest

from deploy.local import keys
from deploy.local.interfaces import PostgresServer
from event_contracts import Erased
from servicekit.core.errors import Fenced
from servicekit.core.revocation_list import FIRST_HASH, first_break, make_entry
from servicekit.db.migrate import migrate
from servicekit.db.postgres import Database
from servicekit.vault.leases import KeyName
from tests.support.infra import postgres_server  # noqa: F401 - a fixture
from tests.support.revoking import Asking, Backup, Case, end_state, filed, listed, numbers
from tests.support.vaults import SYSTEMS, World, leases, names
from vault_service.app import MIGRATIONS
from vault_service.revocations import store
from vault_service.revocations.file import RevocationFile

KILLED = -9


@pytest.fixture
async def world(postgres_server: PostgresServer, tmp_path: Path) -> AsyncIterator[World]:
    """A database, keys and a list of the test's own."""
    keys.write_keys(tmp_path / "keys", SYSTEMS, ["meridian"])
    world = World(tmp_path, *postgres_server.create_system_database(f"v{uuid4().hex[:12]}"))
    await migrate(world.owner_dsn, MIGRATIONS)
    yield world
    await world.close()


def start(world: World, faults: str = "") -> Asking:
    return Asking(world, world.start({"FAULTPOINTS": faults} if faults else None))


async def assert_whole(world: World) -> None:
    """The numbers have no gap, each entry names the one before, and the file says the same as the database."""
    entries = await listed(world)
    assert numbers(entries) == list(range(1, len(entries) + 1))
    assert first_break(entries, 0, FIRST_HASH) is None
    assert filed(world) == entries


# --- numbers ---


async def test_two_vaults_at_once_give_numbers_without_a_gap(world: World) -> None:
    vaults = [start(world), start(world)]
    wanted = names("delivery", 60)
    await vaults[0].ensure(*wanted)
    cases = [Case(name.subject) for name in wanted]
    half = asyncio.Semaphore(8)

    async def revoke(place: int) -> int:
        async with half:
            (answer,) = await vaults[place % 2].revoke(cases[place])
        return int(answer["number"])

    found = await asyncio.gather(*(revoke(place) for place in range(len(cases))))
    assert sorted(found) == list(range(1, 61))
    assert {entry.number: entry.subject for entry in await listed(world)} == dict(
        zip(found, [case.subject for case in cases], strict=True)
    )
    await assert_whole(world)


# --- who publishes ---


async def test_whoever_has_published_a_batch_leaves_the_next_to_anybody(world: World) -> None:
    """So nobody waits for the claim of a process that ended while there was nothing to do."""
    asking, db = start(world), await Database.connect(world.app_dsn, "publishers")
    first, second = uuid4(), uuid4()
    try:
        assert not await store.is_unpublished(db)
        await revoke_another(asking)
        assert await store.is_unpublished(db)
        assert await store.claim_publishing(db, first, 600)
        assert not await store.claim_publishing(db, second, 600)
        await store.mark_published(db, first, [entry.number for entry in await store.read_unpublished(db, 10)])
        assert not await store.is_unpublished(db)
        await revoke_another(asking)
        assert await store.claim_publishing(db, second, 600)
        assert not await store.claim_publishing(db, first, 600)
    finally:
        await db.close()


async def revoke_another(asking: Asking) -> None:
    (name,) = names("delivery")
    await asking.ensure(name)
    await asking.revoke(Case(name.subject))


# --- kills ---


def shape() -> tuple[Case, list[KeyName]]:
    subject = uuid4()
    wanted = [KeyName(subject, data_class, uuid4()) for data_class in ("delivery", "order_record", "payment")]
    return Case(subject, held=(wanted[0],)), wanted


async def erase(asking: Asking, case: Case, step: str = "") -> None:
    """Revoke with a hold, end the hold, destroy; or one of these steps alone."""
    if step in ("", "hold"):
        await asking.revoke(case)
    if step in ("", "end"):
        await asking.revoke(Case(case.subject, case.request_id))
    if step in ("", "destroy"):
        await asking.destroy(case.request_id)


async def exit_code(asking: Asking) -> int | None:
    """Of a vault that is about to end; None if it serves instead."""
    async with asyncio.timeout(120):
        while asking.process.pid is not None and not asking.process.health().get("ok"):
            await asyncio.sleep(0.05)
    return asking.process.exit_code


REVOKING = ("vault.fenced", "vault.waited_out", "vault.list_flushed", "vault.listed")


@pytest.mark.parametrize(
    ("at", "point"),
    [*((at, point) for at in ("hold", "end") for point in REVOKING), ("destroy", "vault.list_flushed")],
)
async def test_a_vault_that_is_killed_and_asked_again_ends_like_one_that_was_not(
    world: World, at: str, point: str
) -> None:
    asking = start(world)
    undisturbed, wanted = shape()
    await asking.ensure(*wanted)
    await erase(asking, undisturbed)
    expected = await end_state(world, undisturbed, wanted)
    actions = [action for action, _, _ in expected["entries"]]
    assert actions == ["hold", "fence", "fence", "destroy"]
    disturbed, wanted = shape()
    await asking.ensure(*wanted)
    for step in ("hold", "end", "destroy"):
        if step == at:
            asking.process.stop()
            dying = start(world, f"{point}=kill@1")
            with pytest.raises(httpx.TransportError):
                await erase(dying, disturbed, step)
            assert await exit_code(dying) == KILLED
            asking = start(world)
        await erase(asking, disturbed, step)
    assert await end_state(world, disturbed, wanted) == expected
    await assert_whole(world)


async def test_what_stands_in_the_file_was_approved_and_is_applied_though_nobody_asks_again(world: World) -> None:
    asking = start(world)
    case, wanted = shape()
    made = await asking.ensure(*wanted)
    before = await asking.head()
    asking.process.stop()
    with pytest.raises(httpx.TransportError):
        await start(world, "vault.list_flushed=kill@1").revoke(case)
    assert await listed(world) == []
    assert [entry.action for entry in filed(world)] == ["hold", "fence"]
    asking = start(world)
    incarnation, head = await asking.head()
    assert head == 2
    assert incarnation != before[0], "whoever holds keys of the vault before must drop them"
    assert await asking.can_open("logistics-gateway", "delivery", wanted[0], made[0])
    assert not await asking.can_open("order", "refund_settlement", wanted[2], made[2])
    await assert_whole(world)


async def test_a_line_that_was_being_written_is_cut_off(world: World) -> None:
    asking = start(world)
    case, wanted = shape()
    await asking.ensure(*wanted)
    await asking.revoke(case)
    asking.process.stop()
    whole = list_file(world).read_bytes()
    list_file(world).write_bytes(whole + whole.splitlines()[-1][:100])
    asking = start(world)
    await asking.destroy(case.request_id)
    assert list_file(world).read_bytes().startswith(whole)
    await assert_whole(world)


# --- restored databases ---


async def test_a_restored_database_is_caught_up_before_anything_is_answered(
    postgres_server: PostgresServer, world: World
) -> None:
    asking = start(world)
    case, wanted = shape()
    made = await asking.ensure(*wanted)
    before = await asking.head()
    asking.process.stop()
    backup = Backup(postgres_server.admin_dsn, world)
    try:
        asking = start(world)
        await erase(asking, case)
        asking.process.stop()
        backup.restore()
    finally:
        backup.drop()
    assert await listed(world) == []
    asking = start(world)
    rows = await world.sql("SELECT state::text, wrapped IS NULL FROM keys WHERE subject_id = $1", case.subject)
    assert [tuple(row) for row in rows] == [("destroyed", True)] * 3
    assert (await asking.head())[1] == 4
    assert (await asking.head())[0] != before[0]
    found = await world.client(asking.process, "order").lease("refund_settlement", leases(wanted[2:], made[2:]))
    assert found == [Erased(made[2].key_id)]
    with pytest.raises(Fenced):
        await asking.ensure(wanted[0])
    await assert_whole(world)


# --- files that do not fit ---


def list_file(world: World) -> Path:
    return world.folder / "revocations.jsonl"


def gone(lines: list[bytes]) -> bytes | None:
    return None


def cut(lines: list[bytes]) -> bytes:
    return b"".join(lines[:-1])


def changed(lines: list[bytes]) -> bytes:
    document = json.loads(lines[0])
    document["entry"]["subject"] = str(UUID(int=1))
    return b"".join([json.dumps(document).encode() + b"\n", *lines[1:]])


def a_line_less(lines: list[bytes]) -> bytes:
    return b"".join([lines[0], *lines[2:]])


async def revoke_three(world: World) -> Asking:
    asking = start(world)
    wanted = names("delivery", 3)
    await asking.ensure(*wanted)
    for name in wanted:
        await asking.revoke(Case(name.subject))
    return asking


@pytest.mark.parametrize("harm", [gone, cut, changed, a_line_less], ids=lambda harm: harm.__name__)
async def test_a_vault_without_the_right_file_does_not_start(
    world: World, harm: Callable[[list[bytes]], bytes | None]
) -> None:
    asking = await revoke_three(world)
    asking.process.stop()
    whole = list_file(world).read_bytes()
    replace(list_file(world), harm(whole.splitlines(keepends=True)))
    asking.process.launch()
    assert await exit_code(asking) == 1, "it serves, or ended with another exit code"
    assert "REVOCATIONS_FILE" in asking.process.log.read_text()
    replace(list_file(world), whole)
    asking.process.start()
    assert (await asking.head())[1] == 3


@pytest.mark.parametrize("harm", [gone, cut, changed, a_line_less], ids=lambda harm: harm.__name__)
async def test_a_vault_that_loses_its_file_serves_nobody_until_it_is_back(
    world: World, harm: Callable[[list[bytes]], bytes | None]
) -> None:
    asking = await revoke_three(world)
    whole = list_file(world).read_bytes()
    replace(list_file(world), harm(whole.splitlines(keepends=True)))
    await until_answered(asking, 503)
    assert asking.process.health()["problems"]["revocation_list"] == "refused"
    replace(list_file(world), whole)
    await until_answered(asking, 200)
    assert (await asking.head())[1] == 3


async def test_a_list_of_the_same_length_that_is_another_one_is_refused(world: World) -> None:
    asking = await revoke_three(world)
    ours = list_file(world).read_bytes()
    replace(list_file(world), another_list(world, 3))
    await until_answered(asking, 503)
    replace(list_file(world), ours)
    await until_answered(asking, 200)


def another_list(world: World, entries: int) -> bytes:
    """A list that this vault might have signed."""
    path = world.folder / "another.jsonl"
    file = RevocationFile.open(path, (world.folder / "keys" / "revocations.pem").read_bytes())
    file.read()
    before = FIRST_HASH
    for number in range(1, entries + 1):
        entry = make_entry(number, "fence", uuid4(), uuid4(), is_final=True, key_ids=[], previous_hash=before)
        file.append([entry])
        before = entry.hash
    return path.read_bytes()


def replace(path: Path, content: bytes | None) -> None:
    """At once, as another file."""
    if content is None:
        path.unlink()
        return
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.rename(path)


async def until_answered(asking: Asking, status: int) -> None:
    """The vault looks at its file every second."""
    async with asyncio.timeout(120):
        while (await asking.get("order", "/v1/revocations?after=0")).status_code != status:
            await asyncio.sleep(0.05)
