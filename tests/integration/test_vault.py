"""The vault as its own process on a real PostgreSQL: keys, their states, the directory, counts and batches."""
# ruff: noqa: F811 - fixtures are imported, and named again as parameters

import asyncio
import os
import time
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
import yaml

from deploy.local.databases import execute
from deploy.local.http import open_http
from deploy.local.services import ServiceProcess
from event_contracts import Erased
from servicekit.core.clock import Clock
from servicekit.core.errors import Fenced, TooMany, Unavailable
from servicekit.core.policy import Policy
from servicekit.db.postgres import Database, Tx
from servicekit.vault.client import IndexEntry, LeaseName
from tests.support.infra import postgres_server  # noqa: F401 - a fixture
from tests.support.vaults import (  # noqa: F401 - fixtures
    POLICY,
    World,
    as_json,
    bearer,
    commitments,
    leases,
    loaded_kek,
    module_world,
    names,
    post,
    run_vault,
    vault,
    world,
)
from vault_service import handlers
from vault_service.handlers import Vault

# --- ensure and lease ---


async def test_a_reader_leases_the_key_that_the_writer_ensured(world: World, vault: ServiceProcess) -> None:
    wanted = names(count=3)
    sealing = await world.client(vault, "order").ensure(wanted)
    opening = await world.client(vault, "logistics-gateway").lease("delivery", leases(wanted, sealing))
    assert commitments(opening) == commitments(sealing)
    assert len({key.key_id for key in sealing}) == 3


@pytest.mark.fault(25, "two vaults make the same key at once")
async def test_two_vaults_that_ensure_the_same_keys_at_once_give_the_same_keys(
    world: World, vault: ServiceProcess
) -> None:
    other = world.start()
    clients = [world.client(process, "order") for process in (vault, other) * 4]
    for _ in range(5):
        wanted = names(count=50)
        # Each in another order, so that the two would deadlock if they did not sort.
        orders = [wanted if number % 2 else wanted[::-1] for number in range(len(clients))]
        answers = await asyncio.gather(*(client.ensure(order) for client, order in zip(clients, orders, strict=True)))
        by_name = [
            dict(zip(order, commitments(found), strict=True)) for order, found in zip(orders, answers, strict=True)
        ]
        assert all(each == by_name[0] for each in by_name)


async def test_the_same_name_twice_in_one_batch_is_one_key(world: World, vault: ServiceProcess) -> None:
    name = names()[0]
    body = {"keys": [{"subject": str(name.subject), "data_class": "delivery", "anchor": str(name.anchor)}] * 2}
    response = await post(world, vault, "order", "/v1/keys/ensure", body)
    first, second = response.json()["keys"]
    assert first == second


@pytest.mark.fault(1, "kill -9 before a key's commit")
async def test_a_kill_before_the_commit_leaves_no_key(world: World, vault: ServiceProcess) -> None:
    failing = world.start({"FAULTPOINTS": "vault.keys_inserted=kill@1"})
    wanted = names()
    with pytest.raises(Unavailable):
        await world.client(failing, "order", patience=0.5).ensure(wanted)
    assert failing.pid is None
    assert await world.sql("SELECT 1 FROM keys WHERE subject_id = $1", wanted[0].subject) == []
    assert len(await world.client(vault, "order").ensure(wanted)) == 1


@pytest.mark.fault(4, "kill -9 between a key's commit and its answer")
async def test_a_kill_after_the_commit_loses_the_answer_and_not_the_key(world: World, vault: ServiceProcess) -> None:
    failing = world.start({"FAULTPOINTS": "vault.ensured=kill@1"})
    wanted = names()
    with pytest.raises(Unavailable):
        await world.client(failing, "order", patience=0.5).ensure(wanted)
    (row,) = await world.sql("SELECT key_id FROM keys WHERE subject_id = $1", wanted[0].subject)
    (key,) = await world.client(vault, "order").ensure(wanted)
    assert key.key_id == row["key_id"]


