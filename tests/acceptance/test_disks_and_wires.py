"""L4, L5 (docs/faults.md, rows 2 to 5, 20, 22 and 26): full disks, servers that die again and again, lost answers, migrations.

Each service is one process here. Whoever cannot write says so, claims nothing, and goes on when there is room again.
"""

import asyncio
import io
import secrets
import zipfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID

import asyncpg
import httpx
import psutil
import pytest
import pytest_asyncio

from deploy.local.databases import Dsn
from deploy.local.http import open_http
from deploy.local.interfaces import Server
from deploy.local.kafka import Kafka
from deploy.local.keys import staff_token
from deploy.local.people import Crowd
from deploy.local.postgres import Postgres
from deploy.local.processes import StackError
from deploy.local.shop import Registered, Shop
from deploy.local.stack import Stack
from servicekit.core.errors import SchemaMismatch
from servicekit.db.migrate import migrate
from tests.acceptance.test_kills import all_is_well
from tests.support.attacker import raid
from tests.support.disks import SmallDisk
from tests.support.end_states import rows, unpublished
from tests.support.faults import fired, long_run
from tests.support.kills import Killer
from tests.support.shop_floor import Floor, open_floor, until
from tests.support.stacks import FAST_PASSWORDS
from tests.support.staff import PATIENCE, Staff
from tests.support.wire import OFFSET_COMMIT, PRODUCE, KafkaWire, Name, PostgresWire

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(1800)]
# More than what still fits into the last block of a file.
AT_ONCE = 8
# Backlogs wait in the database: what a process needs at once for a batch is far below this.
MORE_MEMORY = 64 * 1024 * 1024
JOURNAL = "evidence.jsonl"
BUSIEST = {"order": "orders", "account": "notices", "logistics-gateway": "disclosures", "privacy": "inventory"}
SIZES = {"postgres": 512, "kafka": 256, "list": 1, "journal": 1}


class EveryFew:
    """While `on`, says yes to every few requests of a kind."""

    def __init__(self, every: dict[int | str, int]) -> None:
        self.on, self._every, self._asked = False, every, Counter[int | str]()

    def __call__(self, name: Name) -> bool:
        _, kind = name
        if not self.on or kind not in self._every:
            return False
        self._asked[kind] += 1
        return self._asked[kind] % self._every[kind] == 0


class BehindWire(Postgres):
    """Whose applications are led past a proxy."""

    wire: PostgresWire

    def create_system_database(self, system: str) -> tuple[str, str]:
        app, owner = super().create_system_database(system)
        parts = Dsn.parse(app)
        self.wire.target = f"{parts.host}:{parts.port}"
        return str(replace(parts, port=self.wire.port)), owner


@dataclass
class World:
    """A system with small disks. `people` have an account, and nobody sells them anything."""

    floor: Floor
    disks: dict[str, SmallDisk]
    loses: EveryFew
    wires: tuple[PostgresWire, KafkaWire]
    staff: Staff
    people: list[Registered]

    @property
    def stack(self) -> Stack:
        return self.floor.stack


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world() -> AsyncIterator[World]:
    async with AsyncExitStack() as running:
        disks = {name: running.enter_context(SmallDisk(size)) for name, size in SIZES.items()}
        loses = EveryFew({"COMMIT": 20, PRODUCE: 10, OFFSET_COMMIT: 10})
        wires = PostgresWire(loses), KafkaWire(loses)
        for wire in wires:
            await running.enter_async_context(wire.serving())
        kafka = Kafka(disks["kafka"].folder / "kafka", advertise=wires[1].address)
        wires[1].target = kafka.bootstrap
        postgres = BehindWire(disks["postgres"].folder)
        postgres.wire = wires[0]
        stack = Stack(kafka=kafka, postgres=postgres, progress=lambda _: None)
        stack.overrides["account"] |= FAST_PASSWORDS
        stack.overrides["vault"]["REVOCATIONS_FILE"] = str(disks["list"].folder / "revocations.jsonl")
        stack.overrides["privacy"]["EVIDENCE_FILE"] = str(disks["journal"].folder / JOURNAL)
        running.push_async_callback(asyncio.to_thread, stack.close)
        await asyncio.to_thread(stack.start)
        floor = await running.enter_async_context(open_floor(stack))
        staff = await running.enter_async_context(Staff(stack))
        shop, crowd = Shop(stack.url("account"), stack.url("order"), stack.mailbox), Crowd(secrets.randbits(32))
        running.push_async_callback(shop.close)
        people = [await shop.register(customer) for customer in crowd.customers(1 + 2 * AT_ONCE)]
        yield World(floor, disks, loses, wires, staff, people)


