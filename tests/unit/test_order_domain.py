"""The rules of orders: what a buyer may state, how it is split, which way an order goes."""

from collections.abc import Sequence
from itertools import permutations
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from event_contracts.codes import MAX_MINOR
from order_service.domain import (
    BEFORE,
    MAX_PARCELS,
    PARCEL_GRAMS,
    Purchase,
    Status,
    cancels,
    order_number,
    split_purchase,
)
from servicekit.errors import Conflict, Invalid

ORDER_ID = UUID("2b0e4c1a-0a53-4c5e-9a61-7d1f3f6f1c11")


def line(**fields: Any) -> dict[str, Any]:
    return {
        "sku": "TEA-POT-1",
        "description": "Tea pot",
        "quantity": 2,
        "unit_price": 1999,
        "net_weight_g": 1500,
        "origin_country": "JP",
        "hs_code": "691110",
    } | fields


def purchase(**fields: Any) -> dict[str, Any]:
    consignee = {
        "name": "Zoë Canary",
        "lines": ["Canary Wharf 1"],
        "city": "London",
        "postal_code": "E14 5AB",
        "country": "GB",
        "phone": "+442071234567",
    }
    return {
        "lines": [line()],
        "currency": "EUR",
        "consignee": consignee,
        "gift": False,
        "service": "standard",
        "payment": {"token": "tok_canary_0001"},
    } | fields


def test_an_order_number_follows_from_the_id_and_reads_well() -> None:
    """The same for ever; ten characters without I, L, O, U."""
    assert order_number(ORDER_ID) == order_number(UUID(str(ORDER_ID)))
    numbers = {order_number(uuid4()) for _ in range(2_000)}
    assert len(numbers) == 2_000
    assert {len(number) for number in numbers} == {11}
    assert set("".join(numbers)) == set("0123456789ABCDEFGHJKMNPQRSTVWXYZ-")
    assert ORDER_ID.hex[:5].upper() not in order_number(ORDER_ID)


def test_delivery_holds_neither_sku_nor_payment_and_the_record_no_consignee() -> None:
    parts = split_purchase(ORDER_ID, Purchase.model_validate(purchase(lines=[line(), line(sku="CUP-2", quantity=3)])))
    delivery, record = parts.delivery.model_dump_json(), parts.record.model_dump_json()
    assert "TEA-POT-1" not in delivery
    assert "tok_canary" not in delivery + record
    assert "Canary" not in record
    assert [(c.quantity, c.value, c.currency) for c in parts.delivery.customs] == [(2, 3998, "EUR"), (3, 5997, "EUR")]
    assert parts.record.total == 9995
    assert parts.record.order_number == order_number(ORDER_ID)


@given(weights=st.lists(st.integers(1, 1_000_000), min_size=1, max_size=100))
def test_parcels_follow_from_the_lines(weights: list[int]) -> None:
    """Together they weigh at least what the goods do, none is too heavy, and they hold the goods."""
    body = Purchase.model_validate(purchase(lines=[line(net_weight_g=weight) for weight in weights]))
    try:
        parcels = split_purchase(ORDER_ID, body).delivery.parcels
    except Invalid:
        assert sum(weights) * 1.1 > MAX_PARCELS * PARCEL_GRAMS
        return
    assert 1 <= len(parcels) <= MAX_PARCELS
    assert sum(weights) < sum(parcel.weight_g for parcel in parcels)
    assert all(parcel.weight_g <= PARCEL_GRAMS for parcel in parcels)
    assert all(p.length_cm * p.width_cm * p.height_cm >= 5 * p.weight_g for p in parcels)


def test_stated_parcels_are_taken_as_they_are() -> None:
    parcel = {"weight_g": 900, "length_cm": 30, "width_cm": 20, "height_cm": 10}
    delivery = split_purchase(ORDER_ID, Purchase.model_validate(purchase(parcels=[parcel]))).delivery
    assert [dict(each) for each in delivery.parcels] == [parcel]


def test_a_sum_beyond_the_contract_is_refused() -> None:
    body = Purchase.model_validate(purchase(lines=[line(quantity=2, unit_price=MAX_MINOR)]))
    with pytest.raises(Invalid, match="total"):
        split_purchase(ORDER_ID, body)


@pytest.mark.parametrize(
    "changes",
    [
        {"comment": "please ring"},
        {"gift": "yes"},
        {"lines": []},
        {"lines": [line(quantity="2")]},
        {"lines": [line(unit_price=19.99)]},
        {"lines": [line(quantity=True)]},
        {"lines": [line(colour="red")]},
        {"lines": [line()] * 101},
        {"currency": "eur"},
        {"service": "drone"},
        {"payment": {"token": "short"}},
        {"payment": {"token": "tok_canary_0001", "cvc": "123"}},
        {"parcels": []},
    ],
)
def test_what_is_not_exactly_a_purchase_is_refused(changes: dict[str, Any]) -> None:
    """Nothing is converted, nothing unknown is let through, and the error shows no input."""
    with pytest.raises(ValidationError) as refused:
        Purchase.model_validate(purchase(**changes))
    assert "Canary" not in str(refused.value)


def test_a_purchase_shows_no_content() -> None:
    body = Purchase.model_validate(purchase())
    assert "Canary" not in f"{body!r} {body} {body.consignee!r} {body.lines!r}"


def after(events: Sequence[Status]) -> Status:
    status = Status.PLACED
    for onto in events:
        status = onto if status in BEFORE[onto] else status
    return status


@pytest.mark.fault(6, "an order's events in any order")
@pytest.mark.parametrize("events", list(permutations([Status.CONFIRMED, Status.HANDED_OVER, Status.DELIVERED])))
def test_an_order_gets_to_delivered_in_whatever_order_its_events_come(events: Sequence[Status]) -> None:
    assert after(events) is Status.DELIVERED
    assert after([*events, *events]) is Status.DELIVERED


@pytest.mark.parametrize("late", [Status.CONFIRMED, Status.HANDED_OVER, Status.DELIVERED])
def test_a_cancelled_order_stays_cancelled(late: Status) -> None:
    assert after([Status.CANCELLED, late]) is Status.CANCELLED


def test_cancelling_is_possible_until_the_carrier_has_the_parcel() -> None:
    assert cancels(Status.PLACED)
    assert cancels(Status.CONFIRMED)
    assert not cancels(Status.CANCELLED)
    for status in (Status.HANDED_OVER, Status.DELIVERED):
        with pytest.raises(Conflict):
            cancels(status)
