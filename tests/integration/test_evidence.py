"""The evidence log on a real PostgreSQL, with a real witness: nothing lost, nothing doubled, nothing changed."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from deploy.local import keys
from deploy.local.interfaces import PostgresServer
from deploy.verify import verify_certificate as verifier
from evidence_log import handlers, leaves, store
from evidence_log.certificate import CertificateFacts, ParticipantFact
from evidence_log.http import make_router
from evidence_log.journal import JournalRefused
from evidence_log.leaves import Decision
from evidence_log.sequencer import WitnessRefused, sequence_leaves, witness_checkpoint
from evidence_log.witness import WitnessSettings, open_witness
from evidence_log.witness import make_router as witness_router
from privacy_service.app import SERVICE
from privacy_service.settings import PrivacySettings
from servicekit.core import faults, metrics
from servicekit.core.clock import Clock
from servicekit.core.errors import NotFound
from servicekit.core.faults import InjectedFault
from servicekit.core.health import Health
from servicekit.db.postgres import Tx
from servicekit.http.app import make_app
from servicekit.http.serving import serving
from servicekit.kit import Kit
from tests.support.asgi import open_client
from tests.support.infra import postgres_server  # noqa: F401
from tests.support.kits import open_test_kit

AT = datetime(2026, 3, 4, tzinfo=UTC)


@dataclass
class World:
    kit: Kit
    keys: Path
    dsns: tuple[str, str]
    journal: Path

    def pinned(self) -> Any:
        log, witness = keys.log_key_file(self.keys), keys.witness_key_file(self.keys)
        return verifier.Key(log.read_text(), 1), verifier.Key(witness.read_text(), 4)

    async def size(self) -> int:
        return (await store.read_end(self.kit.db))[0]

    async def log(self) -> list[bytes]:
        return (await handlers.read_log(self.kit, 0, await self.size())).splitlines(keepends=True)

    async def problems(self) -> list[tuple[str, str]]:
        return list(verifier.check_log(await self.log(), *self.pinned()))

    async def take(self) -> None:
        await sequence_leaves(self.kit)
        await witness_checkpoint(self.kit)


@asynccontextmanager
async def opened(postgres: PostgresServer, folder: Path, journal: Path, witness_url: str) -> AsyncIterator[World]:
    """A database of its own under the log's key of the folder."""
    settings = PrivacySettings(
        evidence_key_file=folder / "evidence" / "log.pem",
        witness_public_key_file=keys.witness_key_file(folder),
        witness_url=witness_url,
        evidence_file=journal,
        staff_public_key_file=folder / "staff.pub.pem",
    )
    dsns = postgres.create_system_database(f"evidence{uuid4().hex[:8]}")
    async with open_test_kit("privacy", dsns, settings, migrations=[SERVICE.migrations]) as kit:
        yield World(kit, folder, dsns, journal)


@pytest.fixture
async def witness_url(tmp_path: Path) -> AsyncIterator[str]:
    keys.write_keys(tmp_path / "keys", ["privacy"], [])
    settings = WitnessSettings(
        http_port=0,
        witness_key_file=tmp_path / "keys" / "witness" / "witness.pem",
        witness_file=tmp_path / "checkpoints",
        witness_log_key_file=keys.log_key_file(tmp_path / "keys"),
    )
    clock = Clock()
    app = make_app(
        settings,
        clock,
        Health("witness", "all", "0", clock),
        [witness_router(open_witness(settings, clock))],
        refuse_cards=False,
    )
    async with serving(app, settings) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
async def world(
    postgres_server: PostgresServer,  # noqa: F811
    tmp_path: Path,
    witness_url: str,
) -> AsyncIterator[World]:
    async with opened(postgres_server, tmp_path / "keys", tmp_path / "log.jsonl", witness_url) as found:
        yield found


@pytest.fixture(autouse=True)
def nothing_armed() -> Iterator[None]:
    yield
    faults.arm({})


def decision(number: int = 0) -> Decision:
    return Decision(request_id=UUID(int=number, version=4), what="approved", by="system", at=AT)


async def append(kit: Kit, *leaves: Decision) -> None:
    await kit.run_tx("test", lambda tx: handlers.append(tx, leaves))


