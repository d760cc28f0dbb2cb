"""L4, L5 (docs/proofs.md, 9): wherever a process dies in a saga, the saga ends, once, as it does undisturbed.

Every process of a split system dies by its own hand at each of its fault points while people are erased and handed over.
"""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from uuid import UUID

import httpx
import pytest

from deploy.local.http import open_http
from deploy.local.keys import staff_token
from deploy.local.people import Crowd, Customer
from deploy.local.shop import Registered, Shop, all_of
from deploy.local.stack import Stack
from tests.support.attacker import raid
from tests.support.end_states import rows
from tests.support.infra import new_kafka, new_postgres
from tests.support.kills import die_at_each
from tests.support.shop_floor import until
from tests.support.stacks import FAST_PASSWORDS, shorten_leases
from tests.support.staff import PATIENCE, Staff

pytestmark = pytest.mark.timeout(2400)
# `SAGA_HITS=2`: every process also dies at the second hit of each of its points.
HITS = int(os.environ.get("SAGA_HITS", "1"))
PEOPLE = 100 * HITS
AT_ONCE = 4

PARTICIPANT = (
    "participant.waited",
    "participant.swept",
    "consume.applied",
    "consume.committed",
    "tx.commit",
    "tx.committed",
)
SAGAS: dict[tuple[str, str], tuple[str, ...]] = {
    ("vault", "api"): ("vault.fenced", "vault.waited_out", "vault.list_flushed", "vault.listed"),
    ("vault", "jobs"): ("vault.claimed", "vault.published", "vault.marked"),
    ("account", "consume"): PARTICIPANT,
    ("account", "jobs"): ("export.claimed", "export.part"),
    ("account", "relay"): ("relay.produced", "relay.marked"),
    ("order", "consume"): ("participant.swept",),  # the kit's, as at account
    ("logistics-gateway", "consume"): ("participant.swept",),
    ("privacy", "api"): ("rights.sealed", "export.fetched", "tx.commit", "tx.committed"),
    ("privacy", "consume"): ("rights.answered", "consume.applied", "consume.committed", "tx.commit", "tx.committed"),
    ("privacy", "relay"): ("relay.produced", "relay.marked"),
    ("privacy", "jobs"): (
        "rights.leased",
        "rights.vault_answered",
        "rights.packaged",
        "export.revoked",
        "export.destroyed",
        "rights.certified",
        "evidence.sequencing",
        "evidence.journalled",
        "evidence.witnessed",
        "tx.commit",
        "tx.committed",
    ),
}
# In following the list; whichever process of a system comes first applies it.
FOLLOWING = ("revocations.swept", "revocations.applied")


@dataclass
class World:
    stack: Stack
    staff: Staff
    people: list[Registered]
    erased: list[UUID] = field(default_factory=list)
    packages: int = 0

    async def pass_by(self, stop: asyncio.Event) -> None:
        """One person after the other gets their data, and is erased, until `stop`; what was begun is brought to its end."""
        while not stop.is_set():
            who = self.people.pop()
            await self.hand_over(who.subject_id)
            await self.erase(who.subject_id)

    async def erase(self, subject: UUID) -> None:
        await self.staff.erase([subject])
        self.erased.append(subject)

    async def hand_over(self, subject: UUID) -> None:
        """A package, asked for again, with a new link, when what was under way got lost with its process."""
        request_id = await self.staff.open("access", subject)
        headers = {"Authorization": f"Bearer {staff_token(self.stack.keys, 'support')}"}
        url = self.stack.url("privacy")
        async with asyncio.timeout(PATIENCE), open_http(url) as http:
            while (await self.staff.show(request_id))["status"] != "completed":
                try:
                    link = await http.post(f"/v1/requests/{request_id}/link", headers=headers)
                    if link.is_success:
                        fetched = await http.get(link.json()["url_path"])
                        self.packages += fetched.is_success
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.2)


@pytest.fixture
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("saga-kills")
    stack = Stack(split=True, kafka=new_kafka(folder / "kafka"), postgres=new_postgres(), progress=lambda _: None)
    stack.overrides["account"] |= FAST_PASSWORDS
    shorten_leases(stack, folder)
    for system in ("account", "order", "logistics-gateway", "privacy"):
        # Each has one reader: what is measured is not how long Kafka waits for a dead one.
        stack.overrides[system] |= {"KAFKA_MEMBER": "reader"}
    async with AsyncExitStack() as running:
        running.push_async_callback(asyncio.to_thread, stack.close)
        await asyncio.to_thread(stack.start)
        staff = await running.enter_async_context(Staff(stack))
        shop, crowd = Shop(stack.url("account"), stack.url("order"), stack.mailbox), Crowd(secrets.randbits(32))
        running.push_async_callback(shop.close)

        async def arrive(customer: Customer) -> Registered:
            who = await shop.register(customer)
            await shop.save_address(who)
            await shop.add_favourite(who, "TEA-GREEN-100")
            return who

        yield World(stack, staff, await all_of(arrive, list(crowd.customers(PEOPLE))))


