"""Where a border of the Union lies between a shop in the Netherlands and a place: the one table of our own here.

Two borders count, since goods need customs papers beyond either: that of the customs territory (Regulation (EU) 952/2013,
UCC, Art. 4) and that of the VAT territory (Directive 2006/112/EC, Art. 5 to 7). No library has them by postal code.
"""

import re
from typing import Final

# Member states, and Monaco, which both laws count to France (UCC Art. 4(2)(a), Directive Art. 7).
_INSIDE: Final = frozenset((
    *("AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GR", "HR", "HU", "IE", "IT", "LT", "LU", "LV", "MT"),
    *("NL", "PL", "PT", "RO", "SE", "SI", "SK", "MC"),
))  # fmt: skip

# Places of these countries that lie beyond a border, by their postal codes without blanks and hyphens. Each code here
# belongs to its place alone. Other parts of the world have country codes of their own (GP, RE, AX, SM, VA, FO, GL …), and
# are beyond the border because they are not in `_INSIDE`.
_BEYOND: Final = {
    # Heligoland, Büsingen: UCC Art. 4(1), Directive Art. 6(2)(a), (b)
    "DE": re.compile(r"27498|78266"),
    # Greenland with Denmark's codes: overseas territory, UCC Art. 4(1)
    "DK": re.compile(r"39\d\d"),
    # Ceuta, Melilla: UCC Art. 4(1), Directive Art. 6(2)(c), (d); Canary Islands: Art. 6(1)(b)
    "ES": re.compile(r"(?:51|52|35|38)\d{3}"),
    # Åland: Art. 6(1)(d)
    "FI": re.compile(r"22\d{3}"),
    # Overseas departments: Art. 6(1)(c); overseas territories: UCC Art. 4(1). 980 is Monaco.
    "FR": re.compile(r"97[1-8]\d\d|98[1-9]\d\d"),
    # Mount Athos: Art. 6(1)(a)
    "GR": re.compile(r"6308[67]"),
    # Livigno: UCC Art. 4(1), Directive Art. 6(2)(f); Campione d'Italia: Art. 6(1)(f) since Directive (EU) 2019/475 (22060,
    # its code of before, is shared with places around Como); San Marino and the Vatican with Italy's codes: not in Art. 5
    "IT": re.compile(r"23041|22061|4789\d|00120"),
}  # fmt: skip
# Northern Ireland is inside for goods: Windsor Framework, Art. 5 and 8 (Decision (EU) 2020/135).
_NORTHERN_IRELAND: Final = re.compile(r"BT\d{2,3}[A-Z]{2}")
_BETWEEN: Final = re.compile(r"[\s-]")
_LONGEST: Final = 20


def crosses_border(country: str, postal_code: str | None) -> bool:
    """Whether goods from the Netherlands to this place leave the Union's customs or VAT territory, and need customs papers.

    `country` is of ISO 3166-1, `postal_code` as `read_postal_code` gives it; without one a place counts as its country's
    main part.
    """
    code = _BETWEEN.sub("", (postal_code or "")[:_LONGEST]).upper()
    if country == "GB":
        return _NORTHERN_IRELAND.fullmatch(code) is None
    if country not in _INSIDE:
        return True
    beyond = _BEYOND.get(country)
    return beyond is not None and beyond.fullmatch(code) is not None