async def test_ensure_answers_only_after_its_commit(world: World, vault: ServiceProcess) -> None:
    """While a lock holds up the insert of one key, the answer for the whole batch waits, and then names the other's key."""
    wanted = names(count=2)
    (made,) = await world.client(vault, "order").ensure(names())
    connection = await asyncpg.connect(world.owner_dsn)
    holder = connection.transaction()
    await holder.start()
    await connection.execute(
        "INSERT INTO keys (subject_id, data_class, anchor, key_id, generation, epoch, wrapped, maker)"
        " SELECT $1, 'delivery', $2, $3, 1, epoch, wrapped, maker FROM keys WHERE key_id = $4",
        *(wanted[0].subject, wanted[0].anchor, uuid4(), made.key_id),
    )
    ensuring = asyncio.create_task(world.client(vault, "order").ensure(wanted))
    done, _ = await asyncio.wait([ensuring], timeout=0.5)
    assert not done
    assert await world.sql("SELECT 1 FROM keys WHERE subject_id = $1", wanted[1].subject) == []
    await holder.rollback()
    await connection.close()
    assert len(await ensuring) == 2
    assert len(await world.sql("SELECT 1 FROM keys WHERE subject_id = ANY($1)", [n.subject for n in wanted])) == 2


# --- states ---


@pytest.mark.fault(10, "a lease of a destroyed key")
async def test_a_fenced_and_a_destroyed_key_read_as_erased(world: World, vault: ServiceProcess) -> None:
    wanted = names(count=3)
    sealing = await world.client(vault, "order").ensure(wanted)
    await world.sql("UPDATE keys SET state = 'fenced' WHERE key_id = $1", sealing[0].key_id)
    await world.sql("UPDATE keys SET state = 'destroyed', wrapped = NULL WHERE key_id = $1", sealing[1].key_id)
    found = await world.client(vault, "logistics-gateway").lease("delivery", leases(wanted, sealing))
    assert found[:2] == [Erased(sealing[0].key_id), Erased(sealing[1].key_id)]
    assert commitments(found[2:]) == commitments(sealing[2:])


async def test_a_fenced_subject_gets_no_new_key(world: World, vault: ServiceProcess) -> None:
    wanted = names()
    await world.sql("INSERT INTO fences (subject_id) VALUES ($1)", wanted[0].subject)
    with pytest.raises(Fenced):
        await world.client(vault, "order").ensure([*names(), *wanted])
    assert await world.sql("SELECT 1 FROM keys WHERE subject_id = $1", wanted[0].subject) == []


async def test_after_a_class_fence_the_next_generation_begins_and_the_old_key_stays_erased(
    world: World, vault: ServiceProcess
) -> None:
    wanted = names()
    sealing = await world.client(vault, "order").ensure(wanted)
    destroy = "UPDATE keys SET state = 'destroyed', wrapped = NULL WHERE key_id = $1"
    await world.sql(destroy, sealing[0].key_id)
    await world.sql("INSERT INTO fences VALUES ($1, 'delivery', 1)", wanted[0].subject)
    response = await post(world, vault, "order", "/v1/keys/ensure", {"keys": [as_json(wanted[0])]})
    (key,) = response.json()["keys"]
    assert key["generation"] == 2
    assert UUID(key["key_id"]) != sealing[0].key_id
    found = await world.client(vault, "logistics-gateway").lease("delivery", leases(wanted, sealing))
    assert found == [Erased(sealing[0].key_id)]


@pytest.mark.parametrize(
    "gone", ["state = 'fenced'", "state = 'destroyed', wrapped = NULL"], ids=["fenced", "destroyed"]
)
async def test_a_key_that_is_gone_is_never_given_to_a_writer_again(
    world: World, vault: ServiceProcess, gone: str
) -> None:
    wanted = names()
    (former,) = await world.client(vault, "order").ensure(wanted)
    await world.sql(f"UPDATE keys SET {gone} WHERE key_id = $1", former.key_id)
    answer = await post(world, vault, "order", "/v1/keys/ensure", {"keys": [as_json(wanted[0])]})
    assert answer.status_code == 200
    (key,) = answer.json()["keys"]
    assert (key["generation"], UUID(key["key_id"]) == former.key_id) == (2, False)


