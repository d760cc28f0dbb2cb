"""The rules of orders: what a buyer may state, how it is split, which way an order goes."""

import json
import re
from collections.abc import Sequence
from datetime import date
from itertools import permutations
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from event_contracts.codes import MAX_MINOR
from order_service.domain import (
    BEFORE,
    PARCEL_GRAMS,
    Parts,
    Status,
    cancels,
    missing_customs,
    order_number,
    split_purchase,
)
from order_service.purchases import MAX_PARCELS, Purchase
from servicekit.core.errors import Conflict, Invalid, InvalidFields

ORDER_ID = UUID("2b0e4c1a-0a53-4c5e-9a61-7d1f3f6f1c11")
ROOT = Path(__file__).parents[2]
TODAY = date(2026, 12, 1)
PARCEL = {"weight_g": 900, "length_cm": 30, "width_cm": 20, "height_cm": 10}


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


def split(**fields: Any) -> Parts:
    return split_purchase(ORDER_ID, Purchase.model_validate(purchase(**fields)), TODAY)


def refused(**fields: Any) -> list[str]:
    """Where the amounts of such a purchase do not fit together."""
    with pytest.raises(InvalidFields) as problems:
        split(**fields)
    assert all(problem.expected for problem in problems.value.fields)
    return [problem.at for problem in problems.value.fields]


def test_an_order_number_follows_from_the_id_and_reads_well() -> None:
    """The same for ever; ten characters without I, L, O, U."""
    assert order_number(ORDER_ID) == order_number(UUID(str(ORDER_ID)))
    numbers = {order_number(uuid4()) for _ in range(2_000)}
    assert len(numbers) == 2_000
    assert {len(number) for number in numbers} == {11}
    assert set("".join(numbers)) == set("0123456789ABCDEFGHJKMNPQRSTVWXYZ-")
    assert ORDER_ID.hex[:5].upper() not in order_number(ORDER_ID)


def test_delivery_holds_neither_sku_nor_payment_and_the_record_no_consignee() -> None:
    parts = split(lines=[line(), line(sku="CUP-2", quantity=3)])
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
        parcels = split_purchase(ORDER_ID, body, TODAY).delivery.parcels
    except Invalid:
        assert sum(weights) * 1.1 > MAX_PARCELS * PARCEL_GRAMS
        return
    assert 1 <= len(parcels) <= MAX_PARCELS
    assert sum(weights) < sum(parcel.weight_g for parcel in parcels)
    assert all(parcel.weight_g <= PARCEL_GRAMS for parcel in parcels)
    assert all(p.length_cm * p.width_cm * p.height_cm >= 5 * p.weight_g for p in parcels)


def test_stated_parcels_are_taken_as_they_are() -> None:
    delivery = split(parcels=[PARCEL]).delivery
    assert [dict(each) for each in delivery.parcels] == [PARCEL]


def test_a_sum_beyond_the_contract_is_refused() -> None:
    body = Purchase.model_validate(purchase(lines=[line(quantity=2, unit_price=MAX_MINOR)]))
    with pytest.raises(Invalid, match="total"):
        split_purchase(ORDER_ID, body, TODAY)


@given(
    prices=st.lists(st.tuples(st.integers(1, 99), st.integers(0, 10**6)), min_size=1, max_size=5),
    shipping=st.integers(0, 10**5),
    discount=st.integers(0, 10**5),
    tax=st.integers(0, 10**5),
    included=st.booleans(),
)
def test_a_total_is_lines_and_shipping_less_the_discount_and_with_the_tax_that_no_price_contains(
    prices: list[tuple[int, int]], shipping: int, discount: int, tax: int, included: bool
) -> None:
    lines = [line(quantity=quantity, unit_price=price) for quantity, price in prices]
    costs = sum(quantity * price for quantity, price in prices) + shipping + (0 if included else tax)
    fields = {"shipping": shipping, "discount": discount, "tax": tax, "tax_included": included, "lines": lines}
    if discount > costs:
        assert refused(**fields) == ["discount"]
    elif included and tax > costs - discount:
        assert refused(**fields) == ["tax"]
    else:
        record = split(**fields, total=costs - discount).record
        assert (record.total, record.shipping, record.discount) == (costs - discount, shipping, discount)
        assert (record.tax, record.tax_included) == (tax, included)
        assert refused(**fields, total=costs - discount + 1) == ["total"]


