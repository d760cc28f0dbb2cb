"""Phone numbers as people write them, kept as E.164."""

import unicodedata
from functools import cache
from typing import Final

from phonenumbers import (
    NumberParseException,
    PhoneNumber,
    PhoneNumberFormat,
    PhoneNumberType,
    ValidationResult,
    example_number_for_type,
    format_number,
    is_possible_number_with_reason,
    parse,
)

from country_data.unreadable import Unreadable

CODE: Final = "phone"
# E.164 has 15 digits; the rest is what stands between them.
_LONGEST: Final = 40
_SHORTEST: Final = 7
_PLUS: Final = "+\uff0b"


def read_phone(text: str, country: str | None) -> str:
    """The number as E.164, such as `+4922812345617` for `0228 123456-17` in DE. Digits may be of any script.

    Without a country only numbers that begin with + are read. A number need not be in use, but must have a length that its
    country has with the area code; an extension is refused, since a carrier could not dial it. Raises `Unreadable`.
    """
    text = "".join(character for character in text[: _LONGEST + 1] if unicodedata.category(character) != "Cf").strip()
    # Letters would be read as digits of a keypad, and what somebody notes beside a number with them.
    if len(text) > _LONGEST or any(unicodedata.category(character)[0] in "LMC" for character in text):
        raise _unreadable(country)
    if country is None and not text.startswith(tuple(_PLUS)):
        raise _unreadable(None)
    try:
        number = parse(text, country)
    except NumberParseException:
        raise _unreadable(country) from None
    if number.extension or is_possible_number_with_reason(number) is not ValidationResult.IS_POSSIBLE:
        raise _unreadable(country)
    written = format_number(number, PhoneNumberFormat.E164)
    if len(written) <= _SHORTEST:  # some countries have numbers of three digits within a town
        raise _unreadable(country)
    return written


def _unreadable(country: str | None) -> Unreadable:
    return Unreadable(CODE, expected_phone(country))


@cache
def expected_phone(country: str | None) -> str:
    """What a phone of the country looks like, with an example of it."""
    if country is None:
        return "Send the phone number with + and the code of its country, such as +31 10 123 4567, or say its country."
    example = _example(country)
    if example is None:  # as of Antarctica
        return "Send the phone number with + and the code of its country, such as +31 10 123 4567."
    national, international = (
        format_number(example, form) for form in (PhoneNumberFormat.NATIONAL, PhoneNumberFormat.INTERNATIONAL)
    )
    return f"Send the whole phone number with its area code and no extension, as in {country}: {national} or {international}."


def _example(country: str) -> PhoneNumber | None:
    for kind in (PhoneNumberType.FIXED_LINE, PhoneNumberType.MOBILE):
        example = example_number_for_type(country, kind)
        if example is not None:
            return example
    return None
