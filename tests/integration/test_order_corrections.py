"""Correcting the consignee of an order under way: the order service on a real Postgres."""

import asyncio
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.support.infra import postgres_server
from tests.support.orders import CANARY, Buyer, Shop, a_purchase, handed_over, order_dsns, order_keys, shop

__all__ = ["order_dsns", "order_keys", "postgres_server", "shop"]  # fixtures


async def correct(buyer: Buyer, order_id: str, **fields: Any) -> httpx.Response:
    consignee = a_purchase()["consignee"] | fields
    path = f"/v1/orders/{order_id}/consignee"
    return await buyer.shop.http.put(path, json=consignee, headers=buyer.headers)


async def test_a_corrected_consignee_is_shown_and_announced_with_its_number(shop: Shop) -> None:
    """R1: a new version, sealed; sending the same again makes none."""
    buyer = shop.buyer()
    order_id = await buyer.placed(gift=True)
    for _ in range(2):
        answer = await correct(buyer, order_id, city="Gdańsk")
        assert answer.status_code == 200, answer.text
        assert answer.json()["delivery"]["consignee"]["city"] == "Gdańsk"
    placed, (kind, event) = await shop.events(order_id)
    assert (kind, event["number"]) == ("DeliveryCorrected.v1", 2)
    assert event["consignee_id"] == placed[1]["consignee_id"] != str(buyer.subject_id)
    assert CANARY not in str(event)


@pytest.mark.fault(25, "two corrections at once")
async def test_corrections_at_the_same_time_have_numbers_of_their_own(shop: Shop) -> None:
    buyer = shop.buyer()
    order_id = await buyer.placed()
    answers = await asyncio.gather(*(correct(buyer, order_id, city=f"City {n}") for n in range(3)))
    done = sum(answer.status_code == 200 for answer in answers)
    assert {answer.status_code for answer in answers} <= {200, 409}
    numbers = [body["number"] for kind, body in await shop.events(order_id) if kind == "DeliveryCorrected.v1"]
    assert numbers == [*range(2, 2 + done)]
    assert done >= 1


async def test_an_order_that_was_handed_over_cannot_be_corrected(shop: Shop) -> None:
    buyer = shop.buyer()
    order_id = await buyer.placed()
    await shop.receive(handed_over(order_id))
    assert (await correct(buyer, order_id, city="Gdańsk")).status_code == 409
    assert await shop.types(order_id) == ["OrderPlaced", "OrderHandedOver"]


async def test_another_country_and_another_buyers_order_are_refused(shop: Shop) -> None:
    buyer = shop.buyer()
    order_id = await buyer.placed()
    assert (await correct(buyer, order_id, country="DE")).status_code == 422
    assert (await correct(shop.buyer(), order_id, city="Gdańsk")).status_code == 404
    assert (await correct(buyer, str(uuid4()), city="Gdańsk")).status_code == 404
    assert await shop.types(order_id) == ["OrderPlaced"]


async def test_an_erased_delivery_cannot_be_corrected(shop: Shop) -> None:
    buyer = shop.buyer()
    order_id = await buyer.placed()
    shop.vault.erased |= {key.key_id for name, key in shop.vault.keys.items() if name.data_class == "delivery"}
    assert (await correct(buyer, order_id, city="Gdańsk")).status_code == 409
