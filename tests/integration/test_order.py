"""The order service on a real Postgres: its API, what it stores, what it emits."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest

from order_service.domain import order_number
from order_service.holdings import DELIVERIES, HOLDINGS, RECORDS
from order_service.purchases import Purchase
from servicekit.core import faults
from servicekit.core.faults import Fault
from servicekit.kit import body_digest
from servicekit.participant.holdings import Erasure
from servicekit.vault.leases import KeyName
from tests.support.infra import postgres_server
from tests.support.orders import (
    CANARY,
    Shop,
    a_line,
    a_purchase,
    delivered,
    order_dsns,
    order_keys,
    shop,
)

__all__ = ["order_dsns", "order_keys", "postgres_server", "shop"]  # fixtures

CARD = "4111111111111111"


@pytest.fixture
def armed() -> Iterator[None]:
    """Fails every request between sealing and commit."""
    faults.arm({"order.sealed": Fault("error")})
    yield
    faults.arm({})


async def test_an_order_is_placed_sealed_and_announced(shop: Shop) -> None:
    """201 with number and total; three parts sealed apart with one vault call; one event in the same transaction."""
    buyer, key = shop.buyer(), uuid4()
    calls, order_id = shop.vault.calls, buyer.order_id(key)
    answer = await buyer.place(key)
    assert answer.status_code == 201
    body = answer.json()
    assert body["order_id"] == str(order_id)
    assert body["order_number"] == order_number(order_id)
    assert (body["status"], body["total"], body["currency"]) == ("placed", 3998, "EUR")
    assert shop.vault.calls == calls + 1
    ((kind, event),) = await shop.events(str(order_id))
    assert kind == "OrderPlaced.v1"
    assert event["buyer_id"] == event["consignee_id"] == str(buyer.subject_id)
    assert CANARY not in json.dumps(event)


@pytest.mark.parametrize("name", ["Ada\\u0000Example", "\\u3164", "street\\nATTN", "^XA"])
async def test_a_text_that_nobody_can_read_is_refused_with_its_field_and_what_is_expected(
    shop: Shop, name: str
) -> None:
    buyer = shop.buyer()
    body = json.dumps(a_purchase()).replace(json.dumps(a_purchase()["consignee"]["name"]), f'"{name}"')
    headers = buyer.headers | {"Content-Type": "application/json", "Idempotency-Key": str(uuid4())}
    answer = await shop.http.post("/v1/orders", content=body, headers=headers)
    assert answer.status_code == 422
    (problem,) = answer.json()["errors"]
    assert (problem["at"], problem["code"]) == ("consignee.name", "unprintable_text")
    assert problem["expected"].startswith("Send one line of text that can be read")


async def test_the_order_number_is_found_beside_the_records_key(shop: Shop) -> None:
    buyer = shop.buyer()
    order_id = await buyer.placed()
    digest = await shop.kit.digest("order_number", order_number(UUID(order_id)).lower())
    assert (KeyName(buyer.subject_id, "order_record", UUID(order_id)), "order_number", digest) in shop.vault.index


async def test_a_gifts_consignee_is_a_person_of_their_own(shop: Shop) -> None:
    """A fresh id for each order, never the buyer's; the delivery is sealed for it."""
    buyer = shop.buyer()
    events = [(await shop.events(await buyer.placed(gift=True)))[0][1] for _ in range(2)]
    consignees = {event["consignee_id"] for event in events} | {str(buyer.subject_id)}
    assert len(consignees) == 3
    for event in events:
        assert KeyName(UUID(event["consignee_id"]), "delivery", UUID(event["order_id"])) in shop.vault.keys
        assert KeyName(buyer.subject_id, "payment", UUID(event["order_id"])) in shop.vault.keys
        answer = (await buyer.get(f"/v1/orders/{event['order_id']}")).json()
        assert answer["gift"] is True
        assert answer["delivery"]["consignee"]["name"] == CANARY


async def test_placing_again_under_the_same_key_finds_the_order(shop: Shop) -> None:
    buyer, key = shop.buyer(), uuid4()
    first = await buyer.place(key)
    again = await buyer.place(key)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    assert await shop.types(first.json()["order_id"]) == ["OrderPlaced"]


