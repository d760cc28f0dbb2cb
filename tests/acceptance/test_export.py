"""R2, S6, S7 on the whole system: a package as a person gets it, and a retention run beside it."""

import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest

from deploy.local.http import open_http
from deploy.local.keys import identity_file, staff_token
from deploy.local.people import Crowd
from deploy.local.shop import Shop
from deploy.local.stack import Stack
from servicekit.core.clock import Clock
from servicekit.vault.client import ServiceIdentity, VaultClient
from servicekit.vault.leases import KeyName
from tests.support.end_states import rows
from tests.support.exports import Package
from tests.support.shop_floor import until
from tests.support.staff import Staff

PATIENCE = 300.0

pytestmark = pytest.mark.timeout(900)


@dataclass
class World:
    stack: Stack
    shop: Shop
    staff: Staff
    http: httpx.AsyncClient
    crowd: Crowd

    def bearer(self, role: Any) -> dict[str, str]:
        return {"Authorization": f"Bearer {staff_token(self.stack.keys, role)}"}

    async def state_of(self, data_class: str, anchor: UUID) -> str | None:
        """The vault's word on the key of that name."""
        query = "SELECT state::text FROM keys WHERE data_class = $1 AND anchor = $2"
        found = await rows(self.stack, "vault", query, data_class, anchor)
        return found[0]["state"] if found else None


@pytest.fixture
async def world(stack: Stack) -> AsyncIterator[World]:
    async with AsyncExitStack() as running:
        staff = await running.enter_async_context(Staff(stack))
        shop = Shop(stack.url("account"), stack.url("order"), stack.mailbox)
        running.push_async_callback(shop.close)
        limits = httpx.Limits(keepalive_expiry=2)
        client = open_http(stack.url("privacy"), limits=limits)
        http = await running.enter_async_context(client)
        yield World(stack, shop, staff, http, Crowd(secrets.randbits(32)))


async def test_a_person_gets_everything_once_and_then_nobody_can_open_it(world: World) -> None:
    who = await world.shop.register(next(world.crowd.customers(1)))
    person = who.customer.person
    await world.shop.save_address(who)
    await world.shop.add_favourite(who, "TEA-GREEN-100")
    order = await world.shop.place_order(who, world.crowd)
    request_id = await world.staff.open("access", who.subject_id)

    async def ready() -> bool:
        return [step["step"] for step in (await world.staff.show(request_id))["steps"]] == ["ready"]

    await until(ready, "the package is ready", PATIENCE)
    link = await world.http.post(f"/v1/requests/{request_id}/link", headers=world.bearer("support"))
    assert link.status_code == 201, link.text
    fetched = await world.http.get(link.json()["url_path"])
    assert fetched.status_code == 200, fetched.text
    package = Package(fetched.content)
    package.check_hashes()
    (account,) = package.json("data/account/accounts.json")["rows"]
    assert (account["identity"]["name"], account["contact"]["email"]) == (person.name, person.email)
    assert person.street in package.text("data/account/addresses.json")
    (favourite,) = package.json("data/account/favourites.json")["rows"]
    assert favourite["favourite"] == {"sku": "TEA-GREEN-100"}
    (delivery,) = package.json("data/order/order_deliveries.json")["rows"]
    assert (delivery["order_id"], delivery["delivery"]["consignee"]["name"]) == (str(order.order_id), person.name)
    assert "credentials" not in account

    assert (await world.http.get(link.json()["url_path"])).status_code == 404

    async def destroyed() -> bool:
        return await world.state_of("export", request_id) == "destroyed"

    await until(destroyed, "the package's key is destroyed", PATIENCE)

    async def over() -> bool:
        return bool((await world.staff.show(request_id))["status"] == "completed")

    await until(over, "the request is completed", PATIENCE)


