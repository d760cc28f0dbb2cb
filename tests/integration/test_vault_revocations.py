"""Revocations at the vault, on a real PostgreSQL: fence, hold, end of a hold, destroy and the wait for writers."""
# ruff: noqa: F811 - fixtures are imported, and named again as parameters

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import pytest

from deploy.local.interfaces import PostgresServer
from deploy.local.services import ServiceProcess
from servicekit.core.clock import Clock
from servicekit.core.errors import Fenced
from servicekit.core.policy import Policy
from servicekit.db.postgres import Database, Tx
from servicekit.vault.client import IndexEntry
from servicekit.vault.leases import KeyName
from tests.support.infra import postgres_server  # noqa: F401 - a fixture
from tests.support.revoking import Asking, Case, listed, of_one_person, states
from tests.support.vaults import (  # noqa: F401 - fixtures
    POLICY,
    World,
    module_world,
    names,
    run_vault,
    vault,
    world,
)
from vault_service import epochs
from vault_service import store as vault_store
from vault_service.domain import StoredKey
from vault_service.handlers import Vault, ensure_keys
from vault_service.kek_files import FileKek
from vault_service.revocations import handlers as revocations
from vault_service.revocations import store as revocations_store
from vault_service.revocations.domain import Wanted
from vault_service.revocations.file import RevocationFile

# Written by hand, not taken from the policy: what each service may open, and what is left of it while it is held.
OPENS = {
    ("logistics-gateway", "delivery"): {"delivery"},
    ("order", "delivery"): {"own_access", "rights_request"},
    ("logistics-gateway", "registration"): {"delivery"},
    ("order", "registration"): {"own_access", "rights_request"},
    ("order", "order_record"): {
        "own_access",
        "order_processing",
        "after_sales",
        "refund_settlement",
        "rights_request",
        "tax",
    },
    ("order", "payment"): {"order_processing", "refund_settlement", "rights_request"},
}
OPENS_HELD = {
    ("logistics-gateway", "delivery"): {"delivery"},
    ("order", "delivery"): set(),
    ("logistics-gateway", "registration"): {"delivery"},
    ("order", "registration"): set(),
    ("order", "order_record"): {"order_processing", "after_sales", "refund_settlement", "tax"},
    ("order", "payment"): {"order_processing", "refund_settlement"},
}
ORDER_CLASSES = ("delivery", "registration", "order_record", "payment")


@pytest.fixture
def asking(world: World, vault: ServiceProcess) -> Asking:
    return Asking(world, vault)


def place(name: KeyName) -> tuple[str, UUID]:
    return name.data_class, name.anchor


# --- fences ---


async def test_a_repeated_revocation_answers_the_same_and_adds_no_entry(asking: Asking) -> None:
    wanted = of_one_person("delivery", "payment")
    await asking.ensure(*wanted)
    case = Case(wanted[0].subject)
    (first,) = await asking.revoke(case)
    head = await asking.head()
    (again,) = await asking.revoke(case)
    assert again == first
    assert states(first) == {place(name): "fenced" for name in wanted}
    assert first["number"] == head[1]
    assert await asking.head() == head


async def test_one_call_and_its_repetition_at_once_are_one_revocation(asking: Asking) -> None:
    wanted = of_one_person("delivery", "payment")
    await asking.ensure(*wanted)
    case = Case(wanted[0].subject)
    answers = await asyncio.gather(*(asking.revoke(case) for _ in range(6)))
    assert all(each == answers[0] for each in answers)
    assert len(await listed(asking.world, case.request_id)) == 1


async def test_a_person_without_keys_is_fenced_by_an_entry_too(asking: Asking) -> None:
    case = Case(uuid4())
    (answer,) = await asking.revoke(case)
    (entry,) = await listed(asking.world, case.request_id)
    assert (entry.number, entry.action, entry.is_final, entry.key_ids) == (answer["number"], "fence", True, [])
    with pytest.raises(Fenced):
        await asking.ensure(KeyName(case.subject, "delivery", uuid4()))


async def test_an_erased_class_is_not_a_forbidden_class(asking: Asking) -> None:
    """What came before the fence is fenced; what the person enters anew begins the next generation and is read."""
    (name,) = of_one_person("delivery")
    (former,) = await asking.ensure(name)
    case = Case(name.subject, data_classes=("delivery",))
    (answer,) = await asking.revoke(case)
    assert states(answer) == {place(name): "fenced"}
    (generation,) = await asking.generations(name)
    assert generation > 1
    (anew,) = await asking.ensure(name)
    assert anew.key_id != former.key_id
    assert not await asking.can_open("logistics-gateway", "delivery", name, former)
    assert await asking.can_open("logistics-gateway", "delivery", name, anew)


