"""Finds payment card numbers in request bodies, so that they are refused wherever they appear (policy C1: a token is
enough).

A card number is 14 to 19 digits with an issuer's prefix of that length (ISO/IEC 7812) and a right check digit (Luhn);
cards of 13 digits are no longer issued. It is found also in digits of other scripts, split by blanks, dashes, dots and the
like, inside a longer text, as a JSON number or as a key. The cost grows in line with the size of the text, whatever the text
is (law L13).

A text that names a product may hold the product's number (GTIN: an EAN, a UPC or that of a case), which some card would have
too: in the members `PRODUCT_FIELDS` such a number is none.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final, TypeAlias

from jiter import LosslessFloat

from servicekit.http.bodies import read_json

_GAP_CATEGORIES = ("Zs", "Zl", "Zp", "Cc", "Cf", "Pd", "Mn", "Me", "Pc")
_GAP_CHARACTERS = frozenset(".,·•‧∙・|/\\'\u2212")
# Groups of digits belong together when at most three characters lie between one and the next.
_RUN = re.compile(r"[0-9]+(?: {1,3}[0-9]+)*")
# An id is no card, though the digits in one in some thousands would pass for it.
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.IGNORECASE)
# Members of a body that name a product or a page of the shop.
PRODUCT_FIELDS: Final = frozenset(("sku", "page", "description"))
# Lengths of a GTIN (GS1 General Specifications, 7.9). Eight digits may be half of a card number, so one of eight counts
# only where nothing but GTINs stands beside it.
_GTIN_LENGTHS: Final = frozenset((8, 12, 13, 14))
_HALF_A_CARD: Final = 8
_MOST_CACHED: Final = 4096

# First and last value of a prefix, and the lengths that go with it.
_ISSUERS: tuple[tuple[int, int, frozenset[int]], ...] = (
    (4, 4, frozenset({16, 19})),  # Visa
    (51, 55, frozenset({16})),  # Mastercard
    (2221, 2720, frozenset({16})),
    (34, 34, frozenset({15})),  # American Express
    (37, 37, frozenset({15})),
    (300, 305, frozenset({14, 16, 17, 18, 19})),  # Diners Club
    (3095, 3095, frozenset({14, 16, 17, 18, 19})),
    (36, 36, frozenset({14, 16, 17, 18, 19})),
    (38, 39, frozenset({14, 16, 17, 18, 19})),
    (3528, 3589, frozenset({16, 17, 18, 19})),  # JCB
    (6011, 6011, frozenset({16, 17, 18, 19})),  # Discover
    (644, 649, frozenset({16, 17, 18, 19})),
    (65, 65, frozenset({16, 17, 18, 19})),
    (60, 60, frozenset({16})),  # RuPay
    (81, 82, frozenset({16, 17, 18, 19})),
    (62, 62, frozenset({16, 17, 18, 19})),  # UnionPay
    (2200, 2204, frozenset({16, 17, 18, 19})),  # Mir
    (9792, 9792, frozenset({16})),  # Troy
    (5018, 5018, frozenset(range(14, 20))),  # Maestro
    (5020, 5020, frozenset(range(14, 20))),
    (5038, 5038, frozenset(range(14, 20))),
    (56, 58, frozenset(range(14, 20))),
    (6304, 6304, frozenset(range(14, 20))),
    (6759, 6763, frozenset(range(14, 20))),
)
_SHORTEST = 14


_PREFIX = 4

# A place in JSON as a linked list, from the inside out: deep JSON costs no copies.
_Place: TypeAlias = "tuple[int, _Place] | None"


def _lengths_by_prefix() -> dict[str, tuple[int, ...]]:
    """The lengths of a card number by its first four digits."""
    found: dict[str, set[int]] = {}
    for first, last, lengths in _ISSUERS:
        rest = _PREFIX - len(str(first))
        for prefix in range(first * 10**rest, (last + 1) * 10**rest):
            found.setdefault(str(prefix), set()).update(lengths)
    return {prefix: tuple(sorted(lengths)) for prefix, lengths in found.items()}


_LENGTHS: Final = _lengths_by_prefix()


@dataclass(frozen=True, slots=True)
class Found:
    """Where a card number stands:
    positions of members and items from the outside in (never names), in a key or a value.
    """

    path: tuple[int, ...]
    in_key: bool


def find_card_in_body(body: bytes) -> Found | None:
    """The first card number in a body, read as JSON or, when it is none, as text."""
    try:
        value = read_json(body)
    except ValueError:
        return Found((), False) if has_card(body.decode("utf-8", "replace")) else None
    return find_card(value)


def find_card(value: Any) -> Found | None:
    """The first card number in keys and values of parsed JSON at any depth."""
    waiting: list[tuple[Any, _Place, bool, bool]] = [(value, None, False, False)]
    while waiting:
        node, place, in_key, is_product = waiting.pop()
        match node:
            case str():
                if has_card(node, is_product=is_product):
                    return Found(_path(place), in_key)
            case bool() | None:
                pass
            case int() | float() | LosslessFloat():
                if has_card(str(node)):
                    return Found(_path(place), in_key)
            case dict():
                for position, (key, member) in enumerate(node.items()):
                    waiting.append((key, (position, place), True, False))
                    waiting.append((member, (position, place), False, key in PRODUCT_FIELDS))
            case list() | tuple():
                waiting.extend((item, (position, place), False, False) for position, item in enumerate(node))
    return None


def _path(place: _Place) -> tuple[int, ...]:
    path = []
    while place is not None:
        position, place = place
        path.append(position)
    return tuple(reversed(path))


def has_card(text: str, *, is_product: bool = False) -> bool:
    """Whether a card number stands anywhere in `text`; one that is a UUID as a whole holds none.

    `is_product`: the text names a product or a page, so that a GTIN in it is no card.
    """
    if len(text) < _SHORTEST or _UUID.fullmatch(text):
        return False
    runs = (run[0].split() for run in _RUN.finditer(text.translate(_CHARACTERS)))
    return any(_holds_card(groups) for run in runs for groups in (_between_gtins(run) if is_product else (run,)))


def _between_gtins(groups: Sequence[str]) -> Iterator[list[str]]:
    """The groups of digits in front of, between and behind those that are a GTIN."""
    part: list[str] = []
    if all(map(_is_gtin, groups)):
        return
    for group in groups:
        if len(group) != _HALF_A_CARD and _is_gtin(group):
            yield part
            part = []
        else:
            part.append(group)
    yield part


def _is_gtin(digits: str) -> bool:
    """Whether the check digit is right: from the right, every second digit counts three times."""
    if len(digits) not in _GTIN_LENGTHS:
        return False
    return (sum(map(int, digits[::-2])) + 3 * sum(map(int, digits[-2::-2]))) % 10 == 0


class _Characters(dict[int, str]):
    """What each character counts for, in compatibility form (NFKC): decimal digits of all scripts as 0–9, a blank for what
    may stand between groups of digits, and `~` for anything else.
    """

    def __missing__(self, character: int) -> str:
        found = "".join(map(_counts_for, unicodedata.normalize("NFKC", chr(character))))
        if len(self) < _MOST_CACHED:
            self[character] = found
        return found


def _counts_for(character: str) -> str:
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    if character in _GAP_CHARACTERS or unicodedata.category(character) in _GAP_CATEGORIES:
        return " "
    return "~"


_CHARACTERS: Final = _Characters()


def _holds_card(groups: Sequence[str]) -> bool:
    """Whether some neighbouring groups of digits are together a card number."""
    digits = "".join(groups)
    if len(digits) < _SHORTEST:
        return False
    ends = list(accumulate(map(len, groups)))
    borders = frozenset(ends)
    candidates = (
        (start, start + length)
        for start in (0, *ends[:-1])
        for length in _LENGTHS.get(digits[start : start + _PREFIX], ())
        if start + length in borders
    )
    return _any_luhn(digits, candidates)


def _any_luhn(digits: str, candidates: Iterator[tuple[int, int]]) -> bool:
    """Whether one of the parts (start, end) of `digits` has a right check digit (ISO/IEC 7812-1, annex B).

    Every second digit is doubled, the last one is not. Sums up to each place, with the even and with the odd places doubled,
    give the sum of any part in two steps.
    """
    sums: tuple[list[int], list[int]] | None = None
    for start, end in candidates:
        if sums is None:
            sums = _luhn_sums(digits, 0), _luhn_sums(digits, 1)
        doubled = sums[end % 2]
        if (doubled[end] - doubled[start]) % 10 == 0:
            return True
    return False


def _luhn_sums(digits: str, doubled: int) -> list[int]:
    """The sum of the digits before each place; those at places with this remainder of 2 are doubled."""
    terms = (_DOUBLED[digit] if place % 2 == doubled else int(digit) for place, digit in enumerate(digits))
    return list(accumulate(terms, initial=0))


_DOUBLED: Final = dict(zip("0123456789", (0, 2, 4, 6, 8, 1, 3, 5, 7, 9), strict=True))
