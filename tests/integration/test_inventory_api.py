"""What staff may ask about people, and what everybody may read."""

from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from deploy.local import keys
from privacy_service.inventory.http import FINDS_PER_MINUTE
from servicekit.vault.leases import KeyName
from tests.support.infra import kafka_server, postgres_server
from tests.support.inventories import POLICY, World, apply, secrets_folder, world
from tests.support.inventory_events import Shopper

__all__ = ["kafka_server", "postgres_server", "secrets_folder", "world"]


async def test_the_inventory_of_a_person_names_meaning_and_recipients(world: World) -> None:
    shopper = Shopper()
    await apply(world.kit, shopper.records())
    async with world.client() as client:
        url = f"/v1/subjects/{shopper.consignee_id}/inventory"
        (delivery, ledger) = (await client.get(url, headers=world.staff())).json()["items"]
    assert delivery["system"] == "order"
    assert delivery["data_class"] == "delivery"
    assert delivery["anchor"] == str(shopper.order_id)
    assert delivery["categories"] == POLICY.classes["delivery"].categories
    assert delivery["purposes"] == POLICY.classes["delivery"].purposes
    kept = {"after": "order_delivered", "keep": "P180D", "basis": "contract with the buyer"}
    assert delivery["retention"] == {**kept, "obligation": False, "unused": None}
    # Two of them only until it was sent, or corrected.
    assert delivery["holders"] == ["logistics-gateway", "order", "privacy"]
    (received,) = delivery["recipients"]
    assert received["recipient"] == "meridian"
    assert received["fields"] == ["consignee.city", "consignee.name"]
    assert ledger["system"] == "logistics-gateway"
    assert ledger["recipients"] == []
    assert ledger["first_seen"] == ledger["last_seen"] == "2026-11-01T06:00:00Z"


async def test_the_inventory_is_paged(world: World) -> None:
    shopper = Shopper()
    await apply(world.kit, shopper.records())
    seen: list[dict[str, Any]] = []
    async with world.client() as client:
        query = {"limit": "3"}
        while True:
            url = f"/v1/subjects/{shopper.subject_id}/inventory"
            page = (await client.get(url, params=query, headers=world.staff())).json()
            seen += page["items"]
            if page["next"] is None:
                break
            query["cursor"] = page["next"]
    named = {(shopper.subject_id, item["system"], item["data_class"], UUID(item["anchor"])) for item in seen}
    assert named == {row for row in shopper.holdings() if row[0] == shopper.subject_id}
    assert len(seen) == len(named) == 7


async def test_find_answers_whoever_is_in_the_directory_and_records_the_look(world: World) -> None:
    kit, staff_id = world.kit, uuid4()
    ann, bob, order_id = uuid4(), uuid4(), uuid4()
    phone = await kit.digest("phone", "+4915112345678")
    world.vault.directory[("phone", phone)] = [KeyName(ann, "contact", ann), KeyName(bob, "contact", bob)]
    number = await kit.digest("order_number", "7H3KQ-0ZX9M")
    world.vault.directory[("order_number", number)] = [KeyName(bob, "order_record", order_id)]
    shops_own = await kit.digest("shop_order_number", "#2026/0042")
    world.vault.directory[("shop_order_number", shops_own)] = [KeyName(ann, "order_record", order_id)]
    async with world.client() as client:

        async def find(by: str, term: str) -> list[dict[str, Any]]:
            response = await client.post(
                "/v1/find", json={"by": by, "term": term}, headers=world.staff("support", staff_id)
            )
            assert response.status_code == 200
            items: list[dict[str, Any]] = response.json()["items"]
            return items

        people = await find("phone", "+49 151 1234-5678")
        assert {item["subject_id"] for item in people} == {str(ann), str(bob)}
        (buyer,) = await find("order_number", " 7h3kq 0zx9m")
        assert buyer == {"subject_id": str(bob), "held": [{"data_class": "order_record", "anchor": str(order_id)}]}
        (other,) = await find("order_number", "2026-0042")
        assert other["subject_id"] == str(ann)
        assert await find("email", "nobody@example.org") == []
        await client.get(f"/v1/subjects/{ann}/inventory", headers=world.staff("privacy_officer", staff_id))
    looks = await kit.db.fetch("SELECT staff_id, role, kind::text, subject_id FROM staff_looks ORDER BY look_id")
    assert sorted(tuple(row)[1:] for row in looks[:2]) == sorted(
        [("support", "find_phone", ann), ("support", "find_phone", bob)]
    )
    assert [tuple(row)[1:] for row in looks[2:]] == [
        ("support", "find_order_number", bob),
        ("support", "find_order_number", ann),
        ("support", "find_email", None),
        ("privacy_officer", "inventory", ann),
    ]
    assert {row["staff_id"] for row in looks} == {staff_id}