def test_the_tax_of_an_order_is_that_of_its_lines_unless_it_is_stated() -> None:
    lines = [line(tax=638), line(tax=100)]
    assert split(lines=lines).record.tax == 738
    assert split(lines=lines, tax=700).record.tax == 700
    assert [each.tax for each in split(lines=lines).record.lines] == [638, 100]


def test_the_example_order_of_the_documents_is_a_purchase_with_the_total_that_it_states() -> None:
    text = (ROOT / "docs/storefront.md").read_text()
    example = re.search(r"## Placing an order.*?```json\n(.*?)```", text, re.DOTALL)
    assert example is not None
    body = json.loads(example[1])
    record = split_purchase(ORDER_ID, Purchase.model_validate(body), TODAY).record
    assert record.total == body["total"] == 2 * 1999 + 3450 + 490 - 500


@pytest.mark.parametrize("sku", ["a", "tee-0815/blau (XL)", "4011160109362", "ΑΒΓ 12", "x" * 64, "B&Q_7,5 mm²"])
def test_a_sku_is_spelled_as_the_shop_does(sku: str) -> None:
    assert split(lines=[line(sku=sku)]).record.lines[0].sku == sku


def test_an_order_without_customs_data_declares_nothing_and_needs_its_parcels() -> None:
    bare = line(net_weight_g=None, origin_country=None, hs_code=None)
    delivery = split(lines=[bare], parcels=[PARCEL]).delivery
    assert (delivery.customs, len(delivery.parcels)) == ((), 1)
    assert refused(lines=[bare]) == ["parcels"]


@pytest.mark.parametrize("name", ["net_weight_g", "origin_country", "hs_code"])
def test_customs_gets_all_lines_or_none_and_what_is_missing_has_its_place(name: str) -> None:
    lines = [line(), line(**{name: None})]
    assert split(lines=lines, parcels=[PARCEL]).delivery.customs == ()
    assert list(missing_customs(Purchase.model_validate(purchase(lines=lines)))) == [f"lines.1.{name}"]
    assert list(missing_customs(Purchase.model_validate(purchase()))) == []


def test_the_invoice_has_the_orders_number_and_day_unless_it_is_stated() -> None:
    invoice = split().delivery.invoice
    assert invoice is not None
    assert (invoice.number, invoice.issued_on) == (order_number(ORDER_ID), TODAY)
    shops = split(shop_order_number="#1001").delivery.invoice
    assert shops is not None
    assert shops.number == "#1001"
    stated = split(invoice={"number": "R-2026/77", "issued_on": "2026-11-28"}).delivery.invoice
    assert stated is not None
    assert (stated.number, stated.issued_on) == ("R-2026/77", date(2026, 11, 28))


@pytest.mark.parametrize(
    ("stated", "kept"),
    [
        ({"vat": "de 136 695 976"}, ("DE136695976", None, None)),
        ({"vat": "CHE-116.281.710 MWST"}, ("CHE116281710MWST", None, None)),
        ({"vat": "IE8+49289F"}, ("IE8+49289F", None, None)),
        ({"eori": "GB 205672212000", "tax_id": "529.982.247-25"}, (None, "GB205672212000", "529.982.247-25")),
        ({"tax_id": "12-3456789"}, (None, None, "12-3456789")),
    ],
)
def test_a_registration_is_kept_in_capitals_without_blanks(
    stated: dict[str, Any], kept: tuple[str | None, ...]
) -> None:
    registration = split(registration=stated).registration
    assert registration is not None
    assert (registration.vat, registration.eori, registration.tax_id) == kept


def test_an_empty_registration_is_none() -> None:
    assert split(registration={}).registration is split().registration is None


@pytest.mark.parametrize(
    "changes",
    [
        {"registration": {"vat": "136695976"}},
        {"registration": {"vat": "DE"}},
        {"registration": {"eori": "GB1234567890123456"}},
        {"registration": {"tax_id": "--"}},
        {"registration": {"passport": "C01X00T47"}},
        {"shop_order_number": " - "},
        {"shop_order_number": "x" * 65},
        {"invoice": {"number": "1", "issued_on": 1764547200}},
        {"invoice": {"number": "1", "issued_on": "2026-13-01"}},
        {"invoice": {"number": "1", "issued_on": "1899-12-31"}},
        {"invoice": {"number": "1"}},
        {"shipping": -1},
        {"discount": -1},
        {"tax": 1.5},
        {"lines": [line(tax=-1)]},
        {"lines": [line(sku="x" * 65)]},
        {"lines": [line(sku=" ")]},
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
