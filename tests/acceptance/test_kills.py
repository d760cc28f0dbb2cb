"""L4: whatever is killed, every accepted order reaches its carrier, once and in order.

See docs/proofs.md, 2, and docs/faults.md, rows 1, 2 and 5.

Each role of each service, the broker and the database are killed in turn while orders flow, KILLS times each: once by
default; `make test-kills` is the full form with KILLS=10. SAGA_HITS=2: they also die at the second hit of each fault point.
"""

import asyncio
import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

import httpx
import pytest
import pytest_asyncio

from deploy.local.http import open_http
from deploy.local.mail import code_in, read_mails, text_of, wait_for_mail
from deploy.local.people import Crowd
from deploy.local.stack import Stack
from logistics_gateway.domain import shipment_id_of
from tests.acceptance.test_saga_kills import FOLLOWING, HITS, SAGAS
from tests.support.end_states import (
    DELIVERED,
    WITH_KIT,
    end_states,
    number,
    quarantined,
    rows,
    twice_in_topics,
)
from tests.support.infra import new_kafka, new_postgres
from tests.support.kills import SERVERS, Killer, behind_in_all, die_at_each
from tests.support.shop_floor import Floor, open_floor, until
from tests.support.stacks import FAST_PASSWORDS
from tests.support.storefront import Sale

KILLS = int(os.environ.get("KILLS", "1"))
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(1800 + 600 * KILLS)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def floor(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Floor]:
    """One process per role."""
    folder = tmp_path_factory.mktemp("kills")
    stack = Stack(split=True, kafka=new_kafka(folder / "kafka"), postgres=new_postgres(), progress=lambda _: None)
    stack.overrides["account"] |= FAST_PASSWORDS
    await asyncio.to_thread(stack.start)
    try:
        async with open_floor(stack) as running:
            yield running
    finally:
        await asyncio.to_thread(stack.close)


@pytest.mark.fault(1, "kill -9 of every role under load")
@pytest.mark.fault(2, "kill -9 of the broker under load")
@pytest.mark.fault(3, "kill -9 of Postgres under load")
@pytest.mark.fault(5, "a relay dies between produce and mark")
async def test_whatever_is_killed_every_accepted_order_reaches_its_carrier_once_and_in_order(floor: Floor) -> None:
    killer, stop = Killer(floor), asyncio.Event()
    try:
        async with asyncio.TaskGroup() as tasks:  # when an order fails for good, all ends
            selling = tasks.create_task(floor.storefront.sell(stop))
            watching = tasks.create_task(killer.watch())
            for _ in range(KILLS):
                for process in list(floor.stack.processes):
                    await killer.kill_at_work(process)
                for name in SERVERS:
                    await killer.kill_server(name)
            # A kill at a random moment leaves a duplicate only now and then; here it is sure to.
            await killer.die_at(floor.stack.process("order", "relay"), "relay.produced")
            stop.set()
            await selling
            await floor.settle()
            watching.cancel()
    finally:
        print("\n".join(["", *killer.report(), f"ended by themselves: {killer.ended or 'none'}"]))
    await all_is_well(floor)
    duplicates = twice_in_topics(floor.stack, {name: carrier.desk for name, carrier in floor.carriers.items()})
    print(f"{len(killer.kills)} kills; {summary(floor)}; copies too many on the wire: {dict(duplicates)}, in effect: 0")
    assert all(kill.work and kill.orders for kill in killer.kills)
    assert not killer.ended, "a process ended because another one, the broker or the database was killed"
    assert duplicates.total() >= 1