async def test_leaves_of_concurrent_transactions_all_get_one_index_and_none_of_those_rolled_back(world: World) -> None:
    committed: list[UUID] = []
    chance = random.Random(1)

    async def write() -> None:
        for _ in range(15):
            leaves = [decision(chance.randrange(1000)) for _ in range(chance.randrange(1, 8))]

            async def work(tx: Tx, leaves: list[Decision] = leaves, fails: bool = chance.random() < 0.2) -> None:
                await handlers.append(tx, leaves)
                await asyncio.sleep(chance.random() * 0.01)
                if fails:
                    raise ZeroDivisionError

            try:
                await world.kit.run_tx("test", work)
            except ZeroDivisionError:
                continue
            committed.extend(leaf.leaf_id for leaf in leaves)

    writers = asyncio.gather(*(write() for _ in range(5)))
    while not writers.done():
        await asyncio.gather(world.take(), sequence_leaves(world.kit))
        await asyncio.sleep(0.005)
    await writers
    while await world.size() < len(committed):  # a transaction elsewhere on the server may hold the last ones up
        await world.take()
    await world.take()
    logged = [json.loads(line)["leaf"]["leaf_id"] for line in await world.log() if b'"leaf"' in line]
    assert sorted(logged) == sorted(map(str, committed))
    assert await world.problems() == []
    assert world.journal.read_bytes() == b"".join(line for line in await world.log() if b'"leaf"' in line)


async def test_a_slow_transaction_is_waited_for_and_its_leaf_is_not_lost(world: World) -> None:
    writing, may_end = asyncio.Event(), asyncio.Event()

    async def slow(tx: Tx) -> None:
        await handlers.append(tx, [decision(1)])
        writing.set()
        await may_end.wait()

    task = asyncio.ensure_future(world.kit.run_tx("slow", slow))
    await writing.wait()
    await append(world.kit, decision(2))
    await world.take()
    assert await world.size() == 0
    may_end.set()
    await task
    while await world.size() < 2:
        await world.take()
    assert await world.problems() == []


@pytest.mark.fault(33, "an idle transaction of another database, while the evidence log grows")
@pytest.mark.attack("leave a transaction open in another database", expected="the evidence log goes on")
async def test_an_idle_transaction_of_another_database_does_not_hold_the_log_up(
    world: World,
    postgres_server: PostgresServer,  # noqa: F811
) -> None:
    other, _ = postgres_server.create_system_database(f"other{uuid4().hex[:8]}")
    forgotten = await asyncpg.connect(other)
    try:
        await forgotten.execute("BEGIN; SELECT pg_current_xact_id()")
        await append(world.kit, decision(1))
        await world.take()
        assert await world.size() == 1
    finally:
        await forgotten.close()


async def test_a_malformed_leaf_is_set_aside_and_those_behind_it_are_taken_up(world: World) -> None:
    """No JSON, another spelling, another name. One that becomes a leaf is taken up."""
    good, late = decision(2), decision(3)
    spaced = json.dumps(json.loads(leaves.encode(late)), indent=1).encode()
    insert = "INSERT INTO evidence_leaves (leaf_id, kind, body) VALUES ($1, 'decision', $2)"
    for leaf_id, body in ((uuid4(), b"\xff no JSON"), (late.leaf_id, spaced), (uuid4(), leaves.encode(decision(4)))):
        await world.kit.db.fetch(insert, leaf_id, body)
    await append(world.kit, good)
    with suppress(ValueError):
        await world.take()
    assert await world.size() == 1, "a malformed leaf stops the log"
    reasons = await world.kit.db.fetch("SELECT reason, attempts FROM evidence_aside ORDER BY entry_id")
    assert [tuple(row) for row in reasons] == [("no_json", 1), ("not_canonical", 1), ("wrong_name", 1)]
    owner = await asyncpg.connect(world.dsns[1])
    await owner.execute("UPDATE evidence_leaves SET body = $1 WHERE leaf_id = $2", leaves.encode(late), late.leaf_id)
    await owner.execute("UPDATE evidence_aside SET next_try_at = '-infinity'")
    await owner.close()
    await world.take()
    logged = [json.loads(line)["leaf"]["leaf_id"] for line in await world.log() if b'"leaf"' in line]
    assert logged[:2] == [str(good.leaf_id), str(late.leaf_id)]
    assert (await world.problems(), metrics.EVIDENCE_ASIDE._value.get()) == ([], 2)
    assert await world.kit.db.fetchval("SELECT array_agg(attempts) FROM evidence_aside") == [2, 2]


