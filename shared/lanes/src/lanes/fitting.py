"""Finds the fields of a delivery that do not fit its lane. Pure; compiled once per lane, from the lane's data.

The order service asks before it accepts an order, the gateway before anything leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final

from country_data import Unreadable
from country_data.addresses import Use, address_rules
from country_data.phones import expected_phone
from lanes.lane import BY_COUNTRY, EACH, Joined, Lane, LaneField, LaneLimit, Wrap
from lanes.values import Getter, code_of, value_getter, value_reader
from lanes.wrapping import wrap

_NEEDED: Final = "Send it: the carrier needs it for this destination and service."
_NEEDED_EMAIL: Final = (
    "Send an e-mail address such as ann@example.org: the carrier needs it for this destination and service."
)
_UNITS: Final = {
    "weight_g": " grams",
    "length_cm": " centimetres",
    "width_cm": " centimetres",
    "height_cm": " centimetres",
    "value": " in the smallest unit of the currency, such as cents",
}


@dataclass(frozen=True, slots=True)
class Misfit:
    """`code`: a reason such as `too_long.consignee.lines`. `field`: where in the delivery, such as `customs.0.value`.
    `expected`: what the lane takes, in words; it holds no value of the delivery.
    """

    code: str
    field: str
    expected: str


# All that does not fit of a delivery (or of what a lane reads of one), in the order of the lane's data.
Finder = Callable[[Any], Iterator[Misfit]]


def compile_fitting(lane: Lane) -> Finder:
    finders = [finder for entry in lane.fields if (finder := _field_finder(entry)) is not None]
    if lane.wrap is not None:
        finders.append(_wrap_finder(lane.wrap))
    finders += [_limit_finder(limit) for limit in lane.limits]

    def find(delivery: Any) -> Iterator[Misfit]:
        for finder in finders:
            yield from finder(delivery)

    return find


def compile_joined(lane: Lane) -> Finder:
    """As `compile_fitting`, of the message that is built: what is too long together."""
    sources = {field.to: field.source for field in lane.fields}
    sources |= dict.fromkeys(lane.wrap.to, lane.wrap.source) if lane.wrap else {}
    finders = [_joined_finder(joined, code_of(sources.get(joined.of[0], joined.of[0]))) for joined in lane.joined]

    def find(message: Any) -> Iterator[Misfit]:
        for finder in finders:
            yield from finder(message)

    return find


def _field_finder(entry: LaneField) -> Finder | None:
    if not entry.required and entry.length is None:
        return None
    if EACH not in entry.source:
        return _value_finder(entry, entry.source)
    if EACH not in entry.to:  # one value of the whole list
        return None
    items_of, _, source = entry.source.partition(f"{EACH}.")
    items: Getter = attrgetter(items_of)
    find_in_item = _value_finder(entry, source)

    def find(delivery: Any) -> Iterator[Misfit]:
        for place, item in enumerate(items(delivery)):
            for misfit in find_in_item(item):
                yield Misfit(misfit.code, f"{items_of}.{place}.{misfit.field}", misfit.expected)

    return find


def _value_finder(entry: LaneField, source: str) -> Finder:
    """`source` may be within an item of a list; the code is that of the whole path."""
    code, field, length = code_of(entry.source), code_of(source), entry.length
    get = value_getter(source) if length is None else value_reader(entry, source)

    def find(part: Any) -> Iterator[Misfit]:
        value = get(part)
        if value is None:
            if entry.required and (entry.required != BY_COUNTRY or _is_needed_in(field, part.consignee.country)):
                yield Misfit(f"missing.{code}", field, _missing(field, part))
        elif length is not None and not 0 < len(value) <= length:
            yield Misfit(f"too_long.{code}", field, f"Send at most {length} characters.")

    return find


def _missing(field: str, part: Any) -> str:
    if field == "consignee.phone":
        return expected_phone(part.consignee.country)
    return _NEEDED_EMAIL if field == "consignee.email" else _NEEDED


def _is_needed_in(field: str, country: str) -> bool:
    try:
        rules = address_rules(country)
    except Unreadable:  # an order from before countries were checked
        return False
    return (rules.postal_code if field == "consignee.postal_code" else rules.state) is Use.NEEDED


def _wrap_finder(entry: Wrap) -> Finder:
    get, field = value_getter(entry.source), code_of(entry.source)
    expected = (
        f"Send an address that fits into {len(entry.to)} lines of {entry.length} characters. Words are not divided,"
        " except between Chinese, Japanese and Korean characters."
    )

    def find(delivery: Any) -> Iterator[Misfit]:
        if wrap(get(delivery), len(entry.to), entry.length) is None:
            yield Misfit(f"too_long.{field}", field, expected)

    return find


def _limit_finder(limit: LaneLimit) -> Finder:
    code = code_of(limit.of)
    items_of, _, source = limit.of.partition(f"{EACH}.")
    items: Getter = attrgetter(items_of)
    unit = _UNITS.get(source, "")

    def find_count(delivery: Any) -> Iterator[Misfit]:
        count = len(items(delivery))
        if limit.least is not None and count < limit.least:
            yield Misfit(f"{'too_few' if count else 'missing'}.{code}", code, f"Send at least {limit.least:,} of them.")
        elif limit.most is not None and count > limit.most:
            yield Misfit(f"too_many.{code}", code, f"Send at most {limit.most:,} of them.")

    def find_values(delivery: Any) -> Iterator[Misfit]:
        for place, item in enumerate(items(delivery)):
            value = getattr(item, source)
            if limit.least is not None and value < limit.least:
                yield Misfit(
                    f"too_small.{code}", f"{items_of}.{place}.{source}", f"Send at least {limit.least:,}{unit}."
                )
            elif limit.most is not None and value > limit.most:
                yield Misfit(f"too_large.{code}", f"{items_of}.{place}.{source}", f"Send at most {limit.most:,}{unit}.")

    return find_values if source else find_count


def _joined_finder(joined: Joined, field: str) -> Finder:
    paths = [path.split(".") for path in joined.of]

    def find(message: Any) -> Iterator[Misfit]:
        texts = [text for path in paths if (text := _at(message, path)) is not None]
        if len(" ".join(texts)) > joined.length:
            yield Misfit(
                f"too_long.{field}",
                field,
                f"Send at most {joined.length} characters here and in what is printed beside it.",
            )

    return find


def _at(message: Any, path: list[str]) -> Any:
    for name in path:
        message = message.get(name)
        if message is None:
            return None
    return message