@pytest.mark.fault(1, "kill -9 at every point of an erasure and an export")
@pytest.mark.fault(17, "kill -9 between a key's destruction and its evidence")
async def test_a_saga_whose_processes_die_at_any_fault_point_ends_once_and_as_it_should(world: World) -> None:
    everybody = {who.subject_id: who.customer.person.canaries for who in world.people}
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        passing = [tasks.create_task(world.pass_by(stop)) for _ in range(AT_ONCE)]
        try:
            async with asyncio.TaskGroup() as dying:  # all at once, so that several processes are down together
                for (system, role), points in SAGAS.items():
                    dying.create_task(dies_at_each(world.stack, system, role, points))
        finally:
            stop.set()
        await asyncio.gather(*passing)
    await dies_following(world)
    await all_erased_once(world)
    loot = await raid(world.stack)
    erased = {value for subject in world.erased for value in everybody[subject]}
    living = {value for who in world.people for value in everybody[who.subject_id]}
    assert loot.values & erased == set()
    assert living <= loot.values
    deaths = HITS * (sum(map(len, SAGAS.values())) + len(FOLLOWING))
    print(f"\n{deaths} deaths; {len(world.erased)} people erased, {world.packages} packages fetched")


async def dies_at_each(stack: Stack, system: str, role: str, points: Sequence[str]) -> None:
    process = stack.process(system, role)
    await asyncio.to_thread(process.kill)
    for hit in range(1, HITS + 1):
        await die_at_each(process, points, hit)
    await asyncio.to_thread(process.start)


async def dies_following(world: World) -> None:
    """A reader dies over the list, which it applies if it comes before its relay: with enough erasures it does."""
    stop = asyncio.Event()
    idle = [world.stack.process("account", role) for role in ("api", "jobs")]
    for process in idle:
        await asyncio.to_thread(process.kill)

    async def keep_erasing() -> None:
        while not stop.is_set():
            await world.erase(world.people.pop().subject_id)

    async with asyncio.TaskGroup() as tasks:
        erasing = tasks.create_task(keep_erasing())
        await dies_at_each(world.stack, "account", "consume", FOLLOWING)
        stop.set()
        await erasing
    for process in idle:
        await asyncio.to_thread(process.start)


async def all_erased_once(world: World) -> None:
    """Each has one certificate, for one destruction of all keys, and nobody has anything left."""
    query = "SELECT request_id, subject_id FROM rights_subjects s JOIN rights_requests USING (request_id) WHERE kind = 'erasure'"
    requests = {row["request_id"]: row["subject_id"] for row in await rows(world.stack, "privacy", query)}
    assert sorted(requests.values()) == sorted(world.erased)
    for request_id in requests:
        told = (await world.staff.certificate(request_id))["certificate"]
        assert told["amendment"] == 0
        assert [part["left"] for part in told["probes"]] == [0] * len(told["probes"])
    entries = await rows(world.stack, "vault", "SELECT request_id, action::text FROM revocations WHERE is_final")
    # Whatever is listed about an erased person is final, also the key of a package that a dead process left to a later run.
    theirs = [(row["request_id"], row["action"]) for row in entries if row["request_id"] in requests]
    assert sorted(theirs) == sorted((request_id, action) for request_id in requests for action in ("fence", "destroy"))
    later = {row["request_id"] for row in entries} - requests.keys()
    scopes = await rows(world.stack, "vault", "SELECT request_id, data_class, anchor FROM revocation_scopes")
    exports = {row["request_id"] for row in await rows(world.stack, "privacy", "SELECT request_id FROM rights_exports")}
    found = [scope for scope in scopes if scope["request_id"] in later]
    assert {scope["request_id"] for scope in found} == later
    assert {scope["data_class"] for scope in found} <= {"export"}
    assert {scope["anchor"] for scope in found} <= exports
    numbers = [row["number"] for row in await rows(world.stack, "vault", "SELECT number FROM revocations ORDER BY 1")]
    assert numbers == list(range(1, len(numbers) + 1))

    async def all_followed() -> bool:
        systems = ("account", "order", "logistics-gateway", "privacy")
        at = [await rows(world.stack, each, "SELECT number FROM kit.revocation_position") for each in systems]
        return all(row["number"] == len(numbers) for (row,) in at)

    await until(all_followed, "every system has applied the whole list", PATIENCE)
