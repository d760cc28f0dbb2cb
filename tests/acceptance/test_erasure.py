"""L3 (docs/proofs.md, 8 and 15): what was erased is gone for whoever has every byte; everybody else's data is as it was.

`make test-erasures` does it with 1,000 of 10,000 people; ERASED and PEOPLE say how many.
"""

import asyncio
import json
import os
import secrets
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

import httpx
import pytest

from deploy.local.http import open_http
from deploy.local.keys import customer_token, identity_file
from deploy.local.people import Crowd, Person
from deploy.local.services import ServiceProcess
from deploy.local.shop import Registered, Shop, all_of
from deploy.local.showing import privacyctl
from deploy.local.stack import Stack
from event_contracts.topics import CARRIERS
from logistics_gateway.domain import shipment_id_of
from servicekit.core.clock import Clock
from servicekit.core.errors import Fenced
from servicekit.vault.client import ServiceIdentity, VaultClient
from servicekit.vault.leases import KeyName
from tests.support.attacker import raid
from tests.support.carrier import Carrier
from tests.support.deliveries import make_delivery
from tests.support.end_states import number, rows
from tests.support.shop_floor import until
from tests.support.stacks import account_of
from tests.support.staff import Staff, seconds_to_certificate
from tests.support.traffic import produce_orders, seal_orders

PEOPLE, ERASED = int(os.environ.get("PEOPLE", "150")), int(os.environ.get("ERASED", "40"))
PATIENCE = 240.0 + PEOPLE
LATE = 5
# An earlier event named them, or nobody could ask for their erasure.
NAMED_BEFORE = """INSERT INTO inventory (subject_id, system, data_class, anchor, first_seen, last_seen)
SELECT subject, 'order', 'delivery', gen_random_uuid(), now(), now() FROM unnest($1::uuid[]) AS subject"""

pytestmark = pytest.mark.timeout(600 + 2 * PEOPLE)


@dataclass
class World:
    """A shop with carriers at work, and staff. `carriers` by name."""

    stack: Stack
    shop: Shop
    staff: Staff
    carriers: dict[str, Carrier]
    crowd: Crowd

    async def customer(self, orders: int = 1) -> Registered:
        """Somebody new, all of whose orders are delivered."""
        who = await self.shop.register(next(self.crowd.customers(1)))
        await self.shop.save_address(who)
        await self.shop.add_favourite(who, "TEA-GREEN-100")
        for _ in range(orders):
            await self.shop.place_order(who, self.crowd)
        await self.delivered(orders, [who])
        return who

    async def delivered(self, expected: int, people: list[Registered]) -> None:
        ids = [order.order_id for who in people for order in who.orders]

        async def all_there() -> bool:
            query = "SELECT count(*) FROM orders WHERE status = 'delivered' AND order_id = ANY($1)"
            return int((await rows(self.stack, "order", query, ids))[0][0]) == expected

        await until(all_there, "all orders are delivered", PATIENCE)


@pytest.fixture
async def world(stack: Stack) -> AsyncIterator[World]:
    async with AsyncExitStack() as running:
        carriers = {name: await running.enter_async_context(Carrier(account_of(stack, name))) for name in CARRIERS}
        staff = await running.enter_async_context(Staff(stack))
        shop = Shop(stack.url("account"), stack.url("order"), stack.mailbox)
        running.push_async_callback(shop.close)
        yield World(stack, shop, staff, carriers, Crowd(secrets.randbits(32)))


async def test_new_input_after_the_erasure_of_one_class_works(world: World) -> None:
    who = await world.customer()
    before = {data_class for data_class, _ in (await raid(world.stack)).of(who.subject_id)}
    (state,) = await world.staff.erase([who.subject_id], ["behaviour"])
    assert state["outstanding"] == []
    after = {data_class for data_class, _ in (await raid(world.stack)).of(who.subject_id)}
    assert before - after == {"behaviour"}
    await world.shop.add_favourite(who, "MUG-STONE")
    loot = await raid(world.stack)
    assert "behaviour" in {data_class for data_class, _ in loot.of(who.subject_id)}
    assert own_values(who) <= loot.values