async def test_a_repeated_class_fence_leaves_alone_what_came_after_it_and_a_new_one_does_not(asking: Asking) -> None:
    (name,) = of_one_person("delivery")
    await asking.ensure(name)
    case = Case(name.subject, data_classes=("delivery",))
    first = await asking.revoke(case)
    (anew,) = await asking.ensure(name)
    assert await asking.revoke(case) == first
    assert await asking.can_open("logistics-gateway", "delivery", name, anew)
    (second,) = await asking.revoke(Case(name.subject, data_classes=("delivery",)))
    assert str(anew.key_id) in {key["key_id"] for key in second["keys"] if key["state"] == "fenced"}
    assert not await asking.can_open("logistics-gateway", "delivery", name, anew)


async def test_a_class_fence_covers_the_whole_class_and_no_other(asking: Asking) -> None:
    one, other_order, payment = of_one_person("delivery", "delivery", "payment")
    keys = await asking.ensure(one, other_order, payment)
    (answer,) = await asking.revoke(Case(one.subject, data_classes=("delivery",)))
    assert states(answer) == {place(one): "fenced", place(other_order): "fenced"}
    assert await asking.can_open("order", "refund_settlement", payment, keys[2])
    assert await asking.generations(payment) == [1]


async def test_an_anchor_is_shredded_alone(asking: Asking) -> None:
    one, other_order = of_one_person("delivery", "delivery")
    keys = await asking.ensure(one, other_order)
    (answer,) = await asking.revoke(Case(one.subject, anchors=(one.anchor,)))
    assert states(answer) == {place(one): "fenced"}
    assert not await asking.can_open("logistics-gateway", "delivery", one, keys[0])
    assert await asking.can_open("logistics-gateway", "delivery", other_order, keys[1])
    assert await asking.generations(other_order) == [1]


async def test_after_a_final_fence_nobody_gets_a_key_of_this_person_again(asking: Asking) -> None:
    wanted = of_one_person(*ORDER_CLASSES)
    await asking.ensure(*wanted)
    case = Case(wanted[0].subject, held=(wanted[0],))
    await asking.revoke(case)
    never = [*wanted, *(name._replace(anchor=uuid4()) for name in wanted)]
    for _ in range(2):
        for name in never:
            with pytest.raises(Fenced):
                await asking.ensure(name)
        await asking.destroy(case.request_id)
    made = await asking.world.sql("SELECT 1 FROM keys WHERE subject_id = $1", case.subject)
    assert len(made) == len(wanted)


async def test_an_erased_class_is_fenced_for_good_with_its_person(asking: Asking) -> None:
    (name,) = of_one_person("delivery")
    await asking.revoke(Case(name.subject, data_classes=("delivery",)))
    assert await asking.generations(name)
    await asking.revoke(Case(name.subject))
    with pytest.raises(Fenced):
        await asking.ensure(name)


async def test_several_people_are_fenced_in_one_batch_each_under_an_own_number(asking: Asking) -> None:
    wanted = names("delivery", 5)
    await asking.ensure(*wanted)
    answers = await asking.revoke(*(Case(name.subject) for name in wanted))
    found = [each["number"] for each in answers]
    assert found == list(range(found[0], found[0] + 5))
    assert [states(each) for each in answers] == [{place(name): "fenced"} for name in wanted]


# --- holds ---


@pytest.mark.parametrize("data_class", ORDER_CLASSES)
async def test_a_held_key_is_leased_for_what_it_is_held_for_and_nothing_else(asking: Asking, data_class: str) -> None:
    (name,) = of_one_person(data_class)
    (key,) = await asking.ensure(name)

    async def openable() -> dict[tuple[str, str], set[str]]:
        """By service and class, the purposes for which it gets the key."""
        found: dict[tuple[str, str], set[str]] = {who: set() for who in OPENS if who[1] == data_class}
        for who in found:
            for purpose in OPENS[who]:
                if await asking.can_open(who[0], purpose, name, key):
                    found[who].add(purpose)
        return found

    assert await openable() == {who: OPENS[who] for who in OPENS if who[1] == data_class}
    (answer,) = await asking.revoke(Case(name.subject, held=(name,)))
    assert states(answer) == {place(name): "held"}
    assert await openable() == {who: OPENS_HELD[who] for who in OPENS_HELD if who[1] == data_class}


