"""What a line of text may hold, wherever somebody enters one: what a person reads is all that is in it.

Refused are control and format characters (line breaks, NUL, bidi marks), what nobody can see, halves of surrogate pairs,
private and unassigned characters, and what starts a command of a label printer: `^` and `~` (ZPL II), the backslash (an
escape in ZPL and EPL2); its other commands begin behind a line break or a control character. Letters, marks, digits,
punctuation, symbols and blanks of all scripts pass. Two kinds of invisible characters are part of how a name is
written, and pass in their place only: joiners (RFC 5892, appendix A.1 and A.2) and variation selectors.
"""

import unicodedata
from typing import Final

from pydantic import BeforeValidator, ValidationInfo
from pydantic_core import PydanticCustomError

# The code of the error.
UNPRINTABLE: Final = "unprintable_text"
# Give this as `context` to read what was sealed before this rule, which is not judged again.
RECORDED: Final = {"recorded": True}
_PRINTER: Final = frozenset("^~\\")
_REFUSED: Final = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))
# Letters and marks of Unicode that are drawn as nothing: fillers, joiners of graphemes, Khmer inherent vowels, blank Braille.
_INVISIBLE: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
_JOINERS: Final = frozenset("\u200c\u200d")
_VIRAMA: Final = 9  # canonical combining class
# Marks on one letter, as in stream-safe text (UAX 15, D4): `normalize` sorts a run of marks in the square of its length.
_MOST_MARKS: Final = 30
# Scripts in which letters change by their neighbours.
_JOINING: Final = frozenset((
    *("ARABIC", "SYRIAC", "MANDAIC", "NKO", "MONGOLIAN", "DEVANAGARI", "BENGALI", "GURMUKHI", "GUJARATI", "ORIYA", "TAMIL"),
    *("TELUGU", "KANNADA", "MALAYALAM", "SINHALA", "MYANMAR", "KHMER", "BALINESE", "JAVANESE", "TIRHUTA", "CHAKMA", "GRANTHA"),
))  # fmt: skip


def plain_text(text: str) -> str:
    """The text in normal form C. Raises `ValueError` for a character that no line of text may hold, or when none can be seen."""
    text = _normal(text)
    if text.isascii() and text.isprintable():  # nearly every text
        if _PRINTER.isdisjoint(text):
            return text
        raise ValueError(UNPRINTABLE)
    seen = False
    for place, character in enumerate(text):
        category = unicodedata.category(character)
        if character in _PRINTER or character in _INVISIBLE:
            raise ValueError(UNPRINTABLE)
        if character in _JOINERS:
            if not _joins(text, place):
                raise ValueError(UNPRINTABLE)
        elif category in _REFUSED or (_selects(character) and not _is_selected(text, place)):
            raise ValueError(UNPRINTABLE)
        seen = seen or category[0] in "LNPS"
    if text and not text.isspace() and not seen:
        raise ValueError(UNPRINTABLE)
    return text


def _normal(text: str) -> str:
    marks = 0
    for character in text if not text.isascii() else "":
        marks = marks + 1 if unicodedata.combining(character) else 0
        if marks > _MOST_MARKS:
            raise ValueError(UNPRINTABLE)
    try:
        return unicodedata.normalize("NFC", text)
    except UnicodeError:
        raise ValueError(UNPRINTABLE) from None


def _joins(text: str, place: int) -> bool:
    """Whether a joiner stands where writing needs it: behind a virama, or between two letters of a joining script."""
    before, after = text[place - 1 : place], text[place + 1 : place + 2]
    if before and unicodedata.combining(before) == _VIRAMA:
        return True
    return _is_joining(before) and _is_joining(after)


def _is_joining(character: str) -> bool:
    if not character or unicodedata.category(character)[0] not in "LM":
        return False
    return unicodedata.name(character, "").partition(" ")[0] in _JOINING


def _selects(character: str) -> bool:
    """A variation selector, of which Mongolian has its own."""
    return (
        "\ufe00" <= character <= "\ufe0f"
        or "\U000e0100" <= character <= "\U000e01ef"
        or character in "\u180b\u180c\u180d"
    )


def _is_selected(text: str, place: int) -> bool:
    """One selector may follow a sign that has variants: an ideograph, a Mongolian letter, a pictograph."""
    before = text[place - 1 : place]
    if not before:
        return False
    if unicodedata.category(before) == "So":
        return text[place] in "\ufe0e\ufe0f"
    script = unicodedata.name(before, "").partition(" ")[0]
    return script == "MONGOLIAN" if text[place] < "\ufe00" else script == "CJK"


def _check(text: object, info: ValidationInfo) -> object:
    if not isinstance(text, str) or (info.context and info.context.get("recorded")):
        return text
    try:
        return plain_text(text)
    except ValueError:
        raise PydanticCustomError(
            UNPRINTABLE,
            "Send one line of text that can be read: no control, invisible, bidi or private characters, and no ^, ~ or \\.",
        ) from None


Plain: Final = BeforeValidator(_check)
