"""Fitting text into the lines that a carrier has. Pure.

Lengths are characters (Unicode code points), which is what carriers count. A grapheme, what a person takes for one
character, may be several of them, and stays whole.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Final

_ZERO_WIDTH_JOINER: Final = "\u200d"
_VIRAMA: Final = 9  # canonical combining class
# Vowels of Thai and Lao that belong to the letter before them, although Unicode calls them letters (UAX 29, SpacingMark).
_SARA_AM: Final = frozenset("\u0e33\u0eb3")
# Blanks that do not break a line stay in their word.
_BLANKS: Final = re.compile(r"[^\S\u00a0\u2007\u202f]+")


def shorten(text: str, length: int) -> str:
    """The beginning of the text, at most `length` characters, that ends at a grapheme's end and not in a blank."""
    if len(text) <= length:
        return text
    end = length
    while end and not _may_break(text, end):
        end -= 1
    return text[:end].rstrip()


def wrap(lines: Sequence[str], count: int, length: int) -> tuple[str, ...] | None:
    """The same words in the same order, in at most `count` lines of at most `length` characters; None if they do not fit.

    Lines that fit stay as they are. Otherwise words move, and none is divided. The lines end where the stated lines ended
    as far as that fits, and a house number is not torn from its addition (`157 H`) unless nothing else fits.
    """
    if len(lines) <= count and all(len(line) <= length for line in lines):
        return tuple(lines)
    words: list[str] = []
    ends: set[int] = set()  # places behind the last word of a stated line
    for line in lines:
        words += _words(line)
        ends.add(len(words))
    packed = _pack(words, ends, 0, count, length)
    return None if packed is None else tuple(packed)


def _words(line: str) -> list[str]:
    return [word for word in _BLANKS.split(line) if word]


def _pack(words: Sequence[str], ends: set[int], start: int, count: int, length: int) -> list[str] | None:
    """The words from `start` on, in at most `count` lines."""
    if start == len(words):
        return []
    rest = len(" ".join(words[start:]))
    if rest > count * (length + 1):
        return None
    for end in _breaks(words, ends, start, length):
        following = _pack(words, ends, end, count - 1, length)
        if following is not None:
            return [" ".join(words[start:end]), *following]
    return None


def _breaks(words: Sequence[str], ends: set[int], start: int, length: int) -> Iterator[int]:
    """Where a line that begins at `start` may end, the best place first."""
    places = []
    size = -1
    for place in range(start, len(words)):
        size += 1 + len(words[place])
        if size > length:
            break
        places.append(place + 1)
    stated = [place for place in places if place in ends]
    others = [place for place in reversed(places) if place not in ends]
    yield from stated
    yield from (place for place in others if not _tears(words, place))
    yield from (place for place in others if _tears(words, place))


def _tears(words: Sequence[str], place: int) -> bool:
    """Whether a break there would part a number from a short word beside it."""
    before, after = words[place - 1], words[place]
    return (_has_digit(before) and len(after) <= 2) or (len(before) <= 2 and _has_digit(after))


def _has_digit(word: str) -> bool:
    return any(character.isdigit() for character in word)


def _may_break(text: str, place: int) -> bool:
    """Whether a grapheme ends before `place`: never where one could go on (UAX 29), rarely not where one ends."""
    before, after = text[place - 1], text[place]
    if unicodedata.category(after)[0] == "M" or after in _SARA_AM or _is_modifier(after):
        return False
    if _ZERO_WIDTH_JOINER in (before, after) or unicodedata.combining(before) == _VIRAMA:
        return False
    if (_is_jamo(after) and (_is_jamo(before) or _is_syllable(before))) or (_is_jamo(before) and _is_syllable(after)):
        return False
    return not (_is_flag_letter(before) and _is_flag_letter(after)) or _flag_letters_before(text, place) % 2 == 0


def _is_modifier(character: str) -> bool:
    """A skin tone (UTS 51)."""
    return "\U0001f3fb" <= character <= "\U0001f3ff"


def _is_jamo(character: str) -> bool:
    """A part of a Hangul syllable."""
    return "\u1100" <= character <= "\u11ff" or "\ua960" <= character <= "\ua97f" or "\ud7b0" <= character <= "\ud7ff"


def _is_syllable(character: str) -> bool:
    """A whole Hangul syllable, which a part may follow."""
    return "\uac00" <= character <= "\ud7a3"


def _is_flag_letter(character: str) -> bool:
    """Two of these are a flag."""
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def _flag_letters_before(text: str, place: int) -> int:
    count = 0
    while count < place and _is_flag_letter(text[place - 1 - count]):
        count += 1
    return count
