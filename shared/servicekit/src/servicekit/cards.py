"""Finds payment card numbers in request bodies, so that they are refused wherever they appear (policy C1: a token is
enough).

A card number is 13 to 19 digits with an issuer's prefix of that length (ISO/IEC 7812) and a right check digit (Luhn).
It is found
also in digits of other scripts, split by blanks, dashes, dots and the like, inside a longer text, as a JSON number or
as a key.
"""

import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_MAX_GAP = 3
_GAP_CATEGORIES = ("Zs", "Zl", "Zp", "Cc", "Cf", "Pd", "Mn", "Me", "Pc")
_GAP_CHARACTERS = frozenset(".,·•‧∙・|/\\'\u2212")
_DIGITS = re.compile(r"[0-9]+")
# An id is no card, though the digits in one in some thousands would pass for it.
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.IGNORECASE)
# E.164 numbers of up to 13 digits; from 14 on no country's numbers have a prefix and length of a card.
_PHONE = re.compile(r"\+[1-9][0-9]{5,12}")

# First and last value of a prefix, and the lengths that go with it.
_ISSUERS: tuple[tuple[int, int, frozenset[int]], ...] = (
    (4, 4, frozenset({13, 16, 19})),  # Visa
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
    (5018, 5018, frozenset(range(13, 20))),  # Maestro
    (5020, 5020, frozenset(range(13, 20))),
    (5038, 5038, frozenset(range(13, 20))),
    (56, 58, frozenset(range(13, 20))),
    (6304, 6304, frozenset(range(13, 20))),
    (6759, 6763, frozenset(range(13, 20))),
)
_SHORTEST, _LONGEST = 13, 19


@dataclass(frozen=True, slots=True)
class Found:
    """Where a card number stands:
    positions of members and items from the outside in (never names), in a key or a value.
    """

    path: tuple[int, ...]
    in_key: bool


class _Members(tuple[tuple[str, Any], ...]):
    """A JSON object with all members, also those of the same name."""


class _Number(str):
    """A JSON number as it was written, since parsing would round it."""


def find_card_in_body(body: bytes) -> Found | None:
    """The first card number in a body, read as JSON or, when it is none, as text.

    Raises `ValueError` for JSON that is nested too deep to be read.
    """
    try:
        text = body.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_Members, parse_int=_Number, parse_float=_Number)
    except RecursionError:
        raise ValueError("JSON nested too deep") from None
    except ValueError:
        return Found((), False) if has_card(body.decode("utf-8", "replace")) else None
    return find_card(value)


def find_card(value: Any) -> Found | None:
    """The first card number in keys and values of parsed JSON at any depth."""
    waiting: list[tuple[Any, tuple[int, ...], bool]] = [(value, (), False)]
    while waiting:
        node, path, in_key = waiting.pop()
        match node:
            case str():
                if has_card(node):
                    return Found(path, in_key)
            case bool() | None:
                pass
            case int() | float():
                if has_card(str(node)):
                    return Found(path, in_key)
            case dict() | _Members():
                members = node.items() if isinstance(node, dict) else node
                for position, (key, member) in enumerate(members):
                    waiting.append((key, (*path, position), True))
                    waiting.append((member, (*path, position), False))
            case list() | tuple():
                waiting.extend((item, (*path, position), False) for position, item in enumerate(node))
    return None


def has_card(text: str) -> bool:
    """Whether a card number stands anywhere in `text`.

    A text that as a whole is a UUID or an E.164 phone holds none.
    """
    if len(text) < _SHORTEST or _UUID.fullmatch(text):
        return False
    plain = _plain_digits(text)
    if _PHONE.fullmatch(re.sub(r"[^0-9+]", "", plain)) and not any(c.isalpha() for c in plain):
        return False
    return any(_is_card(number) for run in _runs(plain) for number in _joined(run))


def _plain_digits(text: str) -> str:
    """`text` in compatibility form (NFKC), with the decimal digits of all scripts as 0–9."""
    if text.isascii():
        return text
    normal = unicodedata.normalize("NFKC", text)
    return "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in normal)


def _runs(text: str) -> Iterator[list[str]]:
    """Groups of digits that belong together: only a short gap lies between one and the next."""
    run: list[str] = []
    end = 0
    for group in _DIGITS.finditer(text):
        if run and not _is_gap(text[end : group.start()]):
            yield run
            run = []
        run.append(group[0])
        end = group.end()
    if run:
        yield run


def _is_gap(between: str) -> bool:
    return len(between) <= _MAX_GAP and all(
        c in _GAP_CHARACTERS or unicodedata.category(c) in _GAP_CATEGORIES for c in between
    )


def _joined(run: list[str]) -> Iterator[str]:
    """Every row of neighbouring groups that together has a card number's length."""
    for first in range(len(run)):
        number = ""
        for group in run[first:]:
            number += group
            if len(number) > _LONGEST:
                break
            if len(number) >= _SHORTEST:
                yield number


def _is_card(digits: str) -> bool:
    return _has_issuer(digits) and _luhn(digits)


def _has_issuer(digits: str) -> bool:
    return any(
        first <= int(digits[: len(str(first))]) <= last and len(digits) in lengths for first, last, lengths in _ISSUERS
    )


def _luhn(digits: str) -> bool:
    """The check digit of ISO/IEC 7812-1, annex B."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        doubled = int(digit) * (2 if place % 2 else 1)
        total += doubled - 9 if doubled > 9 else doubled
    return total % 10 == 0