@pytest.mark.fault(25, "the command line against the web")
async def test_a_request_that_is_approved_in_two_ways_at_once_is_approved_once(world: World) -> None:
    """The tool needs a moment to start, so the others come at several times, before, with and after it."""
    people = [await world.shop.register(each) for each in world.crowd.customers(5)]
    requests = [await world.staff.open("erasure", who.subject_id) for who in people]
    await all_of(world.staff.previewed, requests)

    async def over_http(request_id: UUID, after: float) -> None:
        await asyncio.sleep(after)
        await world.staff._ask("POST", f"/v1/requests/{request_id}/approve", world.staff._officer)

    decisions = [
        decision
        for place, request_id in enumerate(requests)
        for decision in (
            privacyctl(world.stack, "approve", str(request_id), role="privacy_officer"),
            over_http(request_id, 0.4 * place),
        )
    ]
    ends = await asyncio.gather(*decisions, return_exceptions=True)
    refused = [isinstance(end, RuntimeError | httpx.HTTPStatusError) for end in ends]
    assert [refused[at : at + 2].count(True) for at in range(0, len(refused), 2)] == [1] * len(requests), ends
    for request_id in requests:
        state = await world.staff.certified(request_id)
        assert [line["what"] for line in state["history"]].count("approved") == 1


@pytest.mark.fault(16, "an erasure during a hold on one order")
async def test_a_hold_on_one_order_keeps_exactly_that_and_when_it_ends_the_rest_goes_by_itself(world: World) -> None:
    who = await world.customer(orders=2)
    held, other = (order.order_id for order in who.orders)
    hold_id = await world.staff.hold(who.subject_id, "delivery", held)
    (state,) = await world.staff.erase([who.subject_id])
    by_law = {("order_record", held), ("order_record", other)}
    assert (await raid(world.stack)).of(who.subject_id) == by_law | {("delivery", held)}
    disputes = [(hold["data_class"], hold["anchor"]) for hold in state["holds"] if hold["basis"] == "dispute"]
    assert disputes == [("delivery", str(held))]

    await world.staff.lift(hold_id)
    request_id = UUID(state["request_id"])

    async def amended() -> bool:
        latest = await world.staff.certificate(request_id)
        return latest is not None and not any(hold["basis"] == "dispute" for hold in latest["certificate"]["holds"])

    await until(amended, "what was held is erased and the certificate amended", PATIENCE)
    assert (await raid(world.stack)).of(who.subject_id) == by_law
    assert (await world.staff.certificate(request_id))["certificate"]["amendment"] > 0


@pytest.mark.fault(19, "a participant stands still (SIGSTOP) during an erasure")
async def test_a_stopped_participant_is_named_with_since_and_next_try_and_then_the_saga_ends(world: World) -> None:
    who = await world.customer()
    await post_review(world.stack, who)
    request_id = await world.staff.open("erasure", who.subject_id)
    await world.staff.previewed(request_id)
    reviews = world.stack.process("reviews")
    reviews.pause()
    try:
        await world.staff.approve(request_id)

        async def named() -> bool:
            (step,) = (await world.staff.show(request_id))["steps"]
            return [(each["system"], bool(each["since"] and each["next_try_at"])) for each in step["waiting_for"]] == [
                ("reviews", True)
            ]

        await until(named, "the silent participant alone is named", PATIENCE)
        with pytest.raises(RuntimeError, match="it waits for reviews"):
            await privacyctl(world.stack, "follow", str(request_id), "--patience", "1")
    finally:
        reviews.resume()
    await world.staff.certified(request_id)
    assert {data_class for data_class, _ in (await raid(world.stack)).of(who.subject_id)} <= {"order_record"}


@pytest.mark.fault(7, "a holder of leases stands still (SIGSTOP) past an erasure")
async def test_a_holder_that_stands_still_is_waited_for_and_opens_nothing_afterwards(world: World) -> None:
    """SIGSTOP through a whole erasure: the keys live until its lease is over, and by then it is over for the process, too."""
    who = await world.customer()
    (order,) = who.orders
    own = {"Authorization": f"Bearer {who.token}"}
    holder = await asyncio.to_thread(world.stack.start_another, "order", "api")
    try:
        async with open_http(holder.url, headers=own) as http:
            assert who.customer.person.name in (await http.get(f"/v1/orders/{order.order_id}")).text
            request_id = await world.staff.open("erasure", who.subject_id)
            await world.staff.previewed(request_id)
            holder.pause()
            await world.staff.approve(request_id)

            async def drains() -> bool:
                (step,) = (await world.staff.show(request_id))["steps"]
                return step["step"] == "drain" and [each["system"] for each in step["waiting_for"]] == ["order"]

            await until(drains, "the saga waits for the holder", PATIENCE)
            assert own_values(who) & (await raid(world.stack)).values
            await world.staff.certified(request_id)
            holder.resume()
            answer = await http.get(f"/v1/orders/{order.order_id}")
            assert not any(value in answer.text for value in own_values(who))
    finally:
        await asyncio.to_thread(holder.close)
        world.stack.processes.remove(holder)


