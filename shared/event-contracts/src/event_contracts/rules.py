"""Law L10: nothing unclassified. What a contract may hold outside and inside `PersonalData`, checked on the types.

Pure: `deploy/check/contracts.py` hands in models, fideslang's categories and the policy's classes, and prints the breaches.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from functools import partial
from math import isfinite
from types import ModuleType, NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from uuid import UUID

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from event_contracts.codes import MAX_MINOR, Code
from event_contracts.event import Event
from event_contracts.personal import PersonalData, Sealed, categories, sealed_fields

MAX_ITEMS = 1000
# A pattern that lets one of these through is not the pattern of a code.
_FREE_TEXT = ("Jane Doe", "jane@shop.example", "12 High Street", "+4915112345678", "Jane", "renée", "日本")
_EXTRA = "it keeps unknown fields (extra='allow')", "take extra='allow' away: what is not declared is not classified"
# The header that inventory and consumers read lists the sealed fields of the event itself.
_SEALED_ON_TOP = "make it a field of the event itself, Sealed[…] = about(…), or else no header names it"


@dataclass(frozen=True, slots=True)
class Violation:
    """A field (or, with field None, a whole model) that breaks L10. `what` never holds a value, only names of types."""

    model: type[BaseModel]
    field: str | None
    what: str
    do: str


def models_of(module: ModuleType) -> list[type[BaseModel]]:
    """The contracts and personal models that a module defines itself."""
    defined = (value for value in vars(module).values() if isinstance(value, type) and issubclass(value, BaseModel))
    return [model for model in defined if model.__module__ == module.__name__]


def violations(
    models: Iterable[type[BaseModel]], known_categories: Set[str], classes: Mapping[str, Set[str]]
) -> Iterator[Violation]:
    """All breaches of L10. `classes` are the policy's data classes, each with the categories that it allows."""
    for model in models:
        if issubclass(model, PersonalData):
            yield from _personal(model, known_categories, classes)
        else:
            yield from _contract(model)


def _contract(model: type[BaseModel]) -> Iterator[Violation]:
    found = partial(Violation, model)
    if model.model_config.get("extra") == "allow":
        yield found(None, *_EXTRA)
    decorators = model.__pydantic_decorators__
    for name in (*model.model_computed_fields, *decorators.field_serializers, *decorators.model_serializers):
        yield found(name, "it computes what is written", "make it a plain field, so that its type can be checked")
    for name, info in model.model_fields.items():
        what = _unclassified(info.annotation, info.metadata)
        if what is not None:
            yield found(name, *what)
    if issubclass(model, Event):
        yield from _identifiers(model)


def _identifiers(model: type[Event]) -> Iterator[Violation]:
    """Law L2: the record key, the subject and the anchor are random ids."""
    named = {model.key: "the record key"}
    for field in sealed_fields(model):
        named |= {field.subject: f"the subject of {field.name}", field.anchor: f"the anchor of {field.name}"}
    for name, role in named.items():
        info = model.model_fields.get(name)
        if info is None:
            yield Violation(
                model, None, f"{role} is {name!r}, which is no field of it", "name a field of the same event"
            )
        elif info.annotation is not UUID:
            do = "give it the type UUID; names, numbers and hashes are not ids"
            yield Violation(model, name, f"it is {role} but no UUID", do)


def _unclassified(annotation: Any, metadata: Iterable[Any] = ()) -> tuple[str, str] | None:
    """What is wrong with a type outside `PersonalData`, and what to do; None when it may stand there."""
    origin, facts = get_origin(annotation), list(_facts(metadata))
    if origin is Annotated:
        base, *more = get_args(annotation)
        return _unclassified(base, [*facts, *more])
    if origin in (Union, UnionType):
        return next((found for arg in get_args(annotation) if (found := _unclassified(arg, facts)) is not None), None)
    if origin is tuple:
        return _unclassified_tuple(get_args(annotation), facts)
    if origin in (Sealed, Literal) or annotation in (UUID, bool, datetime, NoneType):
        return None
    if annotation in (Any, object) or not isinstance(annotation, type):
        return f"{_name(annotation)} can hold anything", "seal it (Sealed[…] = about(…)) or declare the exact fields"
    return _unclassified_class(annotation, facts)


def _unclassified_class(annotation: type, facts: list[Any]) -> tuple[str, str] | None:
    if issubclass(annotation, Enum):
        return None
    if issubclass(annotation, str):
        return _unclassified_text(facts)
    if issubclass(annotation, int | float):
        return _unclassified_number(annotation, facts)
    if issubclass(annotation, PersonalData):
        name = annotation.__name__
        return f"{name} stands in it unsealed", f"make it Sealed[{name}] = about(subject=…, anchor=…)"
    if issubclass(annotation, BaseModel):
        if any(Sealed in _parts(info.annotation) for info in annotation.model_fields.values()):
            return f"{annotation.__name__} holds a sealed value", _SEALED_ON_TOP
        inner = next(_contract(annotation), None)
        return None if inner is None else (f"in {annotation.__name__}.{inner.field}: {inner.what}", inner.do)
    return f"{annotation.__name__} is not classified", "use UUID, Enum, bool, datetime, a bounded number or a code type"


