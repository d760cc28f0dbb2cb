"""Amounts and weights per piece: exact to the minor unit and to the gram when they are multiplied again."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from country_data.currencies import decimals
from event_contracts.codes import MAX_MINOR
from lanes.amounts import kilograms, one_currency, piece_kilograms, piece_value, total_value
from lanes.refusal import CannotShip

QUANTITIES = st.integers(1, 999)
CURRENCIES = st.sampled_from(["EUR", "JPY", "KWD", "CLF"])


def a_line(quantity: int, currency: str = "EUR") -> Any:
    return SimpleNamespace(quantity=quantity, currency=currency)


def test_an_amount_of_no_currency_is_not_guessed() -> None:
    for currency in ("ZZZ", "XXX"):
        with pytest.raises(CannotShip, match=r"^unknown\.customs\.currency$"):
            piece_value(1000, a_line(1, currency))


def test_the_line_of_the_documents() -> None:
    line = a_line(3, "USD")
    assert (piece_value(3000, line), piece_kilograms(1500, line), total_value([3000], [line])) == (10.0, 0.5, 30.0)


@given(st.integers(1, 10**8), QUANTITIES, CURRENCIES)
def test_a_piece_times_its_quantity_is_the_line_to_the_minor_unit(price: int, quantity: int, currency: str) -> None:
    value = piece_value(price * quantity, a_line(quantity, currency))
    assert value == (price / 10 ** decimals(currency))


@given(st.integers(1, MAX_MINOR), QUANTITIES, CURRENCIES)
def test_a_value_that_cannot_be_divided_adds_up_all_the_same(total: int, quantity: int, currency: str) -> None:
    places = decimals(currency)
    assert round(piece_value(total, a_line(quantity, currency)) * quantity * 10**places) == total


@given(st.integers(1, 1_000_000), QUANTITIES)
def test_weights_add_up_to_the_gram(grams: int, quantity: int) -> None:
    assert round(piece_kilograms(grams, a_line(quantity)) * quantity * 1000) == grams
    assert round(kilograms(grams, None) * 1000) == grams


def test_a_line_for_nothing_cannot_be_declared() -> None:
    with pytest.raises(CannotShip, match=r"^zero\.customs\.value$"):
        piece_value(0, a_line(1))


def test_several_currencies_have_no_sum() -> None:
    lines = [a_line(1, "EUR"), a_line(1, "USD")]
    for refused in (lambda: one_currency(["EUR", "USD"], lines), lambda: total_value([1, 1], lines)):
        with pytest.raises(CannotShip, match=r"^mixed\.customs\.currency$"):
            refused()