async def test_the_database_refuses_two_active_keys_of_one_name(world: World, vault: ServiceProcess) -> None:
    wanted = names()
    await world.client(vault, "order").ensure(wanted)
    second = (
        "INSERT INTO keys (subject_id, data_class, anchor, key_id, generation, epoch, wrapped, maker)"
        " SELECT subject_id, data_class, anchor, gen_random_uuid(), 2, epoch, wrapped, maker FROM keys WHERE subject_id = $1"
    )
    with pytest.raises(asyncpg.UniqueViolationError):
        await world.sql(second, wanted[0].subject)


# --- directory ---


async def test_a_digest_finds_whose_key_it_stands_beside_and_dies_with_it(world: World, vault: ServiceProcess) -> None:
    wanted, digest = names("contact", 2), os.urandom(32)
    account, privacy = world.client(vault, "account"), world.client(vault, "privacy")
    entries = [IndexEntry("email", digest, 1), IndexEntry("phone", os.urandom(32), 1)]
    _, key = await account.ensure(wanted, entries)
    assert await privacy.find("email", digest) == wanted[1:]
    assert await privacy.find("phone", digest) == []
    await world.sql("UPDATE keys SET state = 'fenced' WHERE key_id = $1", key.key_id)
    assert await privacy.find("email", digest) == []


async def test_a_corrected_term_replaces_the_former_one(world: World, vault: ServiceProcess) -> None:
    wanted, former, corrected = names("contact"), os.urandom(32), os.urandom(32)
    account, privacy = world.client(vault, "account"), world.client(vault, "privacy")
    await account.ensure(wanted, [IndexEntry("email", former, 0)])
    await account.ensure(wanted, [IndexEntry("email", corrected, 0)])
    assert await privacy.find("email", former) == []
    assert await privacy.find("email", corrected) == wanted


async def test_two_services_compute_the_same_digest_key_and_other_kinds_differ(
    world: World, vault: ServiceProcess
) -> None:
    account, privacy = world.client(vault, "account"), world.client(vault, "privacy")
    assert await account.index_key("email") == await privacy.index_key("email")
    assert await account.index_key("email") != await account.index_key("phone")


async def test_the_head_of_the_revocation_list_is_answered_after_the_wait(world: World, vault: ServiceProcess) -> None:
    async with open_http(vault.url, headers=bearer(world.identity("order").token())) as http:
        answer = (await http.get("/v1/revocations?after=0&wait=0.3")).json()
    assert (answer["head"], answer["entries"]) == (0, [])


# --- counts and quotas ---


async def test_keys_are_counted_per_service_class_and_day(world: World, vault: ServiceProcess) -> None:
    async def counted() -> tuple[int, int]:
        rows = await world.sql(
            "SELECT ensured, leased FROM lease_counts WHERE system = 'order' AND data_class = 'payment'"
        )
        return (rows[0]["ensured"], rows[0]["leased"]) if rows else (0, 0)

    await asyncio.sleep(1.5)
    before = await counted()
    wanted = names("payment", 7)
    client = world.client(vault, "order")
    sealing = await client.ensure(wanted)
    await client.lease("refund_settlement", leases(wanted, sealing)[:5])
    await client.lease("refund_settlement", leases(wanted, sealing)[:5])  # from the cache: the vault is not asked
    give_up = time.monotonic() + 10
    while await counted() != (before[0] + 7, before[1] + 5):
        assert time.monotonic() < give_up, await counted()
        await asyncio.sleep(0.2)