@pytest.mark.fault(
    1, "kill -9 between the record, the send and the mark of a mail, and between an account and the directory"
)
async def test_whatever_dies_every_mail_comes_and_an_account_is_found(floor: Floor) -> None:
    """A mail may come twice, with one Message-ID. A confirmation may be sent again, and support finds the person."""
    stack, crowd = floor.stack, Crowd(secrets.randbits(32))
    jobs, api = stack.process("account", "jobs"), stack.process("account", "api")
    people = [customer.person for customer in crowd.customers(len(MAIL_POINTS))]
    await asyncio.to_thread(jobs.kill)
    async with open_http(stack.url("account"), timeout=30) as http:
        bodies = [{"email": each.email, "password": PASSWORD, "name": each.name} for each in people]
        answers = [(await http.post("/v1/accounts", json=body)).raise_for_status().json() for body in bodies]
        await die_at_each(jobs, MAIL_POINTS, MAIL_LEASE_SECONDS="2")
        await asyncio.to_thread(jobs.start)
        mails = [await wait_for_mail(stack.mailbox, each.email) for each in people]
        await until(lambda: nothing_waits(stack), "no mail waits", timeout=120)
        copies = [read_mails(stack.mailbox, each.email) for each in people]
        assert [len({mail["Message-ID"] for mail in each}) for each in copies] == [1] * len(people)
        assert sum(map(len, copies)) == len(people) + 1  # the one that died between send and mark
        path = f"/v1/accounts/{answers[0]['registration_id']}/confirmation"
        code = {"code": code_in(text_of(mails[0])), "password": PASSWORD}
        await asyncio.to_thread(api.kill)
        armed = asyncio.create_task(die_at_each(api, ["account.confirmed"]))
        while not armed.done():
            with suppress(httpx.HTTPError):
                await http.post(path, json=code)
        await armed
        await asyncio.to_thread(api.start)
        (await http.post(path, json=code)).raise_for_status()
        signed_in = await http.post("/v1/sign-in", json={"email": people[0].email, "password": PASSWORD})
        assert signed_in.status_code == 200
    assert await number(stack, "account", "SELECT count(*) FROM accounts WHERE NOT listed") == 0


async def nothing_waits(stack: Stack) -> bool:
    return await number(stack, "account", "SELECT count(*) FROM mails WHERE state = 'recorded'") == 0


@pytest.mark.fault(26, "SIGTERM of every role under load")
async def test_a_process_that_is_told_to_stop_ends_what_it_has_begun_and_leaves_in_time(floor: Floor) -> None:
    """In time is what the product says itself: past `STOP_SECONDS` it is killed by its own alarm, and its exit code tells."""
    killer, stop = Killer(floor), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        selling = tasks.create_task(floor.storefront.sell(stop))
        codes = await killer.stop_each_at_work()
        stop.set()
        await selling
    print("\n".join(["", *killer.report()]))
    await floor.settle()
    await all_is_well(floor)
    assert codes == dict.fromkeys(codes, 0)
    assert all(kill.work and kill.orders for kill in killer.kills)


async def all_is_well(floor: Floor) -> None:
    """Everything that the accepted orders must have left behind, and nothing else."""
    stack, accepted = floor.stack, floor.storefront.accepted

    async def caught_up() -> bool:
        return await behind_in_all(stack) == 0

    await until(caught_up, "all readers have read all", timeout=600)
    found = await end_states(stack, floor.carriers.values())
    assert found.keys() == accepted.keys()
    assert {order_id: state for order_id, state in found.items() if state != DELIVERED} == {}
    for sale in accepted.values():
        shipped_as_ordered(floor, sale)
    anchors = await rows(
        stack, "privacy", "SELECT anchor FROM inventory WHERE (system, data_class) = ('account', 'contact')"
    )
    assert set(floor.storefront.addresses.values()) <= {row["anchor"] for row in anchors}
    assert {system: await quarantined(stack, system) for system in WITH_KIT} == dict.fromkeys(WITH_KIT, 0)
    assert await number(stack, "logistics-gateway", "SELECT count(*) FROM early_replies") == 0


def shipped_as_ordered(floor: Floor, sale: Sale) -> None:
    """The shipment of this order, and no other, names its consignee."""
    shipment_id = shipment_id_of(sale.order_id)
    (shipment,) = [c.desk.shipments[shipment_id] for c in floor.carriers.values() if shipment_id in c.desk.shipments]
    recipient = shipment["recipient"]
    assert (recipient["person_name"], recipient["country_code"]) == (sale.consignee_name, sale.country)


def summary(floor: Floor) -> str:
    front = floor.storefront
    return f"{len(front.accepted)} orders accepted, {front.repeated} requests repeated, answers {dict(front.answers)}"


