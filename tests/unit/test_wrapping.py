"""Addresses are wrapped and never cut; what may be shortened ends with a whole grapheme."""

import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lanes.choice import check, choose_lane, make_routes
from lanes.loading import load_lanes
from lanes.projection import project
from lanes.wrapping import shorten, wrap
from tests.support.deliveries import make_delivery

ROUTES = make_routes(load_lanes(Path(__file__).parents[2] / "shared" / "policy" / "lanes"))
NO_BREAK = "\u00a0"
# Graphemes of several characters, each with what would be left of it if it were cut.
GRAPHEMES = [
    "e\u0301",  # a letter with a mark that has no character of its own with others
    "x\u0301\u0327",
    "क्षि",  # Devanagari: consonants joined by a virama, with a vowel
    "ตัำ",
    "👩‍👩‍👧",
    "👍🏽",
    "🇳🇱",
    "ᄀ\u1161\u11a8",  # Hangul in parts
    "☎\ufe0f",
    "한",
    "a",
    "東",
]


@pytest.mark.parametrize(
    ("lines", "leaving"),
    [
        (["Eerste Jan van der Heijdenstraat 157 H"], ("Eerste Jan van der Heijdenstraat", "157 H")),
        # `… 157` would fit into the first line, and is another address
        (["Eerste Jan vande Heijdenstraat 157 H"], ("Eerste Jan vande Heijdenstraat", "157 H")),
        (
            ["Residencial Las Palmeras del Mediterraneo 12, Portal 3, 4B"],
            ("Residencial Las Palmeras del", "Mediterraneo 12, Portal 3, 4B"),
        ),
        (["Lange Straße 12 a", "Hinterhaus", "3. Stock"], ("Lange Straße 12 a", "Hinterhaus 3. Stock")),
        (["Short"], ("Short",)),
        (["x" * 35, "y" * 35], ("x" * 35, "y" * 35)),
        # a blank that breaks no line
        ([f"Eerste Jan van der Heijdens 157{NO_BREAK}H-IV"], ("Eerste Jan van der Heijdens", f"157{NO_BREAK}H-IV")),
        # no blank, as is usual in Chinese and Japanese
        (
            ["広東省深圳市南山区粤海街道科技園社区科苑南路五千六百号深圳湾科技生態園七棟十二楼"],
            ("広東省深圳市南山区粤海街道科技園社区科苑南路五千六百号深圳湾科技生態園", "七棟十二楼"),
        ),
        # between words, although more would fit into the first line
        (
            ["서울특별시강남구테헤란로일백오십이번지 강남파이낸스센터이십칠층이천칠백일호실안내데스크"],
            ("서울특별시강남구테헤란로일백오십이번지", "강남파이낸스센터이십칠층이천칠백일호실안내데스크"),
        ),
        # a number stays whole, in narrow form, in wide form and in letters
        (["東" * 34 + "12345丁目"], ("東" * 33, "東12345丁目")),
        (["東" * 34 + "１２３丁目"], ("東" * 33, "東１２３丁目")),
        (["東" * 34 + "二十三丁目"], ("東" * 34, "二十三丁目")),
        # no line begins with closing punctuation, a length or iteration mark, or a small kana; none ends with an opening bracket
        (["東" * 34 + "西）南"], ("東" * 34, "西）南")),
        (["東" * 34 + "西、南"], ("東" * 34, "西、南")),
        (["東" * 34 + "マー南"], ("東" * 34, "マー南")),
        (["東" * 34 + "代々木"], ("東" * 34, "代々木")),
        (["東" * 34 + "しゃも"], ("東" * 34, "しゃも")),
        (["東" * 34 + "（南）"], ("東" * 34, "（南）")),
        # a grapheme of two characters: a kanji and the selector of its variant
        (["東" * 34 + "葛\U000e0100城市"], ("東" * 34, "葛\U000e0100城市")),
    ],
)
def test_an_address_is_wrapped_where_a_line_may_end(lines: list[str], leaving: tuple[str, ...]) -> None:
    assert wrap(lines, 2, 35) == leaving
    delivery = make_delivery(lines=tuple(lines))
    recipient = project(choose_lane(ROUTES, delivery), delivery)["recipient"]
    assert tuple(recipient[key] for key in ("address_line1", "address_line2") if key in recipient) == leaving