@pytest.mark.fault(1, "two vaults, two relays, two gateways and two workers at once, during erasures")
async def test_two_of_each_process_at_once_have_one_effect(world: World) -> None:
    """The second ones talk to the second vault. Meanwhile others shop, and their parcels leave once."""
    async with doubled(world.stack) as seconds:
        people = [await world.customer() for _ in range(2)] + await all_of(lambda _: world.customer(), range(6))
        gone, living = people[:4], people[4:]
        erasing = asyncio.create_task(world.staff.erase([who.subject_id for who in gone]))
        living += await all_of(lambda _: world.customer(), range(4))
        states = await erasing
        idle = [process.name for process in seconds if not await has_worked(process)]
    for state in states:
        told = (await world.staff.certificate(UUID(state["request_id"])))["certificate"]
        assert {probe["left"] for probe in told["probes"]} == {0}
    ids = [who.subject_id for who in gone]
    query = "SELECT action::text FROM revocations WHERE is_final AND subject_id = ANY($1)"
    done = Counter(row["action"] for row in await rows(world.stack, "vault", query, ids))
    assert done == dict.fromkeys(("fence", "hold", "destroy"), len(gone))
    numbers = [row["number"] for row in await rows(world.stack, "vault", "SELECT number FROM revocations ORDER BY 1")]
    assert numbers == list(range(1, len(numbers) + 1))
    held = Counter(shipment for carrier in world.carriers.values() for shipment in carrier.desk.shipments)
    assert {held[shipment_id_of(order.order_id)] for who in living for order in who.orders} == {1}
    loot = await raid(world.stack)
    assert not {value for who in gone for value in own_values(who)} & loot.values
    assert {value for who in living for value in own_values(who)} <= loot.values
    assert idle == []


@asynccontextmanager
async def doubled(stack: Stack) -> AsyncIterator[list[ServiceProcess]]:
    """A second process of each system beside the first, in all its roles; the others' second ones ask the second vault."""
    started: list[ServiceProcess] = []
    try:
        for system in ("vault", "account", "order", "logistics-gateway", "privacy"):
            if started:
                stack.overrides[system]["VAULT_URL"] = started[0].url
            started.append(await asyncio.to_thread(stack.start_another, system))
            stack.overrides[system].pop("VAULT_URL", None)
        yield started
    finally:
        for process in reversed(started):
            await asyncio.to_thread(process.close)
            stack.processes.remove(process)


async def has_worked(process: ServiceProcess) -> bool:
    """It handed out keys, if it is a vault; else records had an effect through it."""
    sign = "keys_leased_total{" if process.system == "vault" else "consumed_total{"
    async with open_http() as http:
        metrics = (await http.get(f"{process.health_url}/metrics")).text
    return any(line.startswith(sign) and not line.endswith(" 0.0") for line in metrics.splitlines())


