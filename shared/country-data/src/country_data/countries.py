"""Countries of ISO 3166-1 by their two letters."""

from functools import cache
from typing import Final

import pycountry

from country_data.unreadable import Unreadable

# What the European Commission writes for two of them (Interinstitutional style guide, 7.1.1; ISO 3166-1 reserves both).
_ALSO: Final = {"UK": "GB", "EL": "GR"}


def read_country(text: str) -> str:
    """The country's code: also `GB` for `UK` and `GR` for `EL`. Raises `Unreadable`."""
    code = _ALSO.get(text, text)
    if code not in country_codes():
        raise Unreadable("country", "Send the country's two letters as in ISO 3166-1, such as NL, GB or GR.")
    return code


@cache
def country_codes() -> frozenset[str]:
    """All of ISO 3166-1 alpha-2."""
    return frozenset(country.alpha_2 for country in pycountry.countries)