@pytest.mark.fault(40, "one key, two orders")
async def test_the_same_key_with_another_purchase_is_refused(shop: Shop) -> None:
    """Not answered with the first order, as if that were what was bought."""
    buyer, key = shop.buyer(), uuid4()
    first = await buyer.place(key)
    other = {**a_purchase()["consignee"], "name": "Second Person"}
    for changes in ({"lines": [a_line(sku="KETTLE-5", quantity=5)]}, {"consignee": other}, {"gift": True}):
        reused = await buyer.place(key, **changes)
        assert reused.status_code == 422
        assert reused.json()["type"] == "/problems/key_reused"
    assert (await buyer.place(key)).json() == first.json()
    assert await shop.types(first.json()["order_id"]) == ["OrderPlaced"]
    assert len((await buyer.get("/v1/orders")).json()["items"]) == 1


@pytest.mark.fault(40, "one key, two orders at once")
async def test_of_two_purchases_at_once_under_one_key_one_is_placed(shop: Shop) -> None:
    buyer, key = shop.buyer(), uuid4()
    answers = await asyncio.gather(*(buyer.place(key, lines=[a_line(quantity=count)]) for count in range(1, 7)))
    assert sorted(answer.status_code for answer in answers) == [201] + [422] * 5
    assert await shop.types(str(buyer.order_id(key))) == ["OrderPlaced"]


async def test_the_digest_of_what_was_ordered_dies_with_the_records_key(shop: Shop) -> None:
    """It names the key, stands in the record's own row, and cannot be computed without the key."""
    buyer, key = shop.buyer(), uuid4()
    order_id = (await buyer.place(key)).json()["order_id"]
    row = await shop.kit.db.fetchrow("SELECT * FROM order_records WHERE order_id = $1", UUID(order_id))
    assert row is not None
    record_key = shop.vault.keys[KeyName(buyer.subject_id, "order_record", UUID(order_id))]
    digest = body_digest(record_key, Purchase.model_validate_json(json.dumps(a_purchase())))
    assert row["body_digest"] == digest == record_key.key_id.bytes + digest[16:]


