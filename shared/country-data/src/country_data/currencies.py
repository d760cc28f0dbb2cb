"""Currencies of ISO 4217 that money is paid in, and how many decimals they have."""

from functools import cache

from iso4217 import Currency

from country_data.unreadable import Unreadable


def read_currency(text: str) -> str:
    """The code, if it is one that money has. Raises `Unreadable` for others, also for gold, funds and test codes."""
    if text not in _decimals():
        raise Unreadable("currency", "Send the currency's three letters as in ISO 4217, such as EUR or JPY.")
    return text


def decimals(currency: str) -> int:
    """How many decimals its amounts have: 0 (JPY), 2 (EUR), 3 (KWD) or 4 (CLF, UYW). Raises `Unreadable`."""
    return _decimals()[read_currency(currency)]


@cache
def _decimals() -> dict[str, int]:
    # pycountry has the codes without their minor units; the CLDR's (babel) are not those of ISO 4217 (IQD: 0 for 3).
    # What has none there is no money: precious metals, special drawing rights, XTS for tests, XXX for no currency.
    return {currency.code: currency.exponent for currency in Currency if currency.exponent is not None}