async def test_a_hold_ends_with_the_call_that_no_longer_names_it(asking: Asking) -> None:
    one, other = of_one_person("delivery", "delivery")
    keys = dict(zip((one, other), await asking.ensure(one, other), strict=True))
    case = Case(one.subject, held=(one, other))
    (first,) = await asking.revoke(case)
    (second,) = await asking.revoke(Case(case.subject, case.request_id, held=(other,)))
    assert states(second) == {place(one): "fenced", place(other): "held"}
    assert second["number"] > first["number"]
    assert not await asking.can_open("logistics-gateway", "delivery", one, keys[one])
    assert await asking.can_open("logistics-gateway", "delivery", other, keys[other])
    actions = [entry.action for entry in await listed(asking.world, case.request_id)]
    assert actions == ["hold", "fence", "fence"]


async def test_a_hold_that_has_ended_never_comes_back(asking: Asking) -> None:
    (name,) = of_one_person("delivery")
    (key,) = await asking.ensure(name)
    case = Case(name.subject)
    (fenced,) = await asking.revoke(case)
    (again,) = await asking.revoke(Case(case.subject, case.request_id, held=(name,)))
    (other,) = await asking.revoke(Case(case.subject, held=(name,)))
    assert again == fenced
    assert states(other) == {place(name): "fenced"}
    assert not await asking.can_open("logistics-gateway", "delivery", name, key)


async def test_a_held_name_of_an_erased_class_begins_the_next_generation(asking: Asking) -> None:
    (name,) = of_one_person("delivery")
    (held,) = await asking.ensure(name)
    await asking.revoke(Case(name.subject, data_classes=("delivery",), held=(name,)))
    (anew,) = await asking.ensure(name)
    assert anew.key_id != held.key_id
    assert await asking.can_open("logistics-gateway", "delivery", name, held)


# --- destroy ---


async def test_what_is_fenced_is_destroyed_and_what_is_held_is_not(asking: Asking) -> None:
    held, fenced = of_one_person("delivery", "payment")
    keys = await asking.ensure(held, fenced)
    case = Case(held.subject, held=(held,))
    (revoked,) = await asking.revoke(case)
    answer = await asking.destroy(case.request_id)
    (destroyed,) = answer["destroyed"]
    assert states(destroyed) == {place(held): "held", place(fenced): "destroyed"}
    assert answer["horizon"]
    rows = await asking.world.sql(
        "SELECT key_id, wrapped IS NULL AS is_empty, fingerprint FROM keys WHERE subject_id = $1", case.subject
    )
    assert {row["key_id"]: row["is_empty"] for row in rows} == {keys[0].key_id: False, keys[1].key_id: True}
    told = {UUID(key["key_id"]): key["fingerprint"] for key in revoked["keys"]}
    assert {row["key_id"]: row["fingerprint"].hex() for row in rows} == told
    assert all(len(fingerprint) == 64 for fingerprint in told.values())
    assert await asking.can_open("logistics-gateway", "delivery", held, keys[0])
    assert not await asking.can_open("order", "refund_settlement", fenced, keys[1])
    head = await asking.head()
    assert await asking.destroy(case.request_id) == answer
    assert await asking.head() == head


async def test_a_hold_that_has_ended_is_destroyed_like_the_rest(asking: Asking) -> None:
    (name,) = of_one_person("delivery")
    await asking.ensure(name)
    case = Case(name.subject, held=(name,))
    await asking.revoke(case)
    assert (await asking.destroy(case.request_id))["destroyed"][0]["keys"][0]["state"] == "held"
    await asking.revoke(Case(case.subject, case.request_id))
    assert (await asking.destroy(case.request_id))["destroyed"][0]["keys"][0]["state"] == "destroyed"
    assert (
        await asking.world.sql("SELECT 1 FROM keys WHERE subject_id = $1 AND wrapped IS NOT NULL", name.subject) == []
    )


async def test_digests_die_with_their_key(asking: Asking) -> None:
    wanted, digest = names("contact"), os.urandom(32)
    await asking.world.client(asking.process, "account").ensure(wanted, [IndexEntry("email", digest, 0)])
    case = Case(wanted[0].subject)
    rows = "SELECT 1 FROM directory WHERE subject_id = $1"
    await asking.revoke(case)
    assert await asking.world.client(asking.process, "privacy").find("email", digest) == []
    assert len(await asking.world.sql(rows, case.subject)) == 1
    await asking.destroy(case.request_id)
    assert await asking.world.sql(rows, case.subject) == []


