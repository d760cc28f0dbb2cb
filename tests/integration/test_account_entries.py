"""What belongs to an account: addresses, favourites, browsing, notices; on a real Postgres."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from account_service import handlers
from event_contracts.order import CancelReason, OrderCancelled, OrderDelivered, OrderProgress, OrderProgressed
from servicekit.kafka.cloudevents import Received
from servicekit.vault.leases import KeyName
from tests.support.accounts import Shop, dsns, settings, shop
from tests.support.infra import postgres_server

__all__ = ["dsns", "postgres_server", "settings", "shop"]  # fixtures


ADDRESS = {
    "name": "山田 太郎",
    "lines": ["千代田区丸の内1-1-1", "ビル 5階"],
    "city": "東京都",
    "postal_code": "100-0005",
    "country": "JP",
    "phone": "+81312345678",
}


async def test_address_book(shop: Shop) -> None:
    subject_id, me = await shop.member()
    url = "/v1/accounts/me/addresses"
    first = (await shop.http.post(url, headers=me, json=ADDRESS)).json()["address_id"]
    key = {"Idempotency-Key": str(uuid4())}
    posts = [await shop.http.post(url, headers=me | key, json=ADDRESS) for _ in range(2)]
    (second,) = {post.json()["address_id"] for post in posts if post.status_code == 201}
    assert KeyName(subject_id, "contact", UUID(first)) in shop.vault.keys
    assert (await shop.http.put(f"{url}/{first}", headers=me, json={**ADDRESS, "city": "大阪"})).status_code == 204
    shown = (await shop.http.get(f"{url}/{first}", headers=me)).json()
    assert (shown["number"], shown["address"]["city"], shown["address"]["company"]) == (2, "大阪", None)
    page = (await shop.http.get(url, headers=me, params={"limit": 1})).json()
    assert page["items"][0]["address_id"] == second != key["Idempotency-Key"]
    rest = (await shop.http.get(url, headers=me, params={"cursor": page["next"]})).json()
    assert ([item["address_id"] for item in rest["items"]], rest["next"]) == ([first], None)
    assert (await shop.http.delete(f"{url}/{first}", headers=me)).status_code == 204
    assert (await shop.http.delete(f"{url}/{first}", headers=me)).status_code == 404
    kinds = [kind for kind, _ in await shop.events(subject_id)]
    assert kinds == ["AccountRegistered.v1", "ContactDisclosed.v1", *["AddressSaved.v1"] * 3, "AddressDeleted.v1"]


@pytest.mark.parametrize(
    ("stated", "kept"),
    [
        (
            {"city": "Hong Kong", "country": "HK", "phone": "2123 4567"},
            {"postal_code": None, "state": None, "country": "HK", "phone": "+85221234567"},
        ),
        (
            {"city": "Bonn", "country": "DE", "postal_code": "D-53113", "phone": "0049 (0)228 12345617"},
            {"postal_code": "53113", "country": "DE", "phone": "+4922812345617"},
        ),
        (
            {"city": "San Jose", "state": "California", "country": "US", "postal_code": "95113", "phone": None},
            {"state": "CA", "postal_code": "95113", "phone": None},
        ),
        ({"city": "London", "country": "UK", "postal_code": "sw1a1aa"}, {"country": "GB", "postal_code": "SW1A 1AA"}),
    ],
)
async def test_an_address_is_kept_as_its_country_has_it(
    shop: Shop, stated: dict[str, Any], kept: dict[str, Any]
) -> None:
    _, me = await shop.member()
    url = "/v1/accounts/me/addresses"
    answer = await shop.http.post(url, headers=me, json={"name": "A", "lines": ["Street 1"], **stated})
    assert answer.status_code == 201, answer.text
    shown = (await shop.http.get(f"{url}/{answer.json()['address_id']}", headers=me)).json()["address"]
    assert {name: shown[name] for name in kept} == kept


async def test_a_refused_address_names_the_field_and_an_example_of_its_country(shop: Shop) -> None:
    _, me = await shop.member()
    wrong = {**ADDRESS, "country": "US", "postal_code": "9511", "phone": "555-7555"}
    answer = await shop.http.post("/v1/accounts/me/addresses", headers=me, json=wrong)
    assert answer.status_code == 422
    errors = {error["at"]: error["expected"] for error in answer.json()["errors"]}
    assert errors == {
        "state": "Send the state by its name or code; in US one is Wyoming or WY.",
        "postal_code": "Send a whole postal code; in US one looks like 95014.",
        "phone": "Send the whole phone number with its area code and no extension, "
        "as in US: (201) 555-0123 or +1 201-555-0123.",
    }
    assert "7555" not in answer.text


@pytest.mark.fault(40, "one key, two addresses or favourites")
async def test_the_same_key_with_another_entry_is_refused_and_a_deleted_one_is_gone(shop: Shop) -> None:
    _, me = await shop.member()
    entries = {
        "addresses": (ADDRESS, {**ADDRESS, "city": "大阪"}),
        "favourites": ({"sku": "LAMP-7"}, {"sku": "SOFA-1"}),
    }
    for name, (first, second) in entries.items():
        url, headers = f"/v1/accounts/me/{name}", me | {"Idempotency-Key": str(uuid4())}
        made = (await shop.http.post(url, headers=headers, json=first)).json()
        reused = await shop.http.post(url, headers=headers, json=second)
        assert (reused.status_code, reused.json()["type"]) == (422, "/problems/key_reused")
        assert (await shop.http.post(url, headers=headers, json=first)).json() == made
        assert len((await shop.http.get(url, headers=me)).json()["items"]) == 1
        (entry_id,) = made.values()
        assert (await shop.http.delete(f"{url}/{entry_id}", headers=me)).status_code == 204
        shop.vault.erased.update(
            key.key_id for key_name, key in shop.vault.keys.items() if str(key_name.anchor) == entry_id
        )
        again = await shop.http.post(url, headers=headers, json=first)
        assert (again.status_code, again.json()["type"]) == (410, "/problems/gone")
        assert (await shop.http.get(url, headers=me)).json()["items"] == []


@pytest.mark.attack("a deleted address is brought back by its old request", expected="409: its key is released")
async def test_what_is_deleted_releases_its_key_and_is_not_brought_back(shop: Shop) -> None:
    """The release is committed with the deletion; nothing is stored under that key again, also not in its last moments."""
    subject_id, me = await shop.member()
    for url, body, data_class in (
        ("/v1/accounts/me/addresses", ADDRESS, "contact"),
        ("/v1/accounts/me/favourites", {"sku": "LAMP-7"}, "behaviour"),
    ):
        key = {"Idempotency-Key": str(uuid4())}
        (anchor,) = (await shop.http.post(url, headers=me | key, json=body)).json().values()
        await shop.http.post(url, headers=me, json=body)
        assert (await shop.http.delete(f"{url}/{anchor}", headers=me)).status_code == 204
        events = await shop.events(UUID(anchor))
        assert [kind for kind, _ in events] == ["KeyReleased.v1"]
        event = events[0][1]
        name = KeyName(subject_id, data_class, UUID(anchor))
        key_id = str(shop.vault.keys[name].key_id)
        assert event == {
            "subject_id": str(subject_id),
            "system": "account",
            "data_class": data_class,
            "anchor": anchor,
            "key_id": key_id,
        }
        again = await shop.http.post(url, headers=me | key, json=body)
        assert (again.status_code, again.json()["type"]) == (409, "/problems/fenced")
        assert len((await shop.http.get(url, headers=me)).json()["items"]) == 1
        assert (await shop.http.post(url, headers=me, json=body)).status_code == 201


async def test_nobody_reaches_anothers_entries(shop: Shop) -> None:
    _, me = await shop.member()
    _, other = await shop.member()
    address = (await shop.http.post("/v1/accounts/me/addresses", headers=me, json=ADDRESS)).json()["address_id"]
    url = f"/v1/accounts/me/addresses/{address}"
    assert (await shop.http.get(url, headers=other)).status_code == 404
    assert (await shop.http.put(url, headers=other, json=ADDRESS)).status_code == 404
    assert (await shop.http.delete(url, headers=other)).status_code == 404
    assert (await shop.http.get(url)).status_code == 401


async def test_favourites(shop: Shop) -> None:
    subject_id, me = await shop.member()
    url = "/v1/accounts/me/favourites"
    key = {"Idempotency-Key": str(uuid4())}
    posts = [await shop.http.post(url, headers=me | key, json={"sku": "LAMP-7"}) for _ in range(2)]
    (favourite_id,) = {post.json()["favourite_id"] for post in posts if post.status_code == 201}
    (item,) = (await shop.http.get(url, headers=me)).json()["items"]
    assert (item["favourite_id"], item["sku"]) == (favourite_id, "LAMP-7")
    assert (await shop.http.delete(f"{url}/{item['favourite_id']}", headers=me)).status_code == 204
    assert [kind for kind, _ in await shop.events(subject_id)][2:] == ["FavouriteAdded.v1", "FavouriteRemoved.v1"]


def look(page: str = "/lamps", **attributes: Any) -> dict[str, Any]:
    event = {"specversion": "1.0", "id": str(uuid4()), "source": "/web", "type": "page_viewed"}
    return event | {"time": datetime.now(UTC).isoformat(), "data": {"page": page, "seconds": 3}} | attributes


async def test_a_batch_of_browsing_is_one_vault_call_and_one_transaction(shop: Shop) -> None:
    subject_id, me = await shop.member()
    calls = shop.vault.calls
    batch = [look(f"/page/{n}", time=(datetime.now(UTC) - timedelta(seconds=n)).isoformat()) for n in range(500)]
    headers = me | {"Content-Type": "application/cloudevents-batch+json"}
    answers = [await shop.http.post("/v1/browsing-events", headers=headers, content=json.dumps(batch))]
    assert shop.vault.calls == calls + 1
    answers.append(await shop.http.post("/v1/browsing-events", headers=headers, content=json.dumps(batch[:10])))
    assert [answer.json() for answer in answers] == [
        {"recorded": 500, "known": 0, "left_out": 0},
        {"recorded": 0, "known": 10, "left_out": 0},
    ]
    transactions = "SELECT count(DISTINCT xmin::text) FROM browsing WHERE subject_id = $1"
    assert await shop.kit.db.fetchval(transactions, subject_id) == 1
    assert len(await shop.events(subject_id)) == 502
    page = (await shop.http.get("/v1/accounts/me/browsing", headers=me, params={"limit": 2})).json()
    assert [item["page"] for item in page["items"]] == ["/page/0", "/page/1"]
    assert (await shop.http.post("/v1/browsing-events", headers=headers, content=json.dumps([]))).status_code == 422
    assert (
        await shop.http.post("/v1/browsing-events", headers=headers, content=json.dumps([*batch, look()]))
    ).status_code == 422


async def test_browsing_in_structured_and_binary_mode(shop: Shop) -> None:
    subject_id, me = await shop.member()
    event = look(type="product_viewed", traceparent="ignored")
    structured = me | {"Content-Type": "application/cloudevents+json; charset=utf-8"}
    answer = await shop.http.post("/v1/browsing-events", headers=structured, content=json.dumps(event))
    assert answer.json() == {"recorded": 1, "known": 0, "left_out": 0}
    attributes = {f"ce-{name}": value for name, value in event.items() if name != "data"}
    answer = await shop.http.post("/v1/browsing-events", headers=me | attributes, json=event["data"])
    assert answer.json() == {"recorded": 0, "known": 1, "left_out": 0}
    (item,) = (await shop.http.get("/v1/accounts/me/browsing", headers=me)).json()["items"]
    assert (item["browsing_id"], item["kind"], item["seconds"]) == (event["id"], "product_viewed", 3)
    _, body = (await shop.events(subject_id))[-1]
    assert body["browsing_id"] == event["id"]
    assert KeyName(subject_id, "behaviour", UUID(body["month_id"])) in shop.vault.keys


@pytest.mark.parametrize(
    ("change", "at"),
    [
        ({"id": "jane@example.org"}, "id"),
        ({"id": "00000000-0000-1000-8000-000000000000"}, "id"),
        ({"type": "bought"}, "type"),
        ({"data": {"page": "x" * 201}}, "data.page"),
        ({"data": {"page": "/", "jane": 1}}, "data.*"),
        ({"time": "2026-01-01T00:00:00"}, "time"),
    ],
)
async def test_browsing_that_breaks_the_shape_is_refused(shop: Shop, change: dict[str, Any], at: str) -> None:
    _, me = await shop.member()
    headers = me | {"Content-Type": "application/cloudevents+json"}
    answer = await shop.http.post("/v1/browsing-events", headers=headers, content=json.dumps(look() | change))
    assert answer.status_code == 422
    assert at in {error["at"] for error in answer.json()["errors"]}
    assert "jane" not in answer.text


async def test_browsing_from_the_future_and_of_other_media_is_refused(shop: Shop) -> None:
    _, me = await shop.member()
    late = look(time=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
    headers = me | {"Content-Type": "application/cloudevents+json"}
    assert (await shop.http.post("/v1/browsing-events", headers=headers, content=json.dumps(late))).status_code == 422
    assert (await shop.http.post("/v1/browsing-events", headers=me, json=look())).status_code == 415


async def test_what_happens_to_an_order_becomes_one_notice_each(shop: Shop) -> None:
    subject_id, me = await shop.member()
    order_id, at = uuid4(), datetime.now(UTC)
    delivered = OrderDelivered(order_id=order_id, buyer_id=subject_id, at=at)
    cancelled = OrderCancelled(order_id=order_id, buyer_id=subject_id, reason=CancelReason.BY_BUYER)
    for _ in range(2):
        await shop.kit.run_tx(
            "test", lambda tx: handlers.on_order_delivered(shop.kit, tx, [received(delivered, at)] * 2)
        )
    earlier = at - timedelta(days=1)
    await shop.kit.run_tx("test", lambda tx: handlers.on_order_cancelled(shop.kit, tx, [received(cancelled, earlier)]))
    items = (await shop.http.get("/v1/accounts/me/notices", headers=me)).json()["items"]
    assert [(item["order_id"], item["kind"]) for item in items] == [
        (str(order_id), "delivered"),
        (str(order_id), "cancelled"),
    ]


async def test_the_buyer_is_told_of_every_end_of_a_parcel(shop: Shop) -> None:
    subject_id, me = await shop.member()
    order_id, at = uuid4(), datetime.now(UTC)
    events = [
        received(OrderProgressed(order_id=order_id, buyer_id=subject_id, status=status, at=at), at)
        for status in OrderProgress
    ]
    await shop.kit.run_tx("test", lambda tx: handlers.on_order_progressed(shop.kit, tx, events))
    items = (await shop.http.get("/v1/accounts/me/notices", headers=me)).json()["items"]
    assert {item["kind"] for item in items} == {"out_for_delivery", "failed_attempt", "returned", "lost", "unknown"}


def received(event: Any, at: datetime) -> Received[Any]:
    return Received(event, uuid4(), at, "order", event.topic, 0, 0)


@pytest.mark.fault(10, "data whose key is destroyed")
async def test_what_is_erased_reads_as_null(shop: Shop) -> None:
    subject_id, me = await shop.member()
    await shop.http.post("/v1/accounts/me/favourites", headers=me, json={"sku": "LAMP-7"})
    shop.vault.erased |= {key.key_id for key in shop.vault.keys.values()}
    shown = (await shop.http.get("/v1/accounts/me", headers=me)).json()
    assert (shown["subject_id"], shown["identity"], shown["contact"]) == (str(subject_id), None, None)
    (item,) = (await shop.http.get("/v1/accounts/me/favourites", headers=me)).json()["items"]
    assert item["sku"] is None


CARD = "4111 1111 1111 1111"


@pytest.mark.parametrize("member", [("data", "page"), ("data", "sku"), ("source",), ("traceparent",)])
async def test_an_event_with_a_card_number_costs_its_batch_nothing(shop: Shop, member: tuple[str, ...]) -> None:
    """It alone is left out, counted, and nothing of it is kept."""
    _, me = await shop.member()
    batch = [look() for _ in range(500)]
    place = batch[250]
    for name in member[:-1]:
        place = place[name]
    place[member[-1]] = f"/search?q={CARD}"
    headers = me | {"Content-Type": "application/cloudevents-batch+json"}
    answer = await shop.http.post("/v1/browsing-events", headers=headers, content=json.dumps(batch))
    assert (answer.status_code, answer.json()) == (200, {"recorded": 499, "known": 0, "left_out": 1})
    alone = await shop.http.post("/v1/browsing-events", headers=headers, content=json.dumps([batch[250]]))
    assert alone.json() == {"recorded": 0, "known": 0, "left_out": 1}
    structured = me | {"Content-Type": "application/cloudevents+json"}
    single = await shop.http.post("/v1/browsing-events", headers=structured, content=json.dumps(batch[250]))
    assert single.json()["type"] == "/problems/card_number"


async def test_products_numbers_are_no_cards(shop: Shop) -> None:
    _, me = await shop.member()
    added = await shop.http.post("/v1/accounts/me/favourites", headers=me, json={"sku": "4011160109362"})
    assert added.status_code == 201
    batch = [look() | {"data": {"page": "/p/4011160109362", "sku": "4011160109362"}} for _ in range(500)]
    headers = me | {"Content-Type": "application/cloudevents-batch+json"}
    answer = await shop.http.post("/v1/browsing-events", headers=headers, content=json.dumps(batch))
    assert answer.json() == {"recorded": 500, "known": 0, "left_out": 0}


async def test_card_numbers_are_refused_in_an_address_and_phones_are_not(shop: Shop) -> None:
    _, me = await shop.member()
    url = "/v1/accounts/me/addresses"
    hidden = {**ADDRESS, "lines": ["card ４１１１ 1111-1111 1111"]}
    assert (await shop.http.post(url, headers=me, json=hidden)).json()["type"] == "/problems/card_number"
    assert (await shop.http.post(url, headers=me, json={**ADDRESS, "phone": "+4915123456787"})).status_code == 201
