"""An order that no lane takes is refused before it is stored, with each field that does not fit in the caller's own words."""

from typing import Any
from uuid import uuid4

import pytest

from tests.support.infra import postgres_server
from tests.support.orders import CANARY, Shop, a_line, a_purchase, order_dsns, order_keys, shop

__all__ = ["order_dsns", "order_keys", "postgres_server", "shop"]  # fixtures


def a_consignee(**fields: Any) -> dict[str, Any]:
    """In the Netherlands, where the lane for standard parcels sends no phone and needs no customs data."""
    return {
        "name": CANARY,
        "lines": ["Damrak 1"],
        "city": "Amsterdam",
        "postal_code": "1012 LG",
        "country": "NL",
    } | fields


def to(**fields: Any) -> dict[str, Any]:
    return a_purchase(consignee=a_consignee(**fields), service="standard")


US = {"country": "US", "city": "San Jose", "state": "California", "postal_code": "95113", "phone": "(408) 555-0117"}
CEUTA = {"country": "ES", "city": "Ceuta", "postal_code": "51001", "phone": "956 51 20 00"}
VENEZUELA = {
    "country": "VE",
    "city": "Caracas",
    "state": "Distrito Capital",
    "postal_code": "1010",
    "phone": "+582125550123",
}


@pytest.mark.parametrize(
    ("purchase", "problem", "at", "code"),
    [
        (to(**VENEZUELA), "no_lane", "consignee.country", "no_lane"),
        (to(lines=["x" * 36]), "invalid", "consignee.lines", "too_long.consignee.lines"),
        (to(lines=["word " * 30] * 3), "invalid", "consignee.lines", "too_long.consignee.lines"),
        (to(city="x" * 36), "invalid", "consignee.city", "too_long.consignee.city"),
        (to(company="x" * 36), "invalid", "consignee.company", "too_long.consignee.company"),
        (to(**US | {"phone": None}), "invalid", "consignee.phone", "missing.consignee.phone"),
        (to() | {"service": "express"}, "invalid", "consignee.phone", "missing.consignee.phone"),
        (to(**US) | {"lines": [a_line(), a_line(hs_code=None)]}, "invalid", "lines.1.hs_code", "missing.customs"),
        (
            to(**CEUTA) | {"lines": [a_line(origin_country=None)]},
            "invalid",
            "lines.0.origin_country",
            "missing.customs",
        ),
        (to(**US) | {"lines": [a_line(unit_price=0)]}, "invalid", "lines.0.unit_price", "too_small.customs.value"),
        (
            to() | {"parcels": [{"weight_g": 31_501, "length_cm": 30, "width_cm": 20, "height_cm": 10}]},
            "invalid",
            "parcels.0.weight_g",
            "too_large.parcels.weight_g",
        ),
    ],
)
async def test_what_no_lane_takes_is_refused_with_its_field(
    shop: Shop, purchase: dict[str, Any], problem: str, at: str, code: str
) -> None:
    buyer = shop.buyer()
    answer = await buyer.post("/v1/orders", purchase)
    assert (answer.status_code, answer.json()["type"]) == (422, f"/problems/{problem}")
    errors = answer.json()["errors"]
    assert [(each["at"], each["code"]) for each in errors] == [(at, code)]
    assert errors[0]["expected"]
    assert CANARY not in answer.text
    quoted = await buyer.post("/v1/quotes", purchase)
    assert (quoted.status_code, quoted.json()["problems"]) == (200, errors)
    assert (await buyer.get("/v1/orders")).json()["items"] == []
    assert shop.vault.calls == 0


