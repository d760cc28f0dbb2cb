"""Lanes as validated data: which fields of a delivery leave to which carrier, for which destinations and services.

This module is the shape of the data and what makes a lane consistent in itself; `loading.py` reads the files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from enum import StrEnum
from types import UnionType
from typing import Annotated, Any, NamedTuple, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from event_contracts.codes import Country, LaneId, SystemName, Version
from event_contracts.order import Delivery, Service
from lanes.transforms import TRANSFORMS, WHOLE

# `recipient.city`, `customs.commodities[].weight` (of each item of a list), `consignee.lines[0]` (one, only in `from`)
Path_ = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*(\[\d?\])?(\.[a-z][a-z0-9_]*(\[\d?\])?)*$")]
EACH = "[]"


class LaneField(BaseModel):
    """One field that leaves: `from` a path in `Delivery` (or its constant) `to` a path in the carrier's message."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
    to: Path_
    source: Path_ = Field(alias="from")
    transform: str | None = None
    required: bool = False


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
    """One version of a lane. `constants` are the shop's own address and codes, never a person's."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    id: LaneId
    version: Version
    carrier: SystemName
    services: Annotated[tuple[Service, ...], Field(min_length=1)]
    destinations: Annotated[tuple[Country, ...], Field(min_length=1)]
    not_after_hours: Annotated[int, Field(ge=1, le=720)]
    handling: Handling
    constants: dict[Path_, str] = {}
    fields: Annotated[tuple[LaneField, ...], Field(min_length=1)]

    @property
    def paths(self) -> frozenset[str]:
        """Every path that may stand in the carrier's message."""
        return frozenset((*self.constants, *(field.to for field in self.fields)))

    @model_validator(mode="after")
    def _fits(self) -> Self:
        problems = [*_doubled_paths(self), *_list_problems(self)]
        for place, field in enumerate(self.fields):
            problems += [f"fields[{place}]: {problem}" for problem in _source_problems(field)]
        if problems:
            raise ValueError("; ".join(problems))
        return self


def in_force(lanes: Iterable[Lane]) -> tuple[Lane, ...]:
    """The highest version of each lane."""
    newest: dict[str, Lane] = {}
    for lane in sorted(lanes, key=lambda lane: lane.version):
        newest[lane.id] = lane
    return tuple(newest.values())


def _doubled_paths(lane: Lane) -> Iterator[str]:
    paths = [*lane.constants, *(field.to for field in lane.fields)]
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
