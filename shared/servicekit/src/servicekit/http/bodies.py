"""Reads JSON that strangers send: two readers never see two different things in one text."""

from typing import Any, Final

import jiter

NO_JSON: Final = (
    "The body is no JSON, or JSON that can be read in two ways: a name stands twice in an object, a text holds half of a "
    "surrogate pair, or it is nested too deep. Correct it and send it again."
)


def is_json(content_type: str) -> bool:
    """Whether routes read a body of this type as JSON: `application/json` or `application/…+json`."""
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type.startswith("application/") and (media_type == "application/json" or media_type.endswith("+json"))


def read_json(body: bytes) -> Any:
    """The value of a JSON text as RFC 7493 (I-JSON) has it; a number with a fraction or an exponent is a `LosslessFloat`.

    Raises `ValueError` for what is no JSON, a name that stands twice in an object, half of a surrogate pair, NaN,
    infinity, and nesting deeper than 200.
    """
    try:
        return jiter.from_json(
            body, allow_inf_nan=False, cache_mode="none", catch_duplicate_keys=True, float_mode="lossless-float"
        )
    except ValueError:
        # The error shows a name that stands twice, and names are the sender's.
        raise ValueError("no JSON that has one meaning") from None
