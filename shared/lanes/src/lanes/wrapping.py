"""Fitting text into the lines that a carrier has. Pure.

Lengths are characters (Unicode code points), which is what carriers count. A grapheme, what a person takes for one
character, may be several of them, and stays whole.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

_ZERO_WIDTH_JOINER: Final = "\u200d"
_VIRAMA: Final = 9  # canonical combining class
# Vowels of Thai and Lao that belong to the letter before them, although Unicode calls them letters (UAX 29, SpacingMark).
_SARA_AM: Final = frozenset("\u0e33\u0eb3")
# General categories: letters, numbers that are letters (〇), and brackets; modifier letters such as ー and 々 begin no line.
_AFTER_BREAK: Final = frozenset({"Lo", "Nl", "Ps"})
_BEFORE_BREAK: Final = frozenset({"Lo", "Nl", "Lm", "Pe", "Po"})
_SHORT: Final = 2
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


class _Piece(NamedTuple):
    """A part of an address that no line divides, and what stands between it and the one before: a blank or nothing."""

    text: str
    blank: str


def wrap(lines: Sequence[str], count: int, length: int) -> tuple[str, ...] | None:
    """The same text in the same order, in at most `count` lines of at most `length` characters; None if it does not fit.

    Lines that fit stay as they are. Otherwise words move. A word is divided between two wide characters only, where Chinese,
    Japanese and Korean may be. The lines end where the stated lines ended as far as that fits, then between words; and a
    house number is not torn, nor parted from its addition (`157 H`), unless nothing else fits.
    """
    if len(lines) <= count and all(len(line) <= length for line in lines):
        return tuple(lines)
    pieces: list[_Piece] = []
    ends: set[int] = set()  # places behind the last piece of a stated line
    for line in lines:
        pieces += _pieces(line)
        ends.add(len(pieces))
    packed = _pack(pieces, ends, 0, count, length)
    return None if packed is None else tuple(packed)


def _pieces(line: str) -> Iterator[_Piece]:
    for word in filter(None, _BLANKS.split(line)):
        start, blank = 0, " "
        for place in range(1, len(word)):
            if _may_divide(word, place):
                yield _Piece(word[start:place], blank)
                start, blank = place, ""
        yield _Piece(word[start:], blank)


def _pack(pieces: Sequence[_Piece], ends: set[int], start: int, count: int, length: int) -> list[str] | None:
    """The pieces from `start` on, in at most `count` lines."""
    if start == len(pieces):
        return []
    if len(_joined(pieces[start:])) > count * (length + 1):
        return None
    for end in _breaks(pieces, ends, start, length):
        following = _pack(pieces, ends, end, count - 1, length)
        if following is not None:
            return [_joined(pieces[start:end]), *following]
    return None


def _joined(pieces: Sequence[_Piece]) -> str:
    return "".join(piece.blank + piece.text for piece in pieces).lstrip(" ")


def _breaks(pieces: Sequence[_Piece], ends: set[int], start: int, length: int) -> list[int]:
    """Where a line that begins at `start` may end, the best place first."""
    places = []
    size = -len(pieces[start].blank)
    for place in range(start, len(pieces)):
        size += len(pieces[place].blank) + len(pieces[place].text)
        if size > length:
            break
        places.append(place + 1)
    return sorted(places, key=lambda end: (0, end) if end in ends else (_harm(pieces[end - 1], pieces[end]), -end))


def _harm(before: _Piece, after: _Piece) -> int:
    """Of a line's end between them: 1 between words, 2 within a word, 3 where it parts a number from what belongs to it."""
    if not after.blank:
        return 3 if _has_number(before) else 2
    beside = (_has_number(before) and len(after.text) <= _SHORT) or (len(before.text) <= _SHORT and _has_number(after))
    return 3 if beside else 1


def _has_number(piece: _Piece) -> bool:
    return any(character.isnumeric() for character in piece.text)


def _may_divide(word: str, place: int) -> bool:
    """Whether a line may end there within a word: between two wide graphemes, by the rules of UAX 14 for these.

    None begins a line that is a mark, an iteration or length mark, a small kana or closing punctuation, and none ends one
    that is opening punctuation. Digits and Latin letters in wide form stay together, as in narrow form.
    """
    after = word[place]
    if not _is_wide(after):
        return False
    before = next((c for c in reversed(word[:place]) if unicodedata.category(c)[0] != "M"), after)
    return (
        _is_wide(before)
        and unicodedata.category(before) in _BEFORE_BREAK
        and unicodedata.category(after) in _AFTER_BREAK
        and " SMALL " not in unicodedata.name(after, "")
        and _may_break(word, place)
    )


def _is_wide(character: str) -> bool:
    return unicodedata.east_asian_width(character) in "WF"


def _may_break(text: str, place: int) -> bool:
    """Whether a grapheme ends before `place`: never where one could go on (UAX 29), rarely not where one ends."""
    before, after = text[place - 1], text[place]
    if unicodedata.category(after)[0] == "M" or after in _SARA_AM or _is_modifier(after):
        return False
    if _ZERO_WIDTH_JOINER in (before, after) or unicodedata.combining(before) == _VIRAMA:
        return False
    if _begins_syllable(after):
        return not _is_leading_jamo(before)
    if _is_jamo(after) and (_is_jamo(before) or _begins_syllable(before)):
        return False
    return not (_is_flag_letter(before) and _is_flag_letter(after)) or _flag_letters_before(text, place) % 2 == 0


def _is_modifier(character: str) -> bool:
    """A skin tone (UTS 51)."""
    return "\U0001f3fb" <= character <= "\U0001f3ff"


def _is_jamo(character: str) -> bool:
    """A part of a Hangul syllable."""
    return "\u1100" <= character <= "\u11ff" or "\ua960" <= character <= "\ua97f" or "\ud7b0" <= character <= "\ud7ff"


def _begins_syllable(character: str) -> bool:
    """A whole Hangul syllable, or its first part. Several first parts may follow each other."""
    return "\uac00" <= character <= "\ud7a3" or _is_leading_jamo(character)


def _is_leading_jamo(character: str) -> bool:
    return "\u1100" <= character <= "\u115f" or "\ua960" <= character <= "\ua97f"


def _is_flag_letter(character: str) -> bool:
    """Two of these are a flag."""
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def _flag_letters_before(text: str, place: int) -> int:
    count = 0
    while count < place and _is_flag_letter(text[place - 1 - count]):
        count += 1
    return count