async def test_counts_are_stored_before_a_clean_stop(world: World, vault: ServiceProcess) -> None:
    process = world.start()
    await world.client(process, "account").ensure(names("credentials", 3))
    process.stop()
    rows = await world.sql("SELECT ensured FROM lease_counts WHERE system = 'account' AND data_class = 'credentials'")
    assert rows[0]["ensured"] >= 3
    assert process.exit_code == 0


async def test_a_service_that_passes_its_quota_is_refused(world: World, vault: ServiceProcess, tmp_path: Path) -> None:
    document = yaml.safe_load(POLICY.read_text())
    document["limits"]["leases_per_minute"] = 10
    world.policy = tmp_path / "policy.yaml"
    world.policy.write_text(yaml.safe_dump(document))
    strict = world.start()
    client = world.client(strict, "order")
    if Clock().now().second > 55:  # the count begins anew with each minute
        await asyncio.sleep(6)
    wanted = names("delivery", 10)
    sealing = await client.ensure(wanted)
    with pytest.raises(TooMany) as refused:
        await client.ensure(names())
    assert 0 < refused.value.retry_after <= 60
    # Another class, another service and a lease of their own count apart.
    await client.ensure(names("payment"))
    assert len(await world.client(strict, "logistics-gateway").lease("delivery", leases(wanted, sealing))) == 10


# --- batches (docs/proofs.md#7-batches) ---


async def test_five_hundred_keys_are_one_transaction_of_at_most_four_statements(
    world: World, vault: ServiceProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = await Database.connect(world.app_dsn, "test")
    inside = Vault(database, Policy.load([POLICY]), await loaded_kek(world, database), Clock())
    statements = count_statements(monkeypatch)
    wanted = names(count=500)
    try:
        _, made = await handlers.ensure_keys(inside, "order", wanted, [])
        assert len(statements) <= 4, statements
        statements.clear()
        _, again = await handlers.ensure_keys(inside, "order", wanted, [])
        assert statements == ["read_standings"]
        assert [key.key_id for key, _ in made] == [key.key_id for key, _ in again]
        statements.clear()
        asked = [LeaseName(key.key_id, *key.name) for key, _ in made]
        await handlers.lease_keys(inside, "logistics-gateway", "delivery", asked)
        assert statements == ["read_leases"]
    finally:
        await database.close()


async def test_five_hundred_keys_are_one_commit(world: World, vault: ServiceProcess) -> None:
    database = await Database.connect(world.app_dsn, "test", max_connections=1)
    inside = Vault(database, Policy.load([POLICY]), await loaded_kek(world, database), Clock())
    try:
        wanted = names(count=500)
        await handlers.ensure_keys(inside, "order", wanted, [])
        subjects = [name.subject for name in wanted]
        rows = await database.fetch(
            "SELECT xmin::text, count(*) FROM keys WHERE subject_id = ANY($1) GROUP BY 1", subjects
        )
        assert [row["count"] for row in rows] == [500]
    finally:
        await database.close()


def count_statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    seen: list[str] = []

    def watch(kind: type, method: str) -> None:
        original = getattr(kind, method)

        async def counted(self: Any, sql: str, *args: Any) -> Any:
            seen.append(sql.split()[1])
            return await original(self, sql, *args)

        monkeypatch.setattr(kind, method, counted)

    for method in ("execute", "fetch", "fetchrow", "fetchval"):
        watch(Tx, method)
    for method in ("fetch", "fetchrow", "fetchval"):
        watch(Database, method)
    return seen


# --- roles ---


def test_the_application_role_cannot_change_the_schema(world: World, vault: ServiceProcess) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        execute(world.app_dsn, "ALTER TABLE keys ADD COLUMN extra int")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        execute(world.app_dsn, "DROP TABLE keys")


def test_an_unknown_role_is_refused_with_the_usage(world: World) -> None:
    done = run_vault(world, "everything", {})
    assert done.returncode == 2
    assert "api|jobs|all|migrate" in done.stdout + done.stderr
