"""Reading single values of a delivery for a lane, with what the lane does to them. Pure."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any

from lanes.lane import EACH, LaneField, can_be_absent
from lanes.transforms import TRANSFORMS
from lanes.wrapping import shorten

# reads a value from a part of a delivery; None when it is absent
Getter = Callable[[Any], Any]


def value_reader(entry: LaneField, source: str) -> Getter:
    """As `value_getter`, after what the lane does to the value; a transform may raise `CannotShip`."""
    get = _transformed(entry, source)
    length = entry.length
    if length is None or not entry.shorten:
        return get

    def read(part: Any) -> Any:
        value = get(part)
        return None if value is None else shorten(value, length)

    return read


def _transformed(entry: LaneField, source: str) -> Getter:
    if EACH in source and entry.transform is not None:
        return _whole_reader(source, TRANSFORMS[entry.transform].apply)
    get = value_getter(source)
    if entry.transform is None:
        return get
    apply = TRANSFORMS[entry.transform].apply
    owner_path = source.rpartition(".")[0]
    owner: Getter = attrgetter(owner_path) if owner_path else lambda part: part

    def read(part: Any) -> Any:
        value = get(part)
        return None if value is None else apply(value, owner(part))

    return read


def _whole_reader(source: str, apply: Callable[[Any, Any], Any]) -> Getter:
    items_of, _, name = source.partition(f"{EACH}.")
    items: Getter = attrgetter(items_of)
    get: Getter = attrgetter(name)

    def read(part: Any) -> Any:
        owners = items(part)
        return apply([get(owner) for owner in owners], owners)

    return read


def value_getter(source: str) -> Getter:
    """Reads the path of a delivery or of an item of one of its lists: what is there; None when it is absent."""
    path, _, index = source.partition("[")
    parent, _, name = path.rpartition(".")
    get: Getter = _past_absent(value_getter(parent), attrgetter(name)) if can_be_absent(parent) else attrgetter(path)
    if not index:
        return get
    place = int(index.rstrip("]"))

    def item(part: Any) -> Any:
        items = get(part)
        return items[place] if place < len(items) else None

    return item


def _past_absent(parent: Getter, get: Getter) -> Getter:
    def read(part: Any) -> Any:
        owner = parent(part)
        return None if owner is None else get(owner)

    return read


def code_of(source: str) -> str:
    """A path without its indices, as the ledger and reason codes have it: `parcels.weight_g` for `parcels[].weight_g`."""
    return ".".join(segment.partition("[")[0] for segment in source.split("."))