MAIL_POINTS = ("mail.claimed", "mail.sent", "mail.marked")
PASSWORD = "correct horse battery staple"
EPOCHS = ("vault.kek_created", "vault.epoch_opened", "vault.rewrapped", "vault.epoch_emptied", "vault.kek_destroyed")
CONSUMER = ("tx.commit", "tx.committed", "consume.applied", "consume.committed")
RELAY = ("tx.commit", "tx.committed", "relay.produced", "relay.marked")
# What each process passes on the way from an order to its carrier and back. In this order each leaves work for the next.
POINTS: dict[tuple[str, str], tuple[str, ...]] = {
    ("vault", "api"): ("tx.commit", "tx.committed", "vault.keys_inserted", "vault.ensured"),
    ("account", "consume"): CONSUMER,
    ("account", "relay"): RELAY,
    ("order", "api"): ("order.sealed", "tx.commit", "tx.committed"),
    ("order", "consume"): CONSUMER,
    ("order", "relay"): RELAY,
    ("logistics-gateway", "consume"): (
        "tx.commit",
        "tx.committed",
        "gateway.recorded",
        "consume.applied",
        "consume.committed",
        "gateway.sent",
        "gateway.caught_up",
        "consume.delivered",
    ),
    ("logistics-gateway", "relay"): RELAY,
    ("privacy", "consume"): CONSUMER,
}
# Passed when partitions are assigned: a process that keeps them comes there once in its life.
ONCE = {"gateway.caught_up"}
JOBS_POINT = "gateway.stale_sent"
UNCOMMANDED = "revocations.fenced"
# Points off this path, and the test in which processes die there.
ELSEWHERE: dict[str, str] = {
    **dict.fromkeys((point for points in SAGAS.values() for point in points), "acceptance/test_saga_kills.py"),
    **dict.fromkeys(FOLLOWING, "acceptance/test_saga_kills.py"),
    **dict.fromkeys(EPOCHS, "integration/test_kek_epochs.py"),
    **dict.fromkeys((*MAIL_POINTS, "account.confirmed"), "in this file: every mail comes"),
    "retention.keys_read": "integration/test_retention.py",
    "retention.gave_up": "integration/test_retention.py",
    "retention.looked": "integration/test_retention_keys.py",
    # In whichever process of the privacy service comes first, so that no kill of one can wait for it.
    UNCOMMANDED: "integration/test_participant.py",
}
DECLARED = """
import account_service.app, logistics_gateway.app, order_service.app, privacy_service.app, vault_service.app
from servicekit.core.faults import POINTS
print(*sorted(POINTS))
"""


@pytest.mark.fault(1, "kill -9 at every point on an order's way")
async def test_a_process_that_dies_at_any_fault_point_leaves_the_end_state_of_an_undisturbed_run(floor: Floor) -> None:
    undisturbed = [await floor.storefront.place() for _ in range(3)]
    await floor.settle()
    async with asyncio.TaskGroup() as tasks:  # all at once, so that several processes are down together
        for (system, role), points in POINTS.items():
            tasks.create_task(dies_at_each_while_orders_come(floor, system, role, points))
    await floor.settle()
    await a_job_dies_over_what_a_dead_reader_left(floor)
    await floor.settle()
    await all_is_well(floor)
    found = await end_states(floor.stack, floor.carriers.values())
    assert set(found.values()) == {found[sale.order_id] for sale in undisturbed}
    fired = {JOBS_POINT, *(point for points in POINTS.values() for point in points)}
    assert declared_points() == fired | ELSEWHERE.keys()
    deaths = HITS * sum(map(len, POINTS.values())) - (HITS - 1) * len(ONCE) + 2
    print(f"\n{deaths} deaths at {len(fired)} fault points in {len(POINTS) + 1} processes; {summary(floor)}")


async def a_job_dies_over_what_a_dead_reader_left(floor: Floor) -> None:
    """The gateway's reader dies between recording and sending, and stays dead; the job that sends instead dies, too."""
    reader, jobs = floor.stack.process("logistics-gateway", "consume"), floor.stack.process("logistics-gateway", "jobs")
    for process in (reader, jobs):
        await asyncio.to_thread(process.kill)
    await floor.storefront.place()
    await die_at_each(reader, ["consume.committed"])
    await die_at_each(jobs, [JOBS_POINT], STALE_SECONDS="1")
    for process in (reader, jobs):
        await asyncio.to_thread(process.start)


async def dies_at_each_while_orders_come(floor: Floor, system: str, role: str, points: Sequence[str]) -> None:
    process = floor.stack.process(system, role)
    await asyncio.to_thread(process.kill)
    stop = asyncio.Event()
    selling = asyncio.create_task(floor.storefront.sell(stop, at_once=1, pause=1.0))
    try:
        for hit in range(1, HITS + 1):
            await die_at_each(process, [point for point in points if hit == 1 or point not in ONCE], hit)
        await asyncio.to_thread(process.start)
    finally:
        stop.set()
        await selling


def declared_points() -> set[str]:
    """All that the services declare, asked in a process where no test has declared any."""
    ran = subprocess.run([sys.executable, "-c", DECLARED], capture_output=True, text=True, check=True, timeout=60)
    return set(ran.stdout.split())
