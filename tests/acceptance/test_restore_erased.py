"""L3 and L4 (docs/proofs.md, 10): whichever store comes back from before an erasure, what was erased stays so.

Nothing else is lost.
"""

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from deploy.local.http import open_http
from deploy.local.keys import customer_token, staff_token
from deploy.local.people import Crowd, Customer
from deploy.local.postgres import Postgres
from deploy.local.services import ServiceProcess
from deploy.local.shop import Registered, Shop, all_of
from deploy.local.stack import Stack
from event_contracts.topics import CARRIERS
from logistics_gateway.domain import shipment_id_of
from tests.support.attacker import raid
from tests.support.carrier import Carrier
from tests.support.end_states import number, quarantined, rows, unpublished
from tests.support.infra import new_kafka, new_postgres
from tests.support.restores import copy_kafka, restore_database, restore_kafka, server_on
from tests.support.shop_floor import until
from tests.support.stacks import FAST_PASSWORDS, account_of, shorten_leases
from tests.support.staff import Staff

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(1200)]
PEOPLE, ERASED = 12, 6
PATIENCE = 300.0
SERVICES = ("account", "order", "logistics-gateway", "privacy")


@dataclass
class Shelf:
    """A stack in which some were erased, a server on the backup from before, and everybody's values."""

    stack: Stack
    staff: Staff
    backup_dsn: str
    kafka_copy: Path
    copied_at: datetime
    gone: list[Registered]
    living: list[Registered]

    async def check(self) -> None:
        """Whoever has all bytes opens nothing of the erased and everything of the living."""
        loot = await raid(self.stack)
        assert loot.values & values_of(self.gone) == set()
        assert values_of(self.living) <= loot.values
        assert {data_class for who in self.gone for data_class, _ in loot.of(who.subject_id)} <= {"order_record"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shelf(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shelf]:
    folder = tmp_path_factory.mktemp("restore-erased")
    stack = Stack(kafka=new_kafka(folder / "kafka"), postgres=new_postgres(), progress=lambda _: None)
    stack.overrides["account"] |= FAST_PASSWORDS
    shorten_leases(stack, folder)
    await asyncio.to_thread(stack.start)
    shop, crowd = Shop(stack.url("account"), stack.url("order"), stack.mailbox), Crowd(secrets.randbits(32))
    try:

        async def arrive(customer: Customer) -> Registered:
            who = await shop.register(customer)
            await shop.save_address(who)
            await shop.add_favourite(who, "TEA-GREEN-100")
            await shop.place_order(who, crowd)
            await cancel(stack, who)
            return who

        people = await all_of(arrive, list(crowd.customers(PEOPLE)))
        copied_at = await asyncio.to_thread(copy_kafka, stack, folder / "kafka-copy")
        await asyncio.to_thread(stack.postgres.base_backup, folder / "backup")
        async with Staff(stack) as staff:
            await staff.erase([who.subject_id for who in people[:ERASED]])
            with server_on(folder / "backup", stack.postgres.admin_dsn) as backup_dsn:
                copies = backup_dsn, folder / "kafka-copy", copied_at
                yield Shelf(stack, staff, *copies, people[:ERASED], people[ERASED:])
    finally:
        await shop.close()
        await asyncio.to_thread(stack.close)


async def test_the_erased_are_gone_before_anything_is_restored(shelf: Shelf) -> None:
    await shelf.check()
    assert isinstance(shelf.stack.postgres, Postgres), "a second server on the backup needs the embedded PostgreSQL"


@pytest.mark.fault(12, "a service's database from before an erasure")
@pytest.mark.parametrize("system", ["account", *(pytest.param(each, marks=pytest.mark.long) for each in SERVICES[1:])])
async def test_a_restored_service_serves_nothing_until_it_has_erased_again(shelf: Shelf, system: str) -> None:
    """While the vault stands still, nobody can say what was erased since: every read answers 503."""
    process, vault = shelf.stack.process(system), shelf.stack.process("vault")
    await asyncio.to_thread(process.stop)
    await asyncio.to_thread(restore_database, shelf.stack, shelf.backup_dsn, system)
    position = "SELECT number FROM kit.revocation_position"
    assert await number(shelf.stack, system, position) == 0
    vault.pause()
    try:
        await asyncio.to_thread(process.launch)
        answers = await reads(shelf, process, system)
    finally:
        vault.resume()
    assert set(answers) == {503}
    await asyncio.to_thread(process.wait_healthy)
    assert await number(shelf.stack, system, position) >= 2 * ERASED
    for who in shelf.gone:
        assert not any(value in text for text in await texts(shelf, system, who) for value in values_of([who]))
    await shelf.check()


@pytest.mark.fault(12, "the vault's database from before an erasure")
async def test_a_restored_vault_destroys_again_what_its_file_names(shelf: Shelf) -> None:
    vault = shelf.stack.process("vault")
    incarnation = "SELECT incarnation::text FROM list_head"
    before = await rows(shelf.stack, "vault", incarnation)
    await asyncio.to_thread(vault.stop)
    await asyncio.to_thread(restore_database, shelf.stack, shelf.backup_dsn, "vault")
    assert await number(shelf.stack, "vault", "SELECT count(*) FROM revocations") == 0
    await asyncio.to_thread(vault.start)
    assert await number(shelf.stack, "vault", "SELECT count(*) FROM revocations") >= 2 * ERASED
    assert await rows(shelf.stack, "vault", incarnation) != before
    await shelf.check()


@pytest.mark.fault(12, "all databases from before an erasure")
async def test_all_restored_at_once_and_the_next_erasure_works(shelf: Shelf) -> None:
    stack = shelf.stack
    processes = [stack.process(system) for system in ("vault", *SERVICES)]
    for process in reversed(processes):
        await asyncio.to_thread(process.stop)
    for process in processes:
        await asyncio.to_thread(restore_database, stack, shelf.backup_dsn, process.system)
    for process in processes:
        await asyncio.to_thread(process.start)
    await shelf.check()
    last = shelf.living.pop()
    await shelf.staff.erase([last.subject_id])
    shelf.gone.append(last)
    await shelf.check()


@pytest.mark.fault(12, "Kafka from before an erasure")
async def test_a_restored_kafka_is_fed_again_and_nothing_is_lost_or_back(shelf: Shelf) -> None:
    """Lost with it: parcels that no carrier had read, orders that the gateway had not read, an erasure that had begun."""
    stack, staff, gateway = shelf.stack, shelf.staff, shelf.stack.process("logistics-gateway")
    shop, crowd = Shop(stack.url("account"), stack.url("order"), stack.mailbox), Crowd(secrets.randbits(32))
    orders = [(await shop.place_order(who, crowd)).order_id for who in shelf.living]
    sent = "SELECT count(*) FROM disclosures WHERE state = 'sent' AND recall IS NULL"
    await until(lambda: is_number(stack, "logistics-gateway", sent, len(orders)), "the parcels are sent", PATIENCE)
    last = shelf.living.pop()
    request_id = await staff.open("erasure", last.subject_id, ["behaviour", "contact", "identity"])
    await staff.previewed(request_id)
    await asyncio.to_thread(gateway.stop)
    orders += [(await shop.place_order(who, crowd)).order_id for who in shelf.living]
    await staff.approve(request_id)
    await until(lambda: all_published(stack, "order", "privacy"), "the orders and the commands are published", PATIENCE)
    await shop.close()

    processes = [stack.process(system) for system in ("vault", *SERVICES)]
    for process in reversed(processes):
        await asyncio.to_thread(process.stop)
    said = await asyncio.to_thread(restore_kafka, stack, shelf.kafka_copy, shelf.copied_at)
    print(f"\n{said}")
    for process in processes:
        await asyncio.to_thread(process.start)

    async with AsyncExitStack() as running:
        carriers = [await running.enter_async_context(Carrier(account_of(stack, name))) for name in CARRIERS]
        found = "SELECT count(*) FROM orders WHERE status = 'delivered'"
        await until(lambda: is_number(stack, "order", found, len(orders)), "all orders are delivered", PATIENCE)
        held = Counter(shipment_id for carrier in carriers for shipment_id in carrier.desk.shipments)
        assert held == Counter(map(shipment_id_of, orders))
    await staff.certified(request_id)
    loot = await raid(stack)
    assert {data_class for data_class, _ in loot.of(last.subject_id)} & {"behaviour", "contact", "identity"} == set()
    await shelf.check()
    assert {system: await quarantined(stack, system) for system in SERVICES} == dict.fromkeys(SERVICES, 0)


async def all_published(stack: Stack, *systems: str) -> bool:
    return sum([await unpublished(stack, system) for system in systems]) == 0


async def is_number(stack: Stack, system: str, sql: str, expected: int) -> bool:
    return await number(stack, system, sql) == expected


async def reads(shelf: Shelf, process: ServiceProcess, system: str) -> list[int]:
    """What all reads answer once the process listens."""

    async def listens() -> bool:
        try:
            async with open_http() as http:
                await http.get(process.url)
                return True
        except httpx.TransportError:
            return False

    await until(listens, f"{system} listens", PATIENCE, pause=0.05)
    async with open_http(process.url) as http:
        return [(await http.get(p, headers=h)).status_code for w in shelf.gone for p, h in paths(shelf, system, w)]


async def texts(shelf: Shelf, system: str, who: Registered) -> list[str]:
    async with open_http(shelf.stack.url(system)) as http:
        return [(await http.get(path, headers=headers)).text for path, headers in paths(shelf, system, who)]


def paths(shelf: Shelf, system: str, who: Registered) -> list[tuple[str, dict[str, str]]]:
    """What of a person can be read, with whose token."""
    own = {"Authorization": f"Bearer {customer_token(shelf.stack.keys, who.subject_id)}"}
    staff = {"Authorization": f"Bearer {staff_token(shelf.stack.keys, 'support')}"}
    return {
        "account": [("/v1/accounts/me", own), ("/v1/accounts/me/addresses", own), ("/v1/accounts/me/favourites", own)],
        "order": [("/v1/orders", own), *((f"/v1/orders/{order.order_id}", own) for order in who.orders)],
        "logistics-gateway": [("/", {})],  # it serves nothing else
        "privacy": [(f"/v1/subjects/{who.subject_id}/inventory", staff), ("/v1/requests", staff)],
    }[system]


async def cancel(stack: Stack, who: Registered) -> None:
    """An order that is under way would be kept until it has ended."""
    headers = {"Authorization": f"Bearer {who.token}"}
    async with open_http() as http:
        for order in who.orders:
            (
                await http.post(f"{stack.url('order')}/v1/orders/{order.order_id}/cancel", headers=headers)
            ).raise_for_status()


def values_of(people: list[Registered]) -> set[str]:
    return {value for who in people for value in who.customer.person.canaries}