@asynccontextmanager
async def selling(floor: Floor) -> AsyncIterator[None]:
    """Orders come in within the block; those begun are brought to their end."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(floor.storefront.sell(stop))
        await more_accepted(floor)
        yield
        await more_accepted(floor)
        stop.set()


async def more_accepted(floor: Floor, count: int = 10) -> None:
    wanted = len(floor.storefront.accepted) + count

    async def accepted() -> bool:
        return len(floor.storefront.accepted) >= wanted

    await until(accepted, f"{count} more orders are accepted", PATIENCE)


@pytest.mark.fault(20, "a full disk under Postgres, with an export asked for")
async def test_a_full_disk_under_postgres_refuses_and_loses_nothing(world: World) -> None:
    """First single statements find no room, then the server's own log, of which it dies. No order was accepted in vain."""
    floor, disk, postgres = world.floor, world.disks["postgres"], world.stack.postgres
    watching = await asyncpg.connect(postgres.admin_dsn)
    request_id = await world.staff.open("access", world.people.pop().subject_id)
    async with selling(floor):
        refused = floor.storefront.answers[503]

        async def refuses() -> bool:
            disk.fill()
            return floor.storefront.answers[503] >= refused + 5

        async def died() -> bool:
            """The server's log, which every commit needs, gets to the end of its file."""
            disk.fill()
            try:
                await watching.execute("SELECT pg_switch_wal()")
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                return watching.is_closed()
            return False

        await until(refuses, "orders are refused", PATIENCE)
        exporting = asyncio.create_task(handed_over(world, request_id))
        await until(died, "the server has no room for its log", PATIENCE)
        fired("disk full: postgres")
        disk.free()
        await until(lambda: started(world.stack.postgres), "the server is back", PATIENCE)
    assert zipfile.ZipFile(io.BytesIO(await exporting)).testzip() is None
    await floor.settle()
    await all_is_well(floor)
    await nobody_has_ended(world.stack)


@pytest.mark.fault(20, "a full disk under Kafka")
@pytest.mark.fault(2, "the broker is away while the outbox piles up")
async def test_a_full_disk_under_kafka_holds_up_no_order(world: World) -> None:
    floor, disk, kafka = world.floor, world.disks["kafka"], world.stack.kafka
    async with selling(floor):
        before = memory(world.stack)

        async def died() -> bool:
            disk.fill()
            return kafka.pid is None

        await until(died, "the broker has no room for a record", PATIENCE)
        fired("disk full: kafka")
        await more_accepted(floor, 1000 if long_run() else 10)
        assert await unpublished(world.stack, "order") >= 10
        disk.free()
        await until(lambda: started(kafka), "the broker is back", PATIENCE)
    await floor.settle()
    await all_is_well(floor)
    await nobody_has_ended(world.stack)
    assert {name: now for name, now in memory(world.stack).items() if now > before[name] + MORE_MEMORY} == {}


def memory(stack: Stack) -> dict[str, int]:
    """Bytes that each process has in memory."""
    return {process.name: psutil.Process(process.pid).memory_info().rss for process in stack.processes}


async def started(server: Server) -> bool:
    """As a supervisor does it: whatever it says when it ends, it is started again."""
    try:
        await asyncio.to_thread(server.start)
    except StackError:
        return False
    return True


@pytest.mark.fault(20, "a full disk under the vault's list")
async def test_nobody_is_erased_whom_the_vault_could_not_write_down(world: World) -> None:
    """The last block of the file may have room for somebody."""
    people = [world.people.pop() for _ in range(AT_ONCE)]
    with world.disks["list"].full():
        requests = {await approved(world, who.subject_id): who for who in people}
        await until(lambda: said(world.stack, "vault", "revocation_list"), "the vault refuses", PATIENCE)
        fired("disk full: list")
        listed = {row["request_id"] for row in await rows(world.stack, "vault", "SELECT request_id FROM revocations")}
        kept = [who for request_id, who in requests.items() if request_id not in listed]
        assert kept
        loot = await raid(world.stack)
        assert all(loot.of(who.subject_id) for who in kept)
    for request_id in requests:
        await world.staff.certified(request_id)
    loot = await raid(world.stack)
    assert not any(loot.of(who.subject_id) for who in people)


@pytest.mark.fault(20, "a full disk under the evidence's journal")
async def test_no_certificate_is_issued_that_the_journal_does_not_have(world: World) -> None:
    with world.disks["journal"].full():
        requests = [await approved(world, world.people.pop().subject_id) for _ in range(AT_ONCE)]
        await until(lambda: said(world.stack, "privacy", "journal_refused"), "the sequencer refuses", PATIENCE)
        fired("disk full: journal")
        certificates = [await world.staff.certificate(request_id) for request_id in requests]
        journalled = (world.disks["journal"].folder / JOURNAL).read_bytes().count(b"\n")
        assert None in certificates
        assert all(each["evidence"]["leaf_index"] < journalled for each in certificates if each is not None)
    for request_id in requests:
        await world.staff.certified(request_id)


async def approved(world: World, subject: UUID) -> UUID:
    request_id = await world.staff.open("erasure", subject)
    await world.staff.previewed(request_id)
    await world.staff.approve(request_id)
    return request_id


async def said(stack: Stack, system: str, code: str) -> bool:
    return f'"code":"{code}"' in stack.process(system).log.read_text()


async def nobody_has_ended(stack: Stack) -> None:
    assert [process.name for process in stack.processes if process.pid is None] == []