async def test_a_leaf_that_is_recorded_twice_is_one_leaf(world: World) -> None:
    leaf = decision()
    await append(world.kit, leaf, decision())
    await append(world.kit, leaf)
    await world.take()
    assert await world.size() == 2


@pytest.mark.fault(17, "the sequencer fails at each of its steps")
@pytest.mark.parametrize("point", ["evidence.sequencing", "evidence.journalled", "tx.commit", "evidence.witnessed"])
async def test_whatever_step_fails_the_log_goes_on_as_if_it_had_not(world: World, point: str) -> None:
    await append(world.kit, *[decision(n) for n in range(5)])
    faults.arm(faults.parse(f"{point}=error@1"))
    with pytest.raises(InjectedFault):
        await world.take()
    faults.arm({})
    await append(world.kit, decision(5))
    await world.take()
    await world.take()
    assert await world.size() == 6
    assert [json.loads(line)["leaf"]["request_id"] for line in await world.log() if b'"leaf"' in line] == [
        str(UUID(int=n, version=4)) for n in range(6)
    ]
    assert await world.problems() == []


async def test_thousands_of_leaves_are_taken_up_in_one_transaction(world: World) -> None:
    await append(world.kit, *[decision(n) for n in range(3000)])
    await world.take()
    assert await world.size() == 3000
    assert await world.kit.db.fetchval("SELECT count(*) FROM evidence_checkpoints") == 1
    assert await world.problems() == []