@pytest.mark.fault(19, "a look that cannot be recorded")
async def test_a_look_that_cannot_be_recorded_is_not_answered(world: World) -> None:
    await apply(world.kit, Shopper().records())
    async with world.client() as client:
        await _as_owner(world, "ALTER TABLE staff_looks RENAME TO gone")
        response = await client.get(f"/v1/subjects/{uuid4()}/inventory", headers=world.staff())
        found = await client.post("/v1/find", json={"by": "email", "term": "a@b.example"}, headers=world.staff())
    assert response.status_code == found.status_code == 500
    assert "items" not in response.json() | found.json()


async def test_looks_can_neither_be_changed_nor_removed(world: World) -> None:
    async with world.client() as client:
        await client.get(f"/v1/subjects/{uuid4()}/inventory", headers=world.staff())
    for statement in ("UPDATE staff_looks SET role = 'x'", "DELETE FROM staff_looks", "TRUNCATE staff_looks"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await world.sql(statement)
    assert await world.kit.db.fetchval("SELECT count(*) FROM staff_looks") == 1


async def _as_owner(world: World, statement: str) -> None:
    connection = await asyncpg.connect(world.dsns[1])
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def test_customers_and_strangers_may_not_look(world: World) -> None:
    customer = {"Authorization": f"Bearer {keys.customer_token(world.keys, uuid4())}"}
    async with world.client() as client:
        for headers, status in (({}, 401), (customer, 401), (world.staff("warehouse"), 403)):
            found = await client.post("/v1/find", json={"by": "email", "term": "a@b.example"}, headers=headers)
            looked = await client.get(f"/v1/subjects/{uuid4()}/inventory", headers=headers)
            assert (found.status_code, looked.status_code) == (status, status)
    assert await world.kit.db.fetchval("SELECT count(*) FROM staff_looks") == 0


async def test_searches_are_limited_per_staff_member(world: World) -> None:
    mine, body = world.staff("support", uuid4()), {"by": "email", "term": "a@b.example"}
    async with world.client() as client:
        answers = [await client.post("/v1/find", json=body, headers=mine) for _ in range(FINDS_PER_MINUTE + 1)]
        other = await client.post("/v1/find", json=body, headers=world.staff())
    assert [answer.status_code for answer in answers] == [200] * FINDS_PER_MINUTE + [429]
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert other.status_code == 200


@pytest.mark.fault(28, "a refused search")
async def test_a_search_that_is_refused_does_not_show_its_term(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    term = "jane.canary@example.org"
    bodies = [{"by": "name", "term": term}, {"by": "email", "term": term * 40}, {"by": "email", "term": term, term: 1}]
    async with world.client() as client:
        answers = [await client.post("/v1/find", json=body, headers=world.staff()) for body in bodies]
        world.vault.directory = None  # type: ignore[assignment]
        answers.append(await client.post("/v1/find", json={"by": "email", "term": term}, headers=world.staff()))
    assert [answer.status_code for answer in answers] == [422, 422, 422, 500]
    output = capfd.readouterr()
    for text in (*(answer.text for answer in answers), output.out, output.err):
        assert "canary" not in text


async def test_everybody_may_read_the_policy(world: World) -> None:
    async with world.client() as client:
        document, page = await client.get("/v1/policy"), await client.get("/policy")
    assert document.json()["version"] == POLICY.version
    assert document.json()["classes"]["delivery"]["recipients"] == ["meridian", "pacifica"]
    assert "grants" not in document.json()
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.text.startswith("<!doctype html>")
