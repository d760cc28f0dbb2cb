"""A refusal says what its field may hold, from our own declarations and never from what was sent."""

from datetime import date, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import AwareDatetime, BaseModel, Field, StrictInt, StringConstraints, TypeAdapter, ValidationError

from event_contracts.codes import Country, HsCode
from event_contracts.texts import Plain
from servicekit.http.expected import expected

SECRET = "canary-7f3a"


class Size(StrEnum):
    SMALL = "small"
    LARGE = "large"


class Thing(BaseModel, extra="forbid"):
    size: Size


@pytest.mark.parametrize(
    ("kind", "sent", "words"),
    [
        (Thing, {}, "Send this field; it is needed."),
        (Thing, {"size": "small", SECRET: 1}, "Leave it out: no such field is known here."),
        (Thing, {"size": SECRET}, "Send 'small' or 'large'."),
        (Thing, SECRET, "Send an object with its fields."),
        (Literal["a", "b"], SECRET, "Send 'a' or 'b'."),
        (str, 1, "Send a text."),
        (Annotated[str, StringConstraints(min_length=20)], SECRET, "Send a text of 20 or more characters."),
        (Annotated[str, StringConstraints(max_length=3)], SECRET, "Send a text of at most 3 characters."),
        (Annotated[list[str], Field(min_length=1)], [], "Send 1 or more."),
        (Annotated[list[str], Field(max_length=1)], [SECRET] * 2, "Send at most 1."),
        (list[int], SECRET, "Send a list."),
        (tuple[int, ...], SECRET, "Send a list."),
        (dict[str, int], SECRET, "Send an object with its fields."),
        (int, SECRET, "Send a whole number, such as 2."),
        (int, 1.5, "Send a whole number, such as 2."),
        (StrictInt, SECRET, "Send a whole number, such as 2."),
        (int, "9" * 5_000, "Send a whole number, such as 2."),
        (float, SECRET, "Send a number, such as 1.5."),
        (Annotated[float, Field(allow_inf_nan=False)], float("nan"), "Send a number, such as 1.5."),
        (Annotated[int, Field(ge=1)], 0, "Send 1 or more."),
        (Annotated[int, Field(le=999)], 1_000, "Send 999 or less."),
        (Annotated[int, Field(gt=0)], 0, "Send a number above 0."),
        (Annotated[int, Field(lt=10)], 10, "Send a number below 10."),
        (bool, SECRET, "Send true or false."),
        (UUID, SECRET, "Send a UUID, such as 2b0e4c1a-0a53-4c5e-9a61-7d1f3f6f1c11."),
        (date, SECRET, "Send a date, such as 1990-12-31."),
        (date, "1990-12-31T10:00:00", "Send a date, such as 1990-12-31."),
        (datetime, SECRET, "Send a time with its zone, such as 2026-01-31T12:00:00Z."),
        (AwareDatetime, "2026-01-31T12:00:00", "Send a time with its zone, such as 2026-01-31T12:00:00Z."),
        (Country, SECRET, "Send a text such as NL."),
        (HsCode, SECRET, "Send a text such as 090210."),
        (Annotated[str, Field(pattern="^[0-9]{3}$")], SECRET, "Send a text of the form ^[0-9]{3}$."),
        (
            Annotated[str, Plain],
            SECRET + "\0",
            "Send one line of text that can be read: no control, invisible, bidi or ",
        ),
    ],
)
def test_each_kind_of_error_says_what_is_expected(kind: Any, sent: object, words: str) -> None:
    with pytest.raises(ValidationError) as refused:
        TypeAdapter(kind).validate_python(sent)
    (error,) = refused.value.errors()
    said = expected(error)
    assert said is not None
    assert said.startswith(words)
    assert SECRET not in said


def test_what_an_exception_of_others_says_is_not_passed_on() -> None:
    error = {"type": "value_error", "msg": f"Value error, {SECRET}", "ctx": {"error": ValueError(SECRET)}}
    assert expected(error) is None