async def test_the_erased_are_gone_for_everybody_and_the_living_stay(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    people, gifts = await shop_around(world)
    gone, living = people[:ERASED], people[ERASED:]
    late = await seal_orders(world.stack, [late_delivery(place) for place in range(LATE)])
    late_people = [UUID(json.loads(order.value)["consignee_id"]) for order in late]

    begun = time.monotonic()
    states = await world.staff.erase([who.subject_id for who in gone])
    took = time.monotonic() - begun
    certificates = await all_of(world.staff.certificate, [UUID(state["request_id"]) for state in states])
    seconds = [seconds_to_certificate(*pair) for pair in zip(states, certificates, strict=True)]
    report(capsys, len(gone), took, seconds)
    await rows(world.stack, "privacy", NAMED_BEFORE, late_people)
    await world.staff.erase(late_people)

    withheld = await number(world.stack, "logistics-gateway", WITHHELD)
    produce_orders(world.stack, late)
    await until(lambda: is_number(world, WITHHELD, withheld + LATE), "the late orders are withheld", PATIENCE)
    await nothing_kept_of(world, [order.order_id for order in late])
    await no_key_for(world, [*(who.subject_id for who in gone), *late_people])
    await carriers_deleted(world, [order.order_id for who in gone for order in who.orders if not order.gift])

    loot = await raid(world.stack)
    erased_values = {value for who in gone for value in own_values(who)} | {late_name(place) for place in range(LATE)}
    living_values = {value for who in living for value in own_values(who)}
    living_values |= {value for friend in gifts for value in friend.canaries}
    assert loot.values & erased_values == set()
    assert living_values <= loot.values
    assert {data_class for who in gone for data_class, _ in loot.of(who.subject_id)} <= {"order_record"}


WITHHELD = "SELECT count(*) FROM disclosures WHERE state = 'withheld' AND reason = 'erased'"


async def shop_around(world: World) -> tuple[list[Registered], list[Person]]:
    """People with accounts, addresses, favourites and delivered orders; and whom some of them sent gifts."""
    people = await all_of(world.shop.register, list(world.crowd.customers(PEOPLE)))
    gifts = [friend for who in people for friend in who.customer.friends]

    async def visit(who: Registered) -> None:
        await world.shop.save_address(who)
        await world.shop.add_favourite(who, "TEA-GREEN-100")
        await world.shop.place_order(who, world.crowd)
        for friend in who.customer.friends:
            await world.shop.place_order(who, world.crowd, friend)

    await all_of(visit, people)
    await world.delivered(len(people) + len(gifts), people)
    return people, gifts


def own_values(who: Registered) -> set[str]:
    """What only this person's own data says."""
    return {*who.customer.person.canaries, *(order.body["payment"]["token"] for order in who.orders)}


def late_name(place: int) -> str:
    return f"Late Canary {place}"


def late_delivery(place: int) -> bytes:
    return make_delivery(name=late_name(place)).model_dump_json().encode()


async def is_number(world: World, sql: str, expected: int) -> bool:
    return await number(world.stack, "logistics-gateway", sql) == expected


async def nothing_kept_of(world: World, order_ids: list[UUID]) -> None:
    """The late orders are in the ledger, without what was erased; nothing of them left; and it was counted."""
    query = "SELECT state, delivery FROM disclosures WHERE order_id = ANY($1)"
    ledger = await rows(world.stack, "logistics-gateway", query, order_ids)
    assert [(row["state"], row["delivery"]) for row in ledger] == [("withheld", None)] * len(order_ids)
    async with open_http() as http:
        metrics = (await http.get(f"{world.stack.process('logistics-gateway').health_url}/metrics")).text
    counted = [line for line in metrics.splitlines() if line.startswith('opened_erased_total{data_class="delivery"')]
    assert sum(float(line.rpartition(" ")[2]) for line in counted) >= len(order_ids)


async def no_key_for(world: World, subjects: list[UUID]) -> None:
    identity = ServiceIdentity("order", identity_file(world.stack.keys, "order").read_bytes(), Clock())
    client = VaultClient(world.stack.url("vault"), identity, Clock(), patience=30)
    try:
        for subject in subjects:
            with pytest.raises(Fenced):
                await client.ensure([KeyName(subject, "delivery", subject)])
    finally:
        await client.sign_off()  # or the next erasure waits until this holder's leases are over
        await client.close()


async def carriers_deleted(world: World, order_ids: list[UUID]) -> None:
    """Whoever got a parcel of an erased person has been told, and has deleted it."""
    shipments = set(map(shipment_id_of, order_ids))

    async def deleted() -> bool:
        return shipments <= set().union(*(carrier.desk.erased for carrier in world.carriers.values()))

    await until(deleted, "the carriers have deleted the shipments", PATIENCE)
    assert not any(shipments & carrier.desk.shipments.keys() for carrier in world.carriers.values())


async def post_review(stack: Stack, who: Registered) -> None:
    headers = {"Authorization": f"Bearer {customer_token(stack.keys, who.subject_id)}"}
    review = {"stars": 5, "display_name": who.customer.person.name}
    async with open_http() as http:
        (await http.post(f"{stack.url('reviews')}/v1/reviews", json=review, headers=headers)).raise_for_status()


def report(capsys: pytest.CaptureFixture[str], count: int, took: float, seconds: list[float]) -> None:
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    with capsys.disabled():
        print(
            f"\n{count} erasures in {took:.1f} s: {count / took:.1f} a second; "
            f"approval to certificate: p50 {statistics.median(ordered):.1f} s, p99 {p99:.1f} s"
        )
