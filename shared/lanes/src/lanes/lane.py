"""Lanes as validated data: which fields of a delivery leave to which carrier, for which destinations and services.

This module is the shape of the data and what makes a lane consistent in itself; `loading.py` reads the files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from enum import StrEnum
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from event_contracts.codes import MAX_MINOR, Country, LaneId, SystemName, Version
from event_contracts.order import Delivery, Service
from lanes.transforms import TRANSFORMS, WHOLE

# `recipient.city`, `customs.commodities[].weight` (of each item of a list), `consignee.lines[0]` (one, only in `from`)
Path_ = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*(\[\d?\])?(\.[a-z][a-z0-9_]*(\[\d?\])?)*$")]
EACH = "[]"
Length = Annotated[int, Field(ge=1, le=200)]
# What `required: by_country` may stand for: `country_data.addresses` knows it.
BY_COUNTRY = "by_country"
Number = Literal["vat", "tax_id", "eori"]
COUNTRY_FIELDS = ("consignee.postal_code", "consignee.state")


class Border(StrEnum):
    """Whether a customs or tax border lies between the shop's country and the destination."""

    NONE = "none"
    CROSSED = "crossed"


class LaneField(BaseModel):
    """One field that leaves: `from` a path in `Delivery` (or its constant) `to` a path in the carrier's message.

    `required: by_country` is for a field that only some countries' addresses need. `length`: how many characters the carrier
    takes; a longer value is refused, or shortened at a grapheme's end if the lane says `shorten`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
    to: Path_
    source: Path_ = Field(alias="from")
    transform: str | None = None
    required: bool | Literal["by_country"] = False
    length: Length | None = None
    shorten: bool = False


class Wrap(BaseModel):
    """Lines of text `from` the delivery, wrapped at blanks over the lines that the carrier has; nothing is cut."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
    source: Path_ = Field(alias="from")
    to: Annotated[tuple[Path_, ...], Field(min_length=1, max_length=5)]
    length: Length


class LaneLimit(BaseModel):
    """The least and the most of a number such as `parcels[].weight_g`, or of the items of a list such as `parcels`."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
    of: Path_
    least: Annotated[int, Field(ge=0, le=MAX_MINOR)] | None = None
    most: Annotated[int, Field(ge=0, le=MAX_MINOR)] | None = None


class Joined(BaseModel):
    """The most characters that texts of the carrier's message, such as its address lines, have together with a blank between
    each two: some carriers print them in one line."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
    of: Annotated[tuple[Path_, ...], Field(min_length=2, max_length=5)]
    length: Length


class Disposal(StrEnum):
    DELETION = "deletion"
    ANONYMISATION = "anonymisation"


class RecallBy(StrEnum):
    MESSAGE = "message"