@pytest.mark.fault(26, "SIGTERM of whole services under load")
async def test_a_service_in_one_process_is_told_to_stop_under_load(world: World) -> None:
    killer = Killer(world.floor)
    async with selling(world.floor):
        codes = await killer.stop_each_at_work()
    await world.floor.settle()
    await all_is_well(world.floor)
    assert codes == dict.fromkeys(codes, 0)
    assert all(kill.work for kill in killer.kills)


@pytest.mark.fault(3, "kill -9 of Postgres, again as soon as it is back")
async def test_postgres_that_dies_again_and_again_loses_nothing(world: World) -> None:
    postgres = world.stack.postgres
    async with selling(world.floor):
        for _ in range(60 if long_run() else 10):
            await asyncio.to_thread(postgres.kill)
            fired("killed: postgres")
            await asyncio.to_thread(postgres.start)
            await more_accepted(world.floor, 1)
    await world.floor.settle()
    await all_is_well(world.floor)
    await nobody_has_ended(world.stack)


@pytest.mark.fault(4, "answers to commits get lost under load")
@pytest.mark.fault(5, "answers to produces and to offset commits get lost under load")
async def test_work_whose_answer_got_lost_has_one_effect(world: World) -> None:
    postgres, kafka = world.wires
    enough = 50 if long_run() else 10

    async def lost() -> bool:
        by_kind = Counter[int | str]()
        for (_, kind), count in (postgres.lost + kafka.lost).items():
            by_kind[kind] += count
        return min(by_kind[kind] for kind in ("COMMIT", PRODUCE, OFFSET_COMMIT)) >= enough

    async with selling(world.floor):
        world.loses.on = True
        await until(lost, "enough answers got lost", PATIENCE + 10 * enough)
        world.loses.on = False
    fired("answer lost", (postgres.lost + kafka.lost).total())
    await world.floor.settle()
    await all_is_well(world.floor)
    await nobody_has_ended(world.stack)


@pytest.mark.fault(19, "all services are cut off from Postgres under load")
async def test_services_without_postgres_refuse_and_lose_nothing(world: World) -> None:
    postgres, _ = world.wires
    answers = world.floor.storefront.answers
    before = answers[503]

    async def refused() -> bool:
        return answers[503] >= before + 20 and postgres.refused >= 20

    async with selling(world.floor):
        with postgres.cut():
            fired("cut: postgres")
            await until(refused, "orders and connections are refused", PATIENCE)
    await world.floor.settle()
    await all_is_well(world.floor)
    await nobody_has_ended(world.stack)


@pytest.mark.fault(19, "all services are cut off from Kafka under load")
async def test_services_without_kafka_take_orders_and_publish_them_later(world: World) -> None:
    _, kafka = world.wires

    async def refused() -> bool:
        return kafka.refused >= 20

    async with selling(world.floor):
        with kafka.cut():
            fired("cut: kafka")
            await until(refused, "connections are refused", PATIENCE)
            await more_accepted(world.floor)
            assert await unpublished(world.stack, "order") >= 10
    await world.floor.settle()
    await all_is_well(world.floor)
    await nobody_has_ended(world.stack)


@pytest.mark.fault(22, "the next version's migrations run under load, beside processes of this version")
async def test_processes_go_on_when_the_next_version_has_migrated(world: World, tmp_path: Path) -> None:
    """Columns come into the busiest tables. A process of this version that starts after that refuses: it does not know them."""
    stack = world.stack
    async with selling(world.floor):
        for system, table in BUSIEST.items():
            folder = tmp_path / system
            folder.mkdir()
            (folder / "9000_next.sql").write_text(
                f"ALTER TABLE {table} ADD COLUMN of_next_version integer;"
                "ALTER TABLE kit.outbox ADD COLUMN of_next_version integer DEFAULT 0"
            )
            await until(lambda system=system, folder=folder: migrated(stack, system, folder), system, PATIENCE)  # type: ignore[misc]
            await more_accepted(world.floor)
    fired("migrated", len(BUSIEST))
    await world.floor.settle()
    await all_is_well(world.floor)
    await nobody_has_ended(stack)
    process = stack.process("order")
    await asyncio.to_thread(process.stop)
    with pytest.raises(StackError, match="ended with code 1"):
        await asyncio.to_thread(process.start)
    assert SchemaMismatch.code in process.log_tail()


async def migrated(stack: Stack, system: str, folder: Path) -> bool:
    """A migration that finds no moment between the others gives up soon, and is run again."""
    try:
        return bool(await migrate(stack.owner_dsn(system), [folder]))
    except asyncpg.LockNotAvailableError:
        return False


async def handed_over(world: World, request_id: UUID) -> bytes:
    """The package of a request for access, asked for until it is there."""
    headers = {"Authorization": f"Bearer {staff_token(world.stack.keys, 'support')}"}
    url = world.stack.url("privacy")
    async with asyncio.timeout(PATIENCE), open_http(url) as http:
        while True:
            try:
                link = await http.post(f"/v1/requests/{request_id}/link", headers=headers)
                if link.is_success and (fetched := await http.get(link.json()["url_path"])).is_success:
                    return fetched.content
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.2)
