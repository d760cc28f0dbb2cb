"""Card numbers are refused in whatever disguise; phones, ids, times and amounts are not."""

import json
import random
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit.http.cards import PRODUCT_FIELDS, Found, find_card_in_body, has_card
from tests.support.budgets import assert_linear

VISA = "4111111111111111"
# Published test numbers of the issuers, plus a 19-digit Visa.
CARDS = [
    VISA,
    "4000000000000000006",
    "5555555555554444",
    "2223003122003222",
    "378282246310005",
    "6011111111111117",
    "30569309025904",
    "36227206271667",
    "3566002020360505",
    "6200000000000005",
    "2200000000000004",
]


@pytest.mark.parametrize("card", CARDS)
def test_issuers_cards_are_found(card: str) -> None:
    assert has_card(card)
    assert has_card(f"my card {card}, thanks")


@pytest.mark.parametrize(
    "separator", [" ", "-", ".", "\u2009", "\u00a0", "\u2013", "\u200b", "/", " - ", "_", "\u00ad", ","]
)
def test_split_numbers_are_found(separator: str) -> None:
    assert has_card(separator.join(VISA[i : i + 4] for i in range(0, 16, 4)))
    assert has_card(separator.join(VISA))


@pytest.mark.parametrize("zero", ["\uff10", "\u0660", "\u06f0", "\u0966", "\u0e50", "\U0001d7d8"])
def test_digits_of_every_script_are_found(zero: str) -> None:
    assert has_card("".join(chr(ord(zero) + int(digit)) for digit in VISA))


def test_circled_and_keycap_digits_are_found() -> None:
    assert has_card("".join(chr(0x2460 + int(digit) - 1) for digit in VISA))
    assert has_card("".join(digit + "\ufe0f\u20e3" for digit in VISA))


@pytest.mark.parametrize(
    "body",
    [
        f'{{"a": [{{"b": {VISA}}}]}}',
        f'{{"a": {VISA}.0}}',
        '{"a": 4.111111111111111e15}',
        f'{{"{VISA}": 1}}',
        f'{{"token": "{VISA}", "token": "safe"}}',
        f"not json {VISA}",
        f'{{"token": "{VISA}"',
        f'"\\u0034{VISA[1:]}"',
    ],
)
def test_found_in_values_numbers_keys_duplicates_and_broken_json(body: str) -> None:
    assert find_card_in_body(body.encode()) is not None


def test_place_is_named_by_position_only() -> None:
    body = json.dumps({"x": 1, "Jane": [0, {"secret": VISA}]}).encode()
    assert find_card_in_body(body) == Found((1, 1, 0), in_key=False)
    assert find_card_in_body(json.dumps({"x": {VISA: 1}}).encode()) == Found((0, 0), in_key=True)


@pytest.mark.parametrize(
    "text",
    [
        "4222222222222",  # no cards of 13 digits are issued any more
        "4011160109362",  # an EAN
        "+4222222222222",
        "+42 2222 2222 222",
        "4111111111111112",  # wrong check digit
        "1111111111111117",  # no issuer
        "2026-01-02T03:04:05.123456+00:00",
        "411111111111",
        "Ｔｏｋｙｏ 1-2-3 #405",
        "〒123-4567 東京都 4-12-34",
        "tok_a4111b1111c1111d1111",
    ],
)
def test_other_numbers_pass(text: str) -> None:
    assert not has_card(text)


def gtin(digits: str) -> str:
    """With its check digit (GS1 General Specifications, 7.9)."""
    odd, even = digits[::-2], digits[-2::-2]
    return digits + str(-(3 * sum(map(int, odd)) + sum(map(int, even))) % 10)


# Beginnings of numbers that some card has too: Visa, Maestro, Diners Club, and what is bought in a shop.
_PREFIXES = ["401", "4", "5018", "57", "6304", "300", "36", "38", "3095", "0", "1", "97"]