@pytest.mark.attack("privacy's database password changes or removes leaves", expected="refused by the database")
async def test_the_applications_role_can_only_append(world: World) -> None:
    await append(world.kit, decision())
    await world.take()
    tables = ("leaves", "sequence", "nodes", "checkpoints", "cosignatures")
    for table in (*(f"evidence_{name}" for name in tables), "certificates"):
        columns = await world.kit.db.fetch(
            "SELECT attname FROM pg_attribute WHERE attrelid = $1::regclass AND attnum = 2", table
        )
        name = columns[0]["attname"]
        for statement in (f"UPDATE {table} SET {name} = {name}", f"DELETE FROM {table}", f"TRUNCATE {table}"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await world.kit.db.fetch(statement)


@pytest.mark.attack("the owner of the database changes leaves", expected="found with the index")
@pytest.mark.fault(24, "rows of the log edited and cut by the database's owner")
async def test_what_the_owner_of_the_database_changes_is_found_with_its_index(world: World) -> None:
    await append(world.kit, *[decision(n) for n in range(9)])
    await world.take()
    owner = await asyncpg.connect(world.dsns[1])
    try:
        await owner.execute(
            """UPDATE evidence_leaves SET body = convert_to(replace(convert_from(body, 'UTF8'), 'approved', 'denied'), 'UTF8')
            WHERE entry_id = (SELECT entry_id FROM evidence_sequence WHERE leaf_index = 4)"""
        )
    finally:
        await owner.close()
    assert await world.problems() == [("index 4", "the leaf is not the one of its hash")]


@pytest.mark.attack("the witness is asked to sign a fork or a rolled back log", expected="refused")
@pytest.mark.fault(24, "the witness is shown a fork and a log rolled back")
async def test_the_witness_refuses_a_fork_and_a_log_that_was_rolled_back(
    world: World,
    postgres_server: PostgresServer,  # noqa: F811
    tmp_path: Path,
    witness_url: str,
) -> None:
    await append(world.kit, *[decision(n) for n in range(4)])
    await world.take()
    async with opened(postgres_server, tmp_path / "keys", tmp_path / "other.jsonl", witness_url) as other:
        await append(other.kit, *[decision(n) for n in range(3)])
        with pytest.raises(WitnessRefused):
            await other.take()
        await append(other.kit, *[decision(n) for n in range(7)])
        with pytest.raises(WitnessRefused):
            await other.take()
        with pytest.raises(NotFound):
            await handlers.read_checkpoint(other.kit)
    await append(world.kit, decision())
    await world.take()
    assert await world.problems() == []


@pytest.mark.fault(12, "the evidence's database from before its journal")
async def test_a_database_from_before_takes_up_again_what_the_journal_has(
    world: World,
    postgres_server: PostgresServer,  # noqa: F811
    tmp_path: Path,
    witness_url: str,
) -> None:
    await append(world.kit, *[decision(n) for n in range(7)])
    await world.take()
    checkpoint = await handlers.read_checkpoint(world.kit)
    with world.journal.open("ab") as journal:
        journal.write(b'{"hash":"0')  # a crash cut this line off
    async with opened(postgres_server, tmp_path / "keys", world.journal, witness_url) as restored:
        await append(restored.kit, decision(7))
        await restored.take()
        assert await restored.size() == 8
        assert (await restored.log())[:7] == (await world.log())[:7]
        pin = verifier.read_note(checkpoint, *world.pinned())
        assert list(verifier.check_log(await restored.log(), *world.pinned(), pin)) == []


@pytest.mark.fault(24, "a journal from before its database")
async def test_a_journal_that_is_behind_its_database_is_refused(world: World) -> None:
    await append(world.kit, decision())
    await world.take()
    world.journal.unlink()
    with pytest.raises(JournalRefused):
        await world.take()


def facts(request_id: UUID, erased: int) -> CertificateFacts:
    return CertificateFacts(
        request_id=request_id,
        kind="erasure",
        subject_ids=[uuid4()],
        data_classes=None,
        policy_version="2026-01-01",
        issued_at=AT,
        participants=[ParticipantFact("account", uuid4(), erased, 0)],
    )


async def test_a_certificate_is_readable_once_the_witness_has_seen_it_and_verifies_offline(world: World) -> None:
    kit, first = world.kit, facts(uuid4(), 3)
    assert await handlers.is_ready(kit.db, first.request_id) is None
    (issued,) = await kit.run_tx("test", lambda tx: handlers.issue(kit, tx, [first]))
    later = replace(first, issued_at=datetime.now(UTC))
    assert await kit.run_tx("test", lambda tx: handlers.issue(kit, tx, [later])) == [issued]
    assert await handlers.is_ready(kit.db, first.request_id) is False
    with pytest.raises(NotFound):
        await handlers.read_certificate(kit, first.request_id)
    await world.take()
    document = await handlers.read_certificate(kit, first.request_id)
    assert list(verifier.check_certificate(document, *world.pinned())) == []
    (amended,) = await kit.run_tx("test", lambda tx: handlers.issue(kit, tx, [replace(first, kind="retention")]))
    assert amended != issued
    await append(kit, decision())
    await world.take()
    assert await handlers.is_ready(kit.db, first.request_id) is True
    assert await handlers.read_certificate(kit, first.request_id, 0) == document
    second = await handlers.read_certificate(kit, first.request_id)
    pin = verifier.read_note(json.loads(document)["evidence"]["checkpoint"], *world.pinned())
    path = await handlers.prove_consistency(kit, 1, 3)
    assert list(verifier.check_certificate(second, *world.pinned(), pin, path)) == []


async def test_auditors_read_the_log_and_everybody_its_checkpoint(world: World) -> None:
    await append(world.kit, *[decision(n) for n in range(3)])
    await world.take()
    health = Health("privacy", "api", "0", world.kit.clock)
    app = make_app(world.kit.settings, world.kit.clock, health, [make_router(world.kit)])

    def token(role: Any) -> dict[str, str]:
        return {"Authorization": f"Bearer {keys.staff_token(world.keys, role)}"}

    async with open_client(app) as client:
        assert (await client.get("/v1/evidence/checkpoint")).text == await handlers.read_checkpoint(world.kit)
        leaves = "/v1/evidence/leaves?from=0&to=3"
        assert (await client.get(leaves)).status_code == 401
        assert (await client.get(leaves, headers=token("support"))).status_code == 403
        assert (await client.get(leaves, headers=token("auditor"))).content == b"".join(await world.log())
        assert (await client.get("/v1/evidence/leaves?from=0&to=5000", headers=token("auditor"))).status_code == 422
        assert len((await client.get("/v1/evidence/consistency?from=1&to=3")).json()["proof"]) == 2
        assert (await client.get("/v1/evidence/consistency?from=1&to=9")).status_code == 404
        missing = f"/v1/requests/{uuid4()}/certificate"
        assert (await client.get(missing, headers=token("support"))).status_code == 404