@pytest.mark.parametrize(
    ("consignee", "lane"),
    [
        ({"lines": ["Eerste Jan van der Heijdenstraat 157 H"], "postal_code": "1072 TB"}, "meridian-eu-standard"),
        (
            {
                "lines": ["Residencial Las Palmeras del Mediterraneo 12, Portal 3, 4B"],
                "country": "ES",
                "postal_code": "03001",
            },
            "meridian-eu-standard",
        ),
        ({"name": "X"}, "meridian-eu-standard"),
        ({"name": "Ἀλεξάνδρα " * 10}, "meridian-eu-standard"),
        (
            {
                "lines": ["Flat 3A, 14 Science Museum Rd"],
                "city": "Hong Kong",
                "postal_code": None,
                "country": "HK",
                "phone": "+85221234567",
            },
            "pacifica-standard",
        ),
        (US, "meridian-world-standard"),
        (CEUTA, "meridian-world-standard"),
        (
            {"country": "DE", "postal_code": "78266", "city": "Büsingen", "phone": "07734 12345"},
            "meridian-world-standard",
        ),
        ({"country": "GB", "postal_code": "BT1 1AA", "city": "Belfast"}, "meridian-eu-standard"),
    ],
)
async def test_what_a_lane_takes_is_accepted(shop: Shop, consignee: dict[str, Any], lane: str) -> None:
    buyer = shop.buyer()
    quoted = (await buyer.post("/v1/quotes", to(**consignee))).json()
    assert (quoted["lane"], quoted["problems"]) == (lane, [])
    assert ("consignee.phone" in quoted["fields"]) == (lane != "meridian-eu-standard")
    assert ("lines.hs_code" in quoted["fields"]) == (lane != "meridian-eu-standard")
    answer = await buyer.post("/v1/orders", to(**consignee))
    assert answer.status_code == 201, answer.text


@pytest.mark.parametrize(
    ("change", "at"),
    [
        (to(country="XX"), "consignee.country"),
        (to(postal_code="9" * 150), "consignee.postal_code"),
        (to() | {"currency": "XXX"}, "currency"),
        (to() | {"lines": [a_line(origin_country="ZZ")]}, "lines.0.origin_country"),
    ],
)
async def test_a_code_that_no_list_has_is_refused(shop: Shop, change: dict[str, Any], at: str) -> None:
    buyer = shop.buyer()
    for path in ("/v1/orders", "/v1/quotes"):
        answer = await buyer.post(path, change)
        assert answer.status_code == 422
        assert [each["at"] for each in answer.json()["errors"]] == [at]
        assert answer.json()["errors"][0]["expected"]


async def test_a_quote_needs_no_payment_and_a_token(shop: Shop) -> None:
    asked = {name: value for name, value in to().items() if name != "payment"}
    answer = await shop.buyer().post("/v1/quotes", asked)
    assert answer.json() == {
        "lane": "meridian-eu-standard",
        "carrier": "meridian",
        "fields": [
            *("consignee.name", "consignee.city", "consignee.country", "parcels", "consignee.lines"),
            "consignee.postal_code",
        ],
        "problems": [],
    }
    assert (await shop.http.post("/v1/quotes", json=asked)).status_code == 401


async def test_a_correction_that_does_not_fit_is_refused(shop: Shop) -> None:
    buyer = shop.buyer()
    order_id = (await buyer.post("/v1/orders", to())).json()["order_id"]
    path = f"/v1/orders/{order_id}/consignee"
    answer = await shop.http.put(path, json=a_consignee(lines=["x" * 36]), headers=buyer.headers)
    assert answer.status_code == 422
    assert [(e["at"], e["code"]) for e in answer.json()["errors"]] == [("lines", "too_long.consignee.lines")]
    assert (await shop.http.put(path, json=a_consignee(city="Utrecht"), headers=buyer.headers)).status_code == 200


async def test_a_correction_cannot_move_an_order_without_customs_data_across_the_border(shop: Shop) -> None:
    buyer = shop.buyer()
    madrid = {"country": "ES", "city": "Madrid", "postal_code": "28001", "phone": "914 12 34 56"}
    bare = to(**madrid) | {"lines": [a_line(hs_code=None)]}
    order_id = (await buyer.post("/v1/orders", bare)).json()["order_id"]
    answer = await shop.http.put(f"/v1/orders/{order_id}/consignee", json=a_consignee(**CEUTA), headers=buyer.headers)
    assert answer.status_code == 422
    assert [(e["at"], e["code"]) for e in answer.json()["errors"]] == [("postal_code", "missing.customs")]


async def test_a_retry_of_an_accepted_order_is_not_checked_again(shop: Shop) -> None:
    """What was accepted stays accepted, whatever the lanes are later."""
    buyer, key = shop.buyer(), uuid4()
    first = await buyer.place(key)
    object.__setattr__(shop.kit.own, "routes", None)
    again = await buyer.place(key)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
