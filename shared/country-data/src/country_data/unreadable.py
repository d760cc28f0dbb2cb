"""The one error of this package."""

from pydantic_core import PydanticCustomError


class Unreadable(PydanticCustomError):
    """A text is not what it should be, such as a phone of its country. `type` is a code, `message()` says what is expected
    and gives an example. It never holds the text. A `ValueError`, which pydantic reports at the field as it is.
    """

    # The base class is compiled and takes the same two; templates of ours have no `{}`.
    def __new__(cls, code: str, expected: str) -> "Unreadable":
        return super().__new__(cls, code, expected)
