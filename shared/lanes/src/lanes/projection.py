"""Projecting a delivery onto a lane. Pure: no I/O, no clock, no randomness.

The projection is built once per lane, from the lane's data, as nested functions; nothing else of a delivery is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from event_contracts.order import Delivery, Registration
from lanes.fitting import Finder, Misfit, compile_fitting, compile_joined
from lanes.lane import BY_COUNTRY, EACH, Lane, LaneField, Wrap
from lanes.reading import CHOICE, reader_of
from lanes.refusal import CannotShip
from lanes.transforms import TRANSFORMS
from lanes.values import Getter, code_of, value_getter, value_reader
from lanes.wrapping import wrap

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Route:
    """A lane ready for use. `read` takes the lane's fields, and what a lane is chosen by, out of a delivery's JSON.

    `misfits` finds the fields of a delivery that do not fit, `too_long` the texts of a message that are too long when joined.
    """

    lane: Lane
    read: Callable[[bytes], Any]
    misfits: Finder
    build: Callable[[Any], Message]
    too_long: Finder
    shape: Mapping[str, Any]
    always: tuple[str, ...]
    optional: tuple[tuple[str, Getter], ...]


def project(route: Route, delivery: Delivery, registration: Registration | None = None) -> Message:
    """What leaves: the lane's fields that are present, and nothing else. Raises `CannotShip`.

    The result is checked against the lane's paths once more and refused when anything else is in it (law L9).
    """
    _refuse(route.misfits(delivery))
    message = route.build(delivery)
    for _, path, number in _numbers(route.lane, registration):
        _put(message, path, number)
    if not _within(message, route.shape):
        raise CannotShip("outside_lane")
    _refuse(route.too_long(message))
    return message


def _refuse(misfits: Iterable[Misfit]) -> None:
    """Raises `CannotShip` for the first of them."""
    for misfit in misfits:
        raise CannotShip(misfit.code)


def disclosed_fields(route: Route, delivery: Delivery, registration: Registration | None = None) -> tuple[str, ...]:
    """The fields of the order's that leave on this lane, as codes such as `consignee.name`, for the ledger."""
    present = (code for code, get in route.optional if get(delivery) is not None)
    return (*route.always, *present, *(code for code, _, _ in _numbers(route.lane, registration)))


def _numbers(lane: Lane, registration: Registration | None) -> Iterator[tuple[str, str, str]]:
    """Code, place in the message and value of each number that the lane lists and the order has."""
    for name, path in lane.registration.items():
        number = getattr(registration, name, None)
        if number is not None:
            yield f"registration.{name}", path, number


def _put(message: Message, path: str, value: str) -> None:
    *parents, key = path.split(".")
    for name in parents:
        message = message.setdefault(name, {})
    message[key] = value


def leaf_paths(value: Any, path: str = "") -> Iterator[str]:
    """The paths of all single values in a message, written as lanes write them."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from leaf_paths(part, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for item in value:
            yield from leaf_paths(item, path + EACH)
    else:
        yield path


def compile_lane(lane: Lane) -> Route:
    """Turns the lane's data into functions."""
    wrapped = [lane.wrap.source] if lane.wrap else []
    certain = [f.source for f in lane.fields if (f.required and f.required != BY_COUNTRY) or EACH in f.source]
    always = dict.fromkeys(code_of(source) for source in (*certain, *wrapped))
    optional: dict[str, Getter] = {}
    for entry in lane.fields:
        if (code := code_of(entry.source)) not in always:
            optional.setdefault(code, value_getter(entry.source))
    return Route(
        lane=lane,
        read=reader_of((*CHOICE, *_read_paths(lane))),
        misfits=compile_fitting(lane),
        build=_compile(_Part.of(lane)),
        too_long=compile_joined(lane),
        shape=_shape(lane.paths),
        always=tuple(always),
        optional=tuple(optional.items()),
    )


def _read_paths(lane: Lane) -> Iterator[str]:
    if lane.wrap is not None:
        yield lane.wrap.source
    yield from (limit.of for limit in lane.limits)
    for entry in lane.fields:
        yield entry.source
        if entry.transform is not None:
            owner = entry.source.rpartition(".")[0]
            yield from (f"{owner}.{name}" if owner else name for name in TRANSFORMS[entry.transform].beside)


@dataclass
class _Part:
    """One object of the message while a lane is compiled; `items_of` is set when it is repeated for each item."""

    constants: Message = field(default_factory=dict)
    fields: list[tuple[str, LaneField, str]] = field(default_factory=list)
    wraps: list[tuple[tuple[str, ...], Wrap]] = field(default_factory=list)
    parts: dict[str, _Part] = field(default_factory=dict)
    items_of: str | None = None

    @classmethod
    def of(cls, lane: Lane) -> _Part:
        root = cls()
        for path, value in lane.constants.items():
            part, key = root._find(path)
            part.constants[key] = value
        for entry in lane.fields:
            part, key = root._find(entry.to)
            source = entry.source
            if EACH in entry.to:
                items_of, _, source = source.partition(f"{EACH}.")
                root._find(entry.to.partition(EACH)[0] + ".")[0].items_of = items_of
            part.fields.append((key, entry, source))
        if lane.wrap is not None:
            places = [root._find(path) for path in lane.wrap.to]
            places[0][0].wraps.append((tuple(key for _, key in places), lane.wrap))
        return root

    def _find(self, path: str) -> tuple[_Part, str]:
        *parents, key = path.replace(EACH, "").split(".")
        part = self
        for name in parents:
            part = part.parts.setdefault(name, _Part())
        return part, key


def _compile(part: _Part) -> Callable[[Any], Message]:
    constants = part.constants
    leaves = [(key, value_reader(entry, source)) for key, entry, source in part.fields]
    wraps = [(keys, value_getter(entry.source), entry.length) for keys, entry in part.wraps]
    objects = [(key, _compile(p)) for key, p in part.parts.items() if p.items_of is None]
    lists = [(key, attrgetter(p.items_of), _compile(p)) for key, p in part.parts.items() if p.items_of is not None]

    def build(source: Any) -> Message:
        message = constants.copy()
        for key, read in leaves:
            value = read(source)
            if value is not None:
                message[key] = value
        for keys, lines, length in wraps:
            message.update(zip(keys, wrap(lines(source), len(keys), length) or (), strict=False))
        for key, build_object in objects:
            message[key] = build_object(source)
        for key, items_of, build_item in lists:
            message[key] = [build_item(item) for item in items_of(source)]
        return message

    return build


def _shape(paths: Iterable[str]) -> dict[str, Any]:
    """Nested dicts of all paths; a list is a list of one shape, a single value is None."""
    shape: dict[str, Any] = {}
    for path in paths:
        here = shape
        *parents, leaf = path.split(".")
        for name in parents:
            inner: dict[str, Any] = {}
            if name.endswith(EACH):
                here = here.setdefault(name.removesuffix(EACH), [inner])[0]
            else:
                here = here.setdefault(name, inner)
        here[leaf] = None
    return shape


_SINGLE = (str, int, float)


def _within(message: Any, shape: Any) -> bool:
    if not isinstance(message, dict) or not message.keys() <= shape.keys():
        return False
    for key, value in message.items():
        inner = shape[key]
        if inner is None:
            if not isinstance(value, _SINGLE):
                return False
        elif isinstance(inner, dict):
            if not _within(value, inner):
                return False
        elif not isinstance(value, list) or not all(_within(item, inner[0]) for item in value):
            return False
    return True