async def test_destroying_for_a_request_that_nobody_made_destroys_nothing(asking: Asking) -> None:
    (name,) = of_one_person("delivery")
    (key,) = await asking.ensure(name)
    head = await asking.head()
    assert (await asking.destroy(uuid4()))["destroyed"] == []
    assert await asking.head() == head
    assert await asking.can_open("logistics-gateway", "delivery", name, key)


# --- the wait for writers (docs/protocols.md#fence-wait-out-sweep) ---


@pytest.mark.parametrize("data_classes", [None, ("delivery",)], ids=["the_person", "a_class"])
async def test_a_paused_writer_that_missed_the_fence_is_waited_for_and_its_key_fenced(
    asking: Asking, data_classes: tuple[str, ...] | None
) -> None:
    """It read the fences before there was one, stood still in the middle of its transaction, and commits after."""
    world = asking.world
    slow = world.start()
    (name,) = of_one_person("delivery")
    (made,) = await asking.ensure(*names())
    connection = await asyncpg.connect(world.owner_dsn)
    in_the_way = connection.transaction()
    await in_the_way.start()
    await connection.execute(
        "INSERT INTO keys (subject_id, data_class, anchor, key_id, generation, epoch, wrapped, maker)"
        " SELECT $1, 'delivery', $2, $3, 1, epoch, wrapped, maker FROM keys WHERE key_id = $4",
        name.subject,
        name.anchor,
        uuid4(),
        made.key_id,
    )
    writing = asyncio.create_task(world.client(slow, "order", patience=20).ensure([name]))
    await until(world, "SELECT 1 FROM pg_locks WHERE NOT granted")
    slow.pause()
    await in_the_way.rollback()
    await connection.close()
    case = Case(name.subject, data_classes=data_classes)
    revoking = asyncio.create_task(asking.revoke(case))
    await until(world, "SELECT 1 FROM fences WHERE subject_id = $1", name.subject)
    done, _ = await asyncio.wait([revoking], timeout=1)
    answered_early = bool(done)
    slow.resume()
    assert not answered_early, "the vault answered while a writer that had missed the fence was still under way"
    (key,) = await writing
    (answer,) = await revoking
    assert [(UUID(each["key_id"]), each["state"]) for each in answer["keys"]] == [(key.key_id, "fenced")]
    assert not await asking.can_open("logistics-gateway", "delivery", name, key)


async def test_a_writer_that_draws_its_id_while_the_fence_commits_is_waited_for_and_its_key_fenced(
    world: World, postgres_server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a quiet server: no id that is later than the writer's has ended when the wait begins."""
    quiet = World(world.folder, *postgres_server.create_system_database(f"quiet{uuid4().hex[:8]}"))
    run_vault(quiet, "migrate", quiet.environment())
    database = await Database.connect(quiet.app_dsn, "vault-test")
    file = RevocationFile.open(tmp_path / "list.jsonl", (world.folder / "keys" / "revocations.pem").read_bytes())
    kek = await epochs.prepare(database, FileKek(world.folder / "keys" / "kek"), Clock())
    inside = Vault(database, Policy.load([POLICY]), kek, Clock(), file=file)
    fencing, has_written, go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()
    write_fences, insert_keys = revocations_store.write_fences, vault_store.insert_keys

    async def fences_slowly(tx: Tx, wanted: Sequence[Wanted]) -> None:
        await write_fences(tx, wanted)
        fencing.set()
        await has_written.wait()

    async def stands_still(tx: Tx, keys: Sequence[StoredKey], maker: str) -> int:
        made = await insert_keys(tx, keys, maker)
        has_written.set()
        await go_on.wait()
        return made

    monkeypatch.setattr(revocations_store, "write_fences", fences_slowly)
    monkeypatch.setattr(vault_store, "insert_keys", stands_still)
    (name,) = of_one_person("delivery")
    wanted = Wanted(revocations.Case(uuid4(), name.subject), None, None, frozenset())
    revoking = asyncio.create_task(revocations.revoke(inside, "privacy", [wanted]))
    await fencing.wait()
    writing = asyncio.create_task(ensure_keys(inside, "order", [name], ()))
    await has_written.wait()
    done, _ = await asyncio.wait([revoking], timeout=1)
    answered_early = bool(done)
    go_on.set()
    _, ((key, _),) = await writing
    _, (outcome,) = await revoking
    await database.close()
    assert not answered_early, "the vault answered while a writer that had missed the fence was still under way"
    assert [(each.key_id, each.state) for each in outcome.keys] == [(key.key_id, "fenced")]


async def until(world: World, condition: str, *args: object) -> None:
    """Asks the database until the query has a row."""
    async with asyncio.timeout(120):
        while not await world.sql(condition, *args):
            await asyncio.sleep(0.01)