@pytest.mark.attack("a deleted address is looked for in topics and backups", expected="its key is destroyed at once")
async def test_a_deleted_address_and_favourite_are_shredded_and_nothing_else(world: World) -> None:
    """L3, L8: without a request, within seconds, by a revocation with a certificate; the other entries stay readable."""
    who = await world.shop.register(next(world.crowd.customers(1)))
    headers = {"Authorization": f"Bearer {who.token}"}
    gone: list[tuple[str, UUID]] = []
    kept: list[tuple[str, UUID]] = []
    async with open_http(f"{world.stack.url('account')}/v1/accounts/me") as http:
        bodies = {
            "addresses": ("contact", who.customer.person.address()),
            "favourites": ("behaviour", {"sku": "TEA-1"}),
        }
        for path, (data_class, body) in bodies.items():
            for entries in (gone, kept):
                made = await http.post(f"/{path}", json=body, headers=headers)
                made.raise_for_status()
                (anchor,) = made.json().values()
                entries.append((data_class, UUID(anchor)))
            (await http.delete(f"/{path}/{gone[-1][1]}", headers=headers)).raise_for_status()

    async def shredded() -> bool:
        return [await world.state_of(*name) for name in gone] == ["destroyed"] * 2

    await until(shredded, "the keys of what was deleted are destroyed", PATIENCE)
    assert [await world.state_of(*name) for name in (*kept, ("contact", who.subject_id))] == ["active"] * 3

    async def certified() -> bool:
        query = """SELECT 1 FROM certificates JOIN rights_subjects s USING (request_id) WHERE s.subject_id = $1"""
        return bool(await rows(world.stack, "privacy", query, who.subject_id))

    await until(certified, "a certificate says so", PATIENCE)


async def test_a_retention_run_gives_up_what_is_past_its_time(world: World) -> None:
    who = await world.shop.register(next(world.crowd.customers(1)))
    old, fresh = [(await world.shop.place_order(who, world.crowd)).order_id for _ in range(2)]

    # Both are over, one of them half a year ago.
    async def known() -> bool:
        query = "SELECT 1 FROM inventory WHERE anchor = $1 AND system = 'order' AND data_class = 'delivery'"
        return bool(await rows(world.stack, "privacy", query, old))

    await until(known, "the inventory knows of the order", PATIENCE)
    # No system is believed that an order closed before an event named it: that is long ago as well.
    await _change(
        world, "privacy", "UPDATE inventory SET first_seen = now() - interval '201 days' WHERE anchor = $1", old
    )
    sql = "UPDATE orders SET status = 'cancelled', recorded_at = now() - interval '{}' WHERE order_id = $1"
    await _change(world, "order", sql.format("200 days"), old)
    await _change(world, "order", sql.format("1 day"), fresh)
    never_placed = await _seal_and_forget(world)

    headers = {**world.bearer("privacy_officer"), "Idempotency-Key": str(uuid4())}
    started = await world.http.post("/v1/retention/runs", json={}, headers=headers)
    assert started.status_code == 202, started.text
    path = f"/v1/retention/runs/{started.json()['run_id']}"

    async def ended() -> bool:
        run = (await world.http.get(path, headers=world.bearer("privacy_officer"))).json()
        return run["ended_at"] is not None

    await until(ended, "the run is over", PATIENCE)
    items = (await world.http.get(path, headers=world.bearer("privacy_officer"))).json()["items"]
    assert {"data_class": "delivery", "found": 2, "held": 0, "under_way": 0, "opened": 2} in items

    async def gone() -> bool:
        return [await world.state_of("delivery", each) for each in (old, never_placed)] == ["destroyed"] * 2

    await until(gone, "what is past its time is destroyed", PATIENCE)
    assert [await world.state_of(each, old) for each in ("order_record", "payment")] == ["active", "active"]
    assert await world.state_of("delivery", fresh) == "active"


async def _seal_and_forget(world: World) -> UUID:
    """A delivery is sealed two days ago, and its order never placed. Returns the anchor."""
    identity = ServiceIdentity("order", identity_file(world.stack.keys, "order").read_bytes(), Clock())
    client = VaultClient(world.stack.url("vault"), identity, Clock(), patience=30)
    name = KeyName(uuid4(), "delivery", uuid4())
    try:
        await client.ensure([name])
    finally:
        await client.sign_off()
        await client.close()
    await _change(
        world, "vault", "UPDATE keys SET created_at = now() - interval '2 days' WHERE subject_id = $1", name.subject
    )
    return name.anchor


async def _change(world: World, system: str, sql: str, subject_or_anchor: UUID) -> None:
    """As the owner of the system's database."""
    connection = await asyncpg.connect(world.stack.owner_dsn(system))
    try:
        await connection.execute(sql, subject_or_anchor)
    finally:
        await connection.close()