@pytest.mark.fault(25, "an order is placed twice at once")
async def test_the_same_key_at_once_makes_one_order(shop: Shop) -> None:
    buyer, key = shop.buyer(), uuid4()
    order_id = buyer.order_id(key)
    answers = await asyncio.gather(*(buyer.place(key, gift=True) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    assert len({answer.text for answer in answers}) == 1
    assert await shop.types(str(order_id)) == ["OrderPlaced"]
    (event,) = [body for _, body in await shop.events(str(order_id))]
    rows = await shop.kit.db.fetch("SELECT consignee_id FROM order_deliveries WHERE order_id = $1", order_id)
    assert [str(row["consignee_id"]) for row in rows] == [event["consignee_id"]]


@pytest.mark.fault(16, "a buyer is erased between the sealing and the commit of orders that are written together")
async def test_of_orders_at_once_only_that_of_an_erased_buyer_is_refused(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    buyers = {uuid4(): shop.buyer() for _ in range(8)}
    orders = [buyer.order_id(key) for key, buyer in buyers.items()]
    gone, *living = orders
    ensure = shop.vault.ensure

    async def ensure_and_erase(wanted: Sequence[KeyName], index: Any = (), new: Any = None) -> list[Any]:
        keys = await ensure(wanted, index, new)
        named = [(key.key_id, name.subject) for key, name in zip(keys, wanted, strict=True) if name.anchor == gone]
        for key_id, subject in named:
            await shop.kit.db.fetch(
                "INSERT INTO kit.revoked_keys (key_id, subject_id, number) VALUES ($1, $2, 1)", key_id, subject
            )
        return keys

    monkeypatch.setattr(shop.vault, "ensure", ensure_and_erase)
    answers = await asyncio.gather(*(buyer.place(key) for key, buyer in buyers.items()))
    assert [answer.status_code for answer in answers] == [409] + [201] * len(living)
    assert [await shop.types(str(order_id)) for order_id in orders] == [[]] + [["OrderPlaced"]] * len(living)


@pytest.mark.attack("use another buyer's Idempotency-Key", expected="an order of one's own; the other stays as it is")
async def test_the_same_key_of_another_buyer_is_another_order(shop: Shop) -> None:
    key = uuid4()
    answers = [await shop.buyer().place(key) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    ids = [answer.json()["order_id"] for answer in answers]
    assert len({*ids, str(key)}) == 3
    assert [await shop.types(order_id) for order_id in ids] == [["OrderPlaced"]] * 2


@pytest.mark.fault(1, "a failure between seal and commit")
@pytest.mark.usefixtures("armed")
async def test_failing_between_seal_and_commit_leaves_no_order(shop: Shop) -> None:
    """And the retry with the same key places it."""
    buyer, key = shop.buyer(), uuid4()
    failed = await buyer.place(key)
    assert failed.status_code == 500
    assert CANARY not in failed.text
    for holding in HOLDINGS:
        assert await holding.count(shop.kit.db, buyer.subject_id) == 0
    assert await shop.events(str(buyer.order_id(key))) == []
    faults.arm({})
    assert (await buyer.place(key)).status_code == 201


async def test_only_the_buyer_sees_an_order(shop: Shop) -> None:
    """To others it reads like one that does not exist."""
    buyer, other = shop.buyer(), shop.buyer()
    path = f"/v1/orders/{await buyer.placed()}"
    nobody = (await other.get(f"/v1/orders/{uuid4()}")).text
    for answer in (
        await other.get(path),
        await other.get(f"{path}/confirmation"),
        await other.post(f"{path}/cancel"),
        await other.get(f"/v1/orders/{uuid4()}/confirmation"),
    ):
        assert (answer.status_code, answer.text) == (404, nobody)
    assert (await other.get("/v1/orders")).json() == {"items": []}
    assert (await shop.http.get(path)).status_code == 401
    assert await buyer.status(path.rpartition("/")[2]) == "placed"


async def test_an_order_reads_back_without_its_payment(shop: Shop) -> None:
    buyer = shop.buyer()
    order_id = await buyer.placed()
    calls = shop.vault.calls
    order = (await buyer.get(f"/v1/orders/{order_id}")).json()
    assert shop.vault.calls == calls + 1
    assert order["delivery"]["consignee"] == a_purchase()["consignee"]
    assert order["record"]["lines"] == [
        {"sku": "TEA-POT-1", "description": f"Tea pot of {CANARY}", "quantity": 2, "unit_price": 1999, "tax": 0}
    ]
    assert "tok_verified" not in json.dumps(order)
    confirmation = (await buyer.get(f"/v1/orders/{order_id}/confirmation")).json()
    assert confirmation["order_number"] == order["record"]["order_number"]
    assert (confirmation["total"], confirmation["lines"]) == (3998, order["record"]["lines"])


async def test_the_history_is_paged_newest_first(shop: Shop) -> None:
    """Every order once, one vault call a page."""
    buyer = shop.buyer()
    ids = [await buyer.placed() for _ in range(5)]
    await shop.buyer().placed()
    seen, path, pages = [], "/v1/orders?limit=2", 0
    while path:
        calls = shop.vault.calls
        page = (await buyer.get(path)).json()
        assert shop.vault.calls == calls + 1
        seen += [item["order_id"] for item in page["items"]]
        assert all(item["record"]["total"] == 3998 for item in page["items"])
        path, pages = f"/v1/orders?limit=2&cursor={page['next']}" if "next" in page else "", pages + 1
    assert seen == ids[::-1]
    assert pages == 3
    assert (await buyer.get("/v1/orders?limit=101")).status_code == 422
    assert (await buyer.get("/v1/orders?cursor=nonsense")).status_code == 422


@pytest.mark.parametrize("swept", [False, True], ids=["key_gone", "row_gone"])
@pytest.mark.fault(10, "an order with a part whose key is destroyed")
async def test_an_erased_part_says_so_and_the_order_lives_on(shop: Shop, swept: bool) -> None:
    """A consignee is erased without the buyer; the record can go as well; shipments still move the order."""
    buyer, key = shop.buyer(), uuid4()
    order_id = (await buyer.place(key, gift=True)).json()["order_id"]
    consignee_id = UUID((await shop.events(order_id))[0][1]["consignee_id"])
    await erase(shop, DELIVERIES, consignee_id, order_id, swept)
    order = (await buyer.get(f"/v1/orders/{order_id}")).json()
    assert order["delivery"] == {"erased": True}
    assert order["record"]["total"] == 3998
    await erase(shop, RECORDS, buyer.subject_id, order_id, swept)
    order = (await buyer.get(f"/v1/orders/{order_id}")).json()
    assert order["record"] == order["delivery"] == {"erased": True}
    assert (await buyer.get("/v1/orders")).json()["items"][0]["record"] == {"erased": True}
    confirmation = (await buyer.get(f"/v1/orders/{order_id}/confirmation")).json()
    assert confirmation["erased"] is True
    assert "order_number" not in confirmation
    again = await buyer.place(key, gift=True)
    assert (again.status_code, again.json()["type"]) == (410, "/problems/gone")
    await shop.receive(delivered(order_id))
    assert await buyer.status(order_id) == "delivered"


async def test_a_sweep_of_all_that_is_a_persons_leaves_the_order_to_end(shop: Shop) -> None:
    """The row of the order holds ids, a code and times, and the carrier's answers still need it."""
    buyer = shop.buyer()
    order_id = await buyer.placed()
    keys = [row["key_id"] for row in await shop.kit.db.fetch(KEYS_OF_TOKENS)]
    erasure = Erasure(uuid4(), buyer.subject_id, keys, is_final=True)
    for holding in HOLDINGS:
        await shop.kit.run_tx("erase", partial(holding.erase, erasures=[erasure]))
    assert (await buyer.get(f"/v1/orders/{order_id}")).json()["record"] == {"erased": True}
    assert await buyer.status(order_id) == "placed"


KEYS_OF_TOKENS = " UNION ALL ".join(
    f"SELECT encode(substring({column} FROM 2 FOR 16), 'hex')::uuid AS key_id FROM {holding.table}"
    for holding in HOLDINGS
    for column in holding.sealed
)


async def erase(shop: Shop, holding: Any, subject_id: UUID, order_id: str, swept: bool) -> None:
    (row,) = await shop.kit.db.fetch(f"SELECT * FROM {holding.table} WHERE {holding.subject} = $1", subject_id)
    keys = [opening.sealed.key_id for opening in holding.openings(row).values()]
    if swept:
        erasure = Erasure(uuid4(), subject_id, keys, is_final=False)
        assert await shop.kit.run_tx("erase", lambda tx: holding.erase(tx, [erasure])) == {subject_id: 1}
    else:
        shop.vault.erased.update(keys)


@pytest.mark.parametrize(
    "hostile",
    [
        {"lines": [a_line(description=f"card {CARD}")]},
        {"lines": [a_line(description="4111 1111 1111 1111")]},
        {"lines": [a_line(note={"deep": [{"er": "4111-1111-1111-1111"}]})]},
        {"payment": {"token": CARD}},
        {"lines": [a_line(unit_price=int(CARD))]},
        {"payment": {"token": "tok_verified_0001", CARD: True}},
    ],
    ids=["description", "blanks", "nested_unknown_field", "payment_token", "json_number", "member_name"],
)
async def test_a_card_number_is_refused_wherever_it_stands(shop: Shop, hostile: dict[str, Any]) -> None:
    """422 that names the place by position only; nothing is stored or sealed."""
    buyer, calls = shop.buyer(), shop.vault.calls
    answer = await buyer.place(**hostile)
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/card_number")
    assert "4111" not in answer.text
    assert shop.vault.calls == calls
    assert (await buyer.get("/v1/orders")).json() == {"items": []}


@pytest.mark.fault(28, "a malformed order")
@pytest.mark.parametrize(
    "wrong",
    [
        {"consignee": CANARY},
        {CANARY: CANARY},
        {"lines": [a_line(sku=CANARY + "x" * 64)]},
        {"lines": [a_line(**{CANARY: 1})]},
        {"currency": CANARY},
        {"service": CANARY},
        {"payment": {"token": CANARY}},
        {"lines": [a_line(quantity=999, unit_price=10**11)]},
    ],
)
async def test_problem_details_hold_no_input(shop: Shop, wrong: dict[str, Any]) -> None:
    answer = await shop.buyer().place(**wrong)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert "Canary" not in answer.text


async def test_nothing_personal_stands_in_clear(shop: Shop) -> None:
    """Every column of every row of one order, outbox included."""
    order_id = await shop.buyer().placed(gift=True)
    rows: Sequence[Any] = []
    for holding in HOLDINGS:
        rows = [*rows, *await shop.kit.db.fetch(f"SELECT * FROM {holding.table} WHERE order_id = $1", UUID(order_id))]
    rows = [*rows, *await shop.kit.db.fetch("SELECT * FROM kit.outbox WHERE key = $1", UUID(order_id))]
    assert len(rows) == 5
    for value in (value for row in rows for value in row.values()):
        clear = value if isinstance(value, bytes) else str(value).encode()
        for personal in (CANARY, "Łódź", "+48421234567", "tok_verified", order_number(UUID(order_id))):
            assert personal.encode() not in clear
