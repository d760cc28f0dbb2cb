"""Amounts and weights in the units of carriers: kilograms, and major units of a currency, each of one piece. Pure.

A `CustomsLine` has the totals of its line. karrio, and with it MyDHL, UPS, FedEx and DPD, reads a commodity's value and weight
as those of one piece and multiplies by the quantity.
"""

from collections.abc import Sequence
from typing import Any

from country_data import Unreadable
from country_data.currencies import decimals
from event_contracts.codes import Currency
from lanes.refusal import CannotShip

# Where a total cannot be divided: so many more places that quantity × piece gives the total again when it is rounded.
_MORE_PLACES = 6


def _decimals(currency: Currency) -> int:
    """Of an amount. Raises `CannotShip` for a currency that ISO 4217 does not have: an order from before it was asked for."""
    try:
        return decimals(currency)
    except Unreadable:
        raise CannotShip("unknown.customs.currency") from None


def major_units(minor: int, owner: Any) -> float | int:
    """Minor units of the owner's currency as the amount that people write: 1299 EUR → 12.99."""
    places = _decimals(owner.currency)
    return minor / 10**places if places else minor


def piece_value(total: int, line: Any) -> float | int:
    """The value of one piece in major units: 3 for 3897 minor units of EUR → 12.99. Raises `CannotShip` for nothing:
    carriers declare a value of their own where none is given."""
    if total == 0:
        raise CannotShip("zero.customs.value")
    if total % line.quantity == 0:
        return major_units(total // line.quantity, line)
    places, quantity = _decimals(line.currency), int(line.quantity)
    return float(round(total / quantity / 10**places, places + _MORE_PLACES))


def total_value(totals: Sequence[int], lines: Sequence[Any]) -> float | int | None:
    """The sum of all lines in major units of their currency. Raises `CannotShip` where they have several."""
    return major_units(sum(totals), lines[0]) if one_currency([line.currency for line in lines], lines) else None


def one_currency(currencies: Sequence[str], _: Sequence[Any]) -> str | None:
    """The currency of all lines. Raises `CannotShip` where they have several: no sum can be declared."""
    if len(set(currencies)) > 1:
        raise CannotShip("mixed.customs.currency")
    return currencies[0] if currencies else None


def kilograms(grams: int, _: Any) -> float:
    return grams / 1000


def piece_kilograms(total: int, line: Any) -> float:
    """The weight of one piece in kilograms: 3 for 1500 g → 0.5."""
    return round(total / int(line.quantity) / 1000, 3 + _MORE_PLACES)