@pytest.mark.parametrize(
    "lines", [["x" * 36], ["word " * 20], ["x" * 30] * 3, ["東" * 71], ["１" * 36], ["東" * 33 + "（" + "x" * 36]]
)
def test_an_address_that_does_not_fit_is_refused_and_not_cut(lines: list[str]) -> None:
    assert wrap(lines, 2, 35) is None
    (misfit,) = check(ROUTES, make_delivery(lines=tuple(lines))).misfits
    assert (misfit.code, misfit.field) == ("too_long.consignee.lines", "consignee.lines")
    assert "2 lines of 35 characters" in misfit.expected


WORDS = st.lists(st.sampled_from(GRAPHEMES), min_size=1, max_size=12).map("".join)
LINES = st.lists(st.lists(WORDS, min_size=1, max_size=6).map(" ".join), min_size=1, max_size=3)


@given(LINES, st.integers(1, 3), st.integers(1, 40))
def test_wrapping_loses_nothing_and_divides_no_word(lines: list[str], count: int, length: int) -> None:
    """But between two wide characters."""
    words = " ".join(lines).split()
    parts = [part for word in words for part in _parts(word)]
    wrapped = wrap(lines, count, length)
    if wrapped is None:
        assert _least_lines(words, length) > count or any(len(part) > length for part in parts)
    else:
        assert "".join(wrapped).replace(" ", "") == "".join(words)
        assert [part for line in wrapped for word in line.split() for part in _parts(word)] == parts
        assert len(wrapped) <= count
        assert all(len(line) <= length for line in wrapped)


def _parts(word: str) -> list[str]:
    """What is left when a word of `GRAPHEMES` is divided wherever it may be."""
    return re.sub("([東한])(?=[東한ᄀ])", r"\1 ", word).split()


def _least_lines(words: list[str], length: int) -> int:
    """With as many parts in each line as fit; a blank before the first part of a word."""
    count, room = 0, -1
    for word in words:
        for place, part in enumerate(_parts(word)):
            size = len(part) + (place == 0)
            if size > room:
                count, room, size = count + 1, length, len(part)
            room -= size
    return count


@given(st.lists(st.sampled_from(GRAPHEMES), min_size=1, max_size=30), st.integers(8, 40))
def test_a_text_is_shortened_at_the_end_of_a_grapheme(graphemes: list[str], length: int) -> None:
    text = "".join(graphemes)
    short = shorten(text, length)
    ends = {"".join(graphemes[:place]) for place in range(len(graphemes) + 1)}
    assert short in ends
    assert len(short) <= length
    assert short or not text


def test_syllables_in_parts_are_shortened_between_them() -> None:
    assert shorten("ᄀ\u1161\u11a8" * 3, 8) == "ᄀ\u1161\u11a8" * 2


@pytest.mark.parametrize("name", ["X", "李", "Ng", "Nguyễn", "O'Brien-Łukaszewska", "علي", "Σ"])
def test_a_short_name_leaves_as_it_is(name: str) -> None:
    delivery = make_delivery(name=name)
    assert project(choose_lane(ROUTES, delivery), delivery)["recipient"]["person_name"] == name


@pytest.mark.parametrize("letter", ["a", "é", "क्षि", "👍🏽", "한", "東"])
def test_a_long_name_is_shortened_and_not_refused(letter: str) -> None:
    delivery = make_delivery(name=letter * 20 + " " + letter * 19)
    left = project(choose_lane(ROUTES, delivery), delivery)["recipient"]["person_name"]
    assert len(left) <= 35
    assert unicodedata.normalize("NFC", left).replace(letter, "").strip() == ""
