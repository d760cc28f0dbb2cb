"""What a lane may do to one value on its way out. Pure; a lane names them, nothing else can be done to a value."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from event_contracts.codes import Currency

# ISO 4217: currencies whose minor unit is not a hundredth. All others have two decimals.
_NO_DECIMALS = frozenset(
    ("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND", "VUV", "XAF", "XOF",
     "XPF")
)  # fmt: skip
_THREE_DECIMALS = frozenset(["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"])


@dataclass(frozen=True, slots=True)
class Transform:
    """`apply(value, owner)`: `owner` is the part that the value was read from, of which it reads the fields `beside` as well.

    `of` is the type of value it takes.
    """

    of: type
    apply: Callable[[Any, Any], Any]
    beside: tuple[str, ...] = ()


def _cut(length: int) -> Transform:
    return Transform(str, lambda value, _: value[:length].rstrip())


def _major_units(minor: int, owner: Any) -> float | int:
    """Minor units of the owner's currency as the amount that people write: 1299 EUR → 12.99."""
    places = decimals(owner.currency)
    return minor / 10**places if places else minor


def decimals(currency: Currency) -> int:
    """Decimal places of an ISO 4217 currency."""
    return 0 if currency in _NO_DECIMALS else 3 if currency in _THREE_DECIMALS else 2


TRANSFORMS: Mapping[str, Transform] = {
    "truncate_35": _cut(35),
    "truncate_50": _cut(50),
    "upper": Transform(str, lambda value, _: value.upper()),
    "major_units": Transform(int, _major_units, beside=("currency",)),
}
