"""How a shop names its orders and invoices, and their days. Pure."""

import re
from datetime import date
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

from event_contracts.moments import EARLIEST, LATEST
from event_contracts.texts import Plain
from servicekit.core.errors import OTHER_FORM

_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def _names_something(text: str) -> str:
    # Only letters and digits count when an order is searched for.
    if not any(sign.isalnum() for sign in text):
        raise PydanticCustomError(OTHER_FORM, "A number with a letter or a digit in it, such as 2026-000123.")
    return text


def _day(value: object) -> date:
    try:
        if isinstance(value, date):
            day = value
        elif isinstance(value, str) and _DAY.fullmatch(value):
            day = date.fromisoformat(value)
        else:
            raise ValueError
        if not EARLIEST.date() <= day <= LATEST.date():
            raise ValueError
    except ValueError:
        raise PydanticCustomError(OTHER_FORM, "A day as year-month-day, such as 2026-12-01, from 2000 on.") from None
    return day


ShopNumber = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=64),
    Plain,
    AfterValidator(_names_something),
]
Day = Annotated[date, BeforeValidator(_day), Field(strict=True)]