def _unclassified_text(facts: list[Any]) -> tuple[str, str] | None:
    if not any(fact is Code or isinstance(fact, Code) for fact in facts):
        return (
            "str can hold a person's data",
            "seal it in a PersonalData model, or use an Enum or a code type (codes.py)",
        )
    pattern = next((fact.pattern for fact in facts if getattr(fact, "pattern", None)), None)
    if pattern is None or any(re.search(pattern, text) for text in _FREE_TEXT):
        return (
            "its code type takes free text",
            "give it a pattern from ^ to $ that no name, address or phone number fits",
        )
    return None


def _unclassified_number(annotation: type, facts: list[Any]) -> tuple[str, str] | None:
    low = [bound for fact in facts for name in ("ge", "gt") if (bound := getattr(fact, name, None)) is not None]
    high = [bound for fact in facts for name in ("le", "lt") if (bound := getattr(fact, name, None)) is not None]
    if low and high and all(isfinite(bound) and abs(bound) <= MAX_MINOR for bound in (*low, *high)):
        return None
    return (
        f"{annotation.__name__} has no bounds within ±{MAX_MINOR}: a phone or card number fits in",
        "bound it: Annotated[int, Field(ge=…, le=…)]",
    )


def _unclassified_tuple(arguments: tuple[Any, ...], facts: list[Any]) -> tuple[str, str] | None:
    if any(get_origin(argument) is Sealed for argument in arguments):
        return "the tuple holds sealed values", _SEALED_ON_TOP
    if Ellipsis in arguments:
        limits = [limit for fact in facts if (limit := getattr(fact, "max_length", None)) is not None]
        if not limits or min(limits) > MAX_ITEMS:
            return (
                "the tuple has no bound",
                f"bound it: Annotated[tuple[…, ...], Field(max_length=…)], at most {MAX_ITEMS}",
            )
    elif not arguments:
        return "the tuple can hold anything", "say what is in it: tuple[UUID, ...]"
    parts = (argument for argument in arguments if argument is not Ellipsis)
    return next((found for part in parts if (found := _unclassified(part)) is not None), None)


def _facts(metadata: Iterable[Any]) -> Iterator[Any]:
    """Constraints, however they were written: pydantic wraps some in a `FieldInfo`."""
    for fact in metadata:
        if isinstance(fact, FieldInfo):
            yield from _facts(fact.metadata)
        else:
            yield fact


def _personal(model: type[PersonalData], known: Set[str], classes: Mapping[str, Set[str]]) -> Iterator[Violation]:
    found = partial(Violation, model)
    if model.model_config.get("extra") == "allow":
        yield found(None, *_EXTRA)
    for name, info in model.model_fields.items():
        extra = info.json_schema_extra
        key = extra.get("x-category") if isinstance(extra, Mapping) else None
        if key is None:
            yield found(name, "it has no category", 'classify it: = category("user.…"), a fideslang data category')
        elif key not in known:
            yield found(
                name, f"{key!r} is no data category of fideslang", "take one from fideslang's taxonomy, below user."
            )
        for part in _parts(info.annotation):
            if _hides_fields(part):
                yield found(
                    name, f"{_name(part)} hides unclassified fields", "declare them in a nested PersonalData model"
                )
    if model.data_class is not None:
        yield from _class(model, classes)


def _class(model: type[PersonalData], classes: Mapping[str, Set[str]]) -> Iterator[Violation]:
    allowed = classes.get(str(model.data_class))
    if allowed is None:
        do = "give the class purposes, retention and recipients in the policy document"
        yield Violation(model, None, f"its data class {model.data_class!r} is not in the policy", do)
        return
    for key in sorted(categories(model) - allowed):
        do = f"add it to classes.{model.data_class}.categories of the policy document, or leave the field out"
        yield Violation(model, None, f"category {key!r} is not among those of the class {model.data_class!r}", do)


def _hides_fields(part: Any) -> bool:
    if part in (Any, object):
        return True
    return isinstance(part, type) and issubclass(part, dict | BaseModel) and not issubclass(part, PersonalData)


def _parts(annotation: Any) -> Iterator[Any]:
    """All types that an annotation is made of."""
    origin = get_origin(annotation)
    if origin is None:
        yield annotation
    elif origin is Annotated:
        yield from _parts(get_args(annotation)[0])
    elif origin is not Literal:
        yield origin
        for argument in get_args(annotation):
            yield from _parts(argument)


def _name(annotation: Any) -> str:
    return str(getattr(annotation, "__name__", annotation))
