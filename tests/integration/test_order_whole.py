"""A shop's whole order: its own number, shipping, discount, tax, invoice and the consignee's registrations."""

import json
from typing import Any
from uuid import UUID, uuid4

import pytest

from order_service.domain import order_number
from order_service.holdings import REGISTRATIONS
from servicekit.participant.holdings import Erasure
from servicekit.vault.leases import KeyName
from tests.support.infra import postgres_server
from tests.support.orders import Shop, a_line, delivered, order_dsns, order_keys, shop

__all__ = ["order_dsns", "order_keys", "postgres_server", "shop"]  # fixtures

WHOLE: dict[str, Any] = {
    "shop_order_number": "#2026/0042",
    "lines": [a_line(sku="tee-0815/blau (XL)", tax=638), a_line(quantity=1, unit_price=500, tax=80)],
    "shipping": 490,
    "discount": 300,
    "total": 4688,
    "tax": 750,
    "invoice": {"number": "R-77", "issued_on": "2026-11-28"},
    "registration": {"vat": "PL 5260250995", "eori": "PL526025099500000"},
}


async def test_a_whole_order_is_shown_as_it_was_placed(shop: Shop) -> None:
    """In the answer, in the confirmation, in the list and in the order itself; the numbers are sealed for the consignee."""
    buyer, key = shop.buyer(), uuid4()
    answer = await buyer.place(key, gift=True, **WHOLE)
    assert answer.status_code == 201, answer.text
    order_id = answer.json()["order_id"]
    told = {
        "shop_order_number": "#2026/0042", "order_number": order_number(UUID(order_id)), "shipping": 490,
        "discount": 300, "tax": 750, "tax_included": True, "total": 4688, "currency": "EUR",
    }  # fmt: skip
    detail = (await buyer.get(f"/v1/orders/{order_id}")).json()
    (listed,) = (await buyer.get("/v1/orders")).json()["items"]
    confirmation = (await buyer.get(f"/v1/orders/{order_id}/confirmation")).json()
    for shown in (answer.json(), confirmation, detail["record"], listed["record"]):
        assert {name: shown[name] for name in told} == told
        assert [(each["sku"], each["tax"]) for each in shown["lines"]] == [
            ("tee-0815/blau (XL)", 638),
            ("TEA-POT-1", 80),
        ]
    assert detail["delivery"]["invoice"] == WHOLE["invoice"]
    assert detail["registration"] == {"vat": "PL5260250995", "eori": "PL526025099500000"}
    ((_, event),) = await shop.events(order_id)
    assert KeyName(UUID(event["consignee_id"]), "registration", UUID(order_id)) in shop.vault.keys
    assert "5260250995" not in json.dumps(event)
    again = await buyer.place(key, gift=True, **WHOLE)
    assert (again.status_code, again.json()) == (200, answer.json())
    other = await buyer.place(key, gift=True, **WHOLE | {"registration": {"vat": "PL1234567890"}})
    assert (other.status_code, other.json()["type"]) == (422, "/problems/key_reused")


async def test_an_order_is_found_by_the_shops_own_number_too(shop: Shop) -> None:
    buyer = shop.buyer()
    order_id = await buyer.placed(shop_order_number="#2026/0042")
    digest = await shop.kit.digest("shop_order_number", "2026-0042")
    assert (KeyName(buyer.subject_id, "order_record", UUID(order_id)), "shop_order_number", digest) in shop.vault.index


async def test_erasing_a_consignee_takes_their_registration(shop: Shop) -> None:
    buyer = shop.buyer()
    order_id = await buyer.placed(**WHOLE)
    await shop.receive(delivered(order_id))
    assert await REGISTRATIONS.count(shop.kit.db, buyer.subject_id) == 1
    key_id = shop.vault.keys[KeyName(buyer.subject_id, "registration", UUID(order_id))].key_id
    gone = Erasure(uuid4(), buyer.subject_id, [key_id], is_final=False)
    await shop.kit.run_tx("erase", lambda tx: REGISTRATIONS.erase(tx, [gone]))
    assert await REGISTRATIONS.count(shop.kit.db, buyer.subject_id) == 0
    assert "registration" not in (await buyer.get(f"/v1/orders/{order_id}")).json()


@pytest.mark.parametrize(
    ("wrong", "at"),
    [
        ({"discount": 10**6}, "discount"),
        ({"total": 1}, "total"),
        ({"tax": 10**6}, "tax"),
        ({"registration": {"vat": "12345"}}, "registration.vat"),
        ({"lines": [a_line(net_weight_g=None)]}, "parcels"),
    ],
)
async def test_what_does_not_fit_is_refused_with_its_field_and_what_is_expected(
    shop: Shop, wrong: dict[str, Any], at: str
) -> None:
    answer = await shop.buyer().place(**wrong)
    assert answer.status_code == 422
    (problem,) = answer.json()["errors"]
    assert (problem["at"], bool(problem["expected"])) == (at, True)


@pytest.mark.parametrize("number", ["4011160109362", "96385074", "036000291452", "30012345600128"])
async def test_a_products_number_is_no_card_number(shop: Shop, number: str) -> None:
    """As the SKU, and in the words that describe it."""
    answer = await shop.buyer().place(lines=[a_line(sku=number, description=f"Tea pot EAN {number}")])
    assert answer.status_code == 201, answer.text
