"""What a lane may do to one value on its way out. Pure; a lane names them, nothing else can be done to a value."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from lanes.amounts import kilograms, major_units, one_currency, piece_kilograms, piece_value, total_value


@dataclass(frozen=True, slots=True)
class Transform:
    """`apply(value, owner)`: `owner` is the part that the value was read from, of which it reads the fields `beside` as well.

    `of` is the type of value it takes. A transform of a `whole` list takes all values and all owners, and makes one value.
    """

    of: type
    apply: Callable[[Any, Any], Any]
    beside: tuple[str, ...] = ()
    whole: bool = False


def _cut(length: int) -> Transform:
    return Transform(str, lambda value, _: value[:length].rstrip())


TRANSFORMS: Final[Mapping[str, Transform]] = {
    "truncate_35": _cut(35),
    "truncate_50": _cut(50),
    "upper": Transform(str, lambda value, _: value.upper()),
    "major_units": Transform(int, major_units, beside=("currency",)),
    "piece_value": Transform(int, piece_value, beside=("currency", "quantity")),
    "total_value": Transform(int, total_value, beside=("currency",), whole=True),
    "one_currency": Transform(str, one_currency, whole=True),
    "kilograms": Transform(int, kilograms),
    "piece_kilograms": Transform(int, piece_kilograms, beside=("quantity",)),
    "iso_date": Transform(date, lambda value, _: value.isoformat()),
}
# Those that make one value of a whole list.
WHOLE: Final = frozenset(name for name, transform in TRANSFORMS.items() if transform.whole)
