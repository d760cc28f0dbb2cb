"""What a field of a request may hold, in words, from a validation error of pydantic: for the answer to a caller.

The words come from our own declarations. Messages of pydantic are not passed on, since some of them quote what was sent.
"""

from collections.abc import Mapping
from typing import Any, Final, get_args

from pydantic_core.core_schema import ErrorType

from event_contracts.codes import EXAMPLES

_PYDANTICS_OWN: Final = frozenset(get_args(ErrorType))
_INTEGER: Final = "Send a whole number, such as 2."
_NUMBER: Final = "Send a number, such as 1.5."
_DATE: Final = "Send a date, such as 1990-12-31."
_TIME: Final = "Send a time with its zone, such as 2026-01-31T12:00:00Z."
_UUID: Final = "Send a UUID, such as 2b0e4c1a-0a53-4c5e-9a61-7d1f3f6f1c11."
_LIST: Final = "Send a list."
_OBJECT: Final = "Send an object with its fields."
_YES_OR_NO: Final = "Send true or false."

# By pydantic's type of an error. What stands in braces is its context, and comes from the declaration of the field.
_WORDS: Final[Mapping[str, str]] = {
    "json_invalid": "Send JSON (RFC 8259).",
    "missing": "Send this field; it is needed.",
    "extra_forbidden": "Leave it out: no such field is known here.",
    "none_required": "Leave it out.",
    "string_type": "Send a text.",
    "string_unicode": "Send a text in UTF-8.",
    "string_too_short": "Send a text of {min_length} or more characters.",
    "string_too_long": "Send a text of at most {max_length} characters.",
    "too_short": "Send {min_length} or more.",
    "too_long": "Send at most {max_length}.",
    "int_type": _INTEGER,
    "int_parsing": _INTEGER,
    "int_parsing_size": _INTEGER,
    "int_from_float": _INTEGER,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": _NUMBER,
    "greater_than": "Send a number above {gt}.",
    "greater_than_equal": "Send {ge} or more.",
    "less_than": "Send a number below {lt}.",
    "less_than_equal": "Send {le} or less.",
    "bool_type": _YES_OR_NO,
    "bool_parsing": _YES_OR_NO,
    "literal_error": "Send {expected}.",
    "enum": "Send {expected}.",
    "list_type": _LIST,
    "tuple_type": _LIST,
    "set_type": _LIST,
    "dict_type": _OBJECT,
    "model_type": _OBJECT,
    "model_attributes_type": _OBJECT,
    "uuid_type": _UUID,
    "uuid_parsing": _UUID,
    "uuid_version": _UUID,
    "date_type": _DATE,
    "date_parsing": _DATE,
    "date_from_datetime_parsing": _DATE,
    "date_from_datetime_inexact": _DATE,
    "datetime_type": _TIME,
    "datetime_parsing": _TIME,
    "datetime_object_invalid": _TIME,
    "datetime_from_date_parsing": _TIME,
    "timezone_aware": _TIME,
}


def expected(error: Mapping[str, Any]) -> str | None:
    """What the field of the error may hold; None where only its code says it. `error` is one of pydantic's `errors()`."""
    kind, context = error["type"], error.get("ctx", {})
    if kind not in _PYDANTICS_OWN:
        return str(error["msg"])  # a `PydanticCustomError` of ours: it says what is expected, and quotes nothing
    if kind == "string_pattern_mismatch":
        pattern = context["pattern"]
        return (
            f"Send a text such as {EXAMPLES[pattern]}."
            if pattern in EXAMPLES
            else f"Send a text of the form {pattern}."
        )
    words = _WORDS.get(kind)
    return None if words is None else words.format_map(context)