@given(
    prefix=st.sampled_from(_PREFIXES),
    rest=st.text("0123456789", min_size=13, max_size=13),
    length=st.sampled_from([8, 12, 13, 14]),
    text=st.sampled_from(
        ["{}", "/p/{}", "/p/{}/reviews/2", "sku={}-XL", "EAN {} blau", "{0} {0}", "/de/{}?ref=12345678901"]
    ),
    field=st.sampled_from(sorted(PRODUCT_FIELDS)),
)
def test_no_gtin_is_a_card_where_a_product_is_named(prefix: str, rest: str, length: int, text: str, field: str) -> None:
    number = gtin((prefix + rest)[: length - 1])
    body = {"lines": [{field: text.format(number)}]}
    assert find_card_in_body(json.dumps(body).encode()) is None


@pytest.mark.parametrize("field", [*sorted(PRODUCT_FIELDS), "name", "note"])
@pytest.mark.parametrize("text", ["{}", "/search?q={}", "card {} 12/29"])
@pytest.mark.parametrize("card", [card for card in CARDS if len(card) > 14])
def test_a_card_is_found_in_every_field(field: str, text: str, card: str) -> None:
    spread = " ".join(card[place : place + 4] for place in range(0, len(card), 4))
    for written in (card, spread, spread.replace(" ", "-")):
        assert find_card_in_body(json.dumps({field: text.format(written)}).encode()) is not None


def test_a_number_is_a_gtin_in_product_fields_only() -> None:
    """This one of a case of goods has the prefix and the check digit of a Diners Club card too."""
    both = next(number for number in (gtin(f"36{rest:011}") for rest in range(1000)) if has_card(number))
    assert find_card_in_body(json.dumps({"sku": both}).encode()) is None
    assert find_card_in_body(json.dumps({"name": both}).encode()) is not None
    assert find_card_in_body(json.dumps({"sku": {"name": both}}).encode()) is not None
    assert find_card_in_body(json.dumps({both: "sku"}).encode()) is not None


def test_plus_does_not_hide_a_long_card() -> None:
    assert has_card("+" + VISA)
    assert has_card("+" + VISA[:4] + " " + VISA[4:])


def test_uuids_pass_even_when_their_digits_would_do() -> None:
    assert not has_card("41111111-1111-4111-8111-11111111111a")
    draw = random.Random(1)
    assert not any(has_card(str(UUID(int=draw.getrandbits(128), version=4))) for _ in range(20_000))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(10**12), 10**12 - 1) | st.uuids(version=4).map(str), st.lists
    )
)
def test_ids_flags_and_amounts_pass_at_any_depth(value: object) -> None:
    assert find_card_in_body(json.dumps(value).encode()) is None


@pytest.mark.attack("a body that is nested without end", expected="refused as malformed")
@pytest.mark.parametrize(
    "part", ["1 ", "4 ", "4111 1111 1111 111", "5018 ", "4011160109362 1 ", "\u0327\u0301", "+4 ", "\u2460 ", "1"]
)
@pytest.mark.attack(
    "a text that a search for card numbers reads again and again", expected="twice the text, twice the work"
)
def test_the_search_costs_no_more_than_the_text_is_long(part: str) -> None:
    assert_linear(has_card, lambda size: (part * size)[:size])
    assert_linear(lambda text: has_card(text, is_product=True), lambda size: (part * size)[:size])


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
@pytest.mark.attack("many values at the bottom of deep JSON", expected="twice the text, twice the work")
def test_deep_json_costs_no_more_than_it_is_long(opening: str, closing: str) -> None:
    def text(size: int) -> str:
        return opening * 150 + "[" + "1," * size + "1]" + closing * 150

    assert_linear(lambda body: find_card_in_body(body.encode()), text)


def test_json_beyond_reading_is_searched_as_text() -> None:
    assert find_card_in_body(b"[" * 60_000 + b"]" * 60_000) is None
    assert find_card_in_body(b"[" * 60_000 + VISA.encode()) == Found((), in_key=False)