class Handling(BaseModel):
    """What the carrier is bound to do with what it gets (policy D3), and how it is told to delete."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    disposal: Disposal
    retention_days: Annotated[int, Field(ge=1, le=3660)]
    recall: RecallBy


class Lane(BaseModel):
    """One version of a lane. `constants` are the shop's own address and codes, never a person's.

    `border` says on which side of a border the destinations lie, since a country can have places on both; a lane without it,
    as all had before, takes both. `registration`: which numbers of the consignee the carrier gets, if the order has them, and
    where in the message; they are sealed apart from the delivery. Lanes of version 1 cut texts that are too long (`truncate_35`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    id: LaneId
    version: Version
    carrier: SystemName
    services: Annotated[tuple[Service, ...], Field(min_length=1)]
    border: Border | None = None
    destinations: Annotated[tuple[Country, ...], Field(min_length=1)]
    not_after_hours: Annotated[int, Field(ge=1, le=720)]
    handling: Handling
    constants: dict[Path_, str] = {}
    wrap: Wrap | None = None
    limits: tuple[LaneLimit, ...] = ()
    joined: tuple[Joined, ...] = ()
    fields: Annotated[tuple[LaneField, ...], Field(min_length=1)]
    registration: dict[Number, Path_] = {}

    @property
    def paths(self) -> frozenset[str]:
        """Every path that may stand in the carrier's message."""
        return frozenset(_filled(self))

    @property
    def serves(self) -> Iterator[tuple[Country, bool, Service]]:
        """What it is chosen by: country, whether a border is crossed, service."""
        borders = (False, True) if self.border is None else (self.border is Border.CROSSED,)
        return (
            (country, crosses, service)
            for country in self.destinations
            for crosses in borders
            for service in self.services
        )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        problems = [*_doubled_paths(self), *_list_problems(self)]
        for place, field in enumerate(self.fields):
            problems += [f"fields[{place}]: {problem}" for problem in _source_problems(field)]
        problems += [*_wrap_problems(self), *_limit_problems(self), *_joined_problems(self)]
        problems += [f"registration.{n}: {to} names a list" for n, to in self.registration.items() if "[" in to]
        if problems:
            raise ValueError("; ".join(problems))
        return self


def in_force(lanes: Iterable[Lane]) -> tuple[Lane, ...]:
    """The highest version of each lane."""
    newest: dict[str, Lane] = {}
    for lane in sorted(lanes, key=lambda lane: lane.version):
        newest[lane.id] = lane
    return tuple(newest.values())


def _filled(lane: Lane) -> list[str]:
    wrapped = lane.wrap.to if lane.wrap else ()
    return [*lane.constants, *wrapped, *(field.to for field in lane.fields), *lane.registration.values()]


def _doubled_paths(lane: Lane) -> Iterator[str]:
    paths = _filled(lane)
    for path in sorted({path for path in paths if paths.count(path) > 1}):
        yield f"{path} is filled twice; keep one"
    for outer in sorted(set(paths)):
        if any(other.startswith((f"{outer}.", f"{outer}[")) for other in paths):
            yield f"{outer} is both a value and a part with fields; keep one"


def _list_problems(lane: Lane) -> Iterator[str]:
    """Each list in the message is filled from one list of the delivery, so that items cannot be mixed up."""
    sources: dict[str, str] = {}
    for place, field in enumerate(lane.fields):
        if re.search(r"\[\d\]", field.to) or field.to.endswith(EACH):
            yield f"fields[{place}]: `to` names a list; name a field of its items with `[].`"
        elif field.transform in WHOLE:
            if EACH in field.to or field.source.count(EACH) != 1:
                yield f"fields[{place}]: {field.transform} makes one value of a list: `from` must name `[].`, `to` must not"
        elif field.to.count(EACH) != field.source.count(EACH) or field.to.count(EACH) > 1:
            yield f"fields[{place}]: `from` and `to` must go through one list each or through none"
        elif EACH in field.to:
            target, source = field.to.split(EACH)[0], field.source.split(EACH)[0]
            if sources.setdefault(target, source) != source:
                yield f"fields[{place}]: {target} is filled from {sources[target]} already"
    for path in lane.constants:
        if EACH in path and path.split(EACH)[0] not in sources:
            yield f"constants.{path}: no field fills this list"


def _source_problems(field: LaneField) -> Iterator[str]:
    if field.transform is not None and field.transform not in TRANSFORMS:
        yield f"{field.transform} is no transform; there are {', '.join(TRANSFORMS)}"
    try:
        leaf = source_type(field.source)
    except LookupError as error:
        yield f"from {field.source} {error.args[0]}"
        return
    transform = TRANSFORMS.get(field.transform or "")
    if transform is not None and not issubclass(leaf, transform.of):
        yield f"{field.transform} cannot be applied to {field.source}, which is of type {leaf.__name__}"
    if field.length is not None and not issubclass(leaf, str):
        yield f"length is for texts, and {field.source} is of type {leaf.__name__}; use limits"
    if field.shorten and field.length is None:
        yield "shorten needs a length"
    if field.required == BY_COUNTRY and field.source not in COUNTRY_FIELDS:
        yield f"required: {BY_COUNTRY} is for {' and '.join(COUNTRY_FIELDS)}"


def _wrap_problems(lane: Lane) -> Iterator[str]:
    if lane.wrap is None:
        return
    try:
        leaf = source_type(f"{lane.wrap.source}[0]")
    except LookupError as error:
        yield f"wrap.from {lane.wrap.source} {error.args[0]}"
        return
    if not issubclass(leaf, str):
        yield f"wrap.from {lane.wrap.source} is no list of texts"
    if any("[" in path for path in lane.wrap.to) or len({path.rpartition(".")[0] for path in lane.wrap.to}) > 1:
        yield "wrap.to must name single fields of one part"


def _limit_problems(lane: Lane) -> Iterator[str]:
    for place, limit in enumerate(lane.limits):
        if limit.least is None and limit.most is None:
            yield f"limits[{place}]: it says neither `least` nor `most`"
        try:
            if EACH not in limit.of:
                if not _see(_annotation(limit.of)).is_list:
                    raise LookupError("is no list; name a number of its items with `[].`")
            elif not issubclass(source_type(limit.of), int):
                raise LookupError("is no number")
        except LookupError as error:
            yield f"limits[{place}]: {limit.of} {error.args[0]}"


def _joined_problems(lane: Lane) -> Iterator[str]:
    for place, joined in enumerate(lane.joined):
        unknown = [path for path in joined.of if path not in lane.paths or "[" in path]
        if unknown:
            yield f"joined[{place}]: {', '.join(unknown)} is no single text of the message"


def _annotation(part: str) -> Any:
    if part not in Delivery.model_fields:
        raise LookupError("is not a field of Delivery")
    return Delivery.model_fields[part].annotation


class _Seen(NamedTuple):
    kind: type
    is_list: bool
    optional: bool


def source_type(path: str) -> type:
    """The type of the value at a path of `Delivery`. Raises `LookupError` unless the path ends at a single value."""
    here = _Seen(Delivery, False, False)
    for segment in path.split("."):
        name, _, index = segment.partition("[")
        model = here.kind
        if not issubclass(model, BaseModel) or name not in model.model_fields:
            raise LookupError(f"is not a field of Delivery: {model.__name__} has no {name}")
        here = _see(model.model_fields[name].annotation)
        if here.is_list != bool(index):
            wrong = f"needs {name}[] or {name}[0]" if here.is_list else f"must not index {name}: it is no list"
            raise LookupError(wrong)
    if issubclass(here.kind, BaseModel) or path.endswith(EACH):
        raise LookupError("names a whole part; list its fields one by one")
    return here.kind


def can_be_absent(part: str) -> bool:
    """Whether a part of `Delivery`, such as `invoice`, is not in every delivery."""
    info = Delivery.model_fields.get(part)
    return info is not None and _see(info.annotation).optional


def _see(annotation: Any) -> _Seen:
    if get_origin(annotation) is Annotated:
        return _see(get_args(annotation)[0])
    if get_origin(annotation) is tuple:
        return _see(get_args(annotation)[0])._replace(is_list=True)
    if get_origin(annotation) in (Union, UnionType):
        inner = next(arg for arg in get_args(annotation) if arg is not type(None))
        return _see(inner)._replace(optional=True)
    return _Seen(annotation, False, False)
