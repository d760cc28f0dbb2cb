"""Personal data as the contracts see it: classified models, and opaque sealed tokens of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import UnionType
from typing import Any, ClassVar, Generic, TypeVar, Union, get_args, get_origin
from uuid import UUID

from msgspec import Struct, convert
from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from event_contracts import base64url

TOKEN_VERSION = 1
# version, key id, nonce, key commitment, tag: the shortest token there can be (docs/token.md)
MIN_TOKEN_BYTES = 1 + 16 + 12 + 32 + 16
MAX_TOKEN_BYTES = 64 * 1024 * 1024  # a record in quarantine, as a producer may have compressed it

_ABOUT = "x-about"
_CATEGORY = "x-category"


class PersonalData(BaseModel):
    """Personal fields of one data class, each with its fideslang category.

    `class Reviewer(PersonalData, data_class="identity")`. A nested part of another model needs no data class of its own.
    Unknown fields are dropped on reading, so that an older reader can open what a newer writer sealed.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)
    data_class: ClassVar[str | None] = None

    def __init_subclass__(cls, data_class: str | None = None) -> None:
        super().__init_subclass__()
        cls.data_class = data_class

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    __str__ = __repr__


def category(key: str, **constraints: Any) -> Any:
    """A personal field of the fideslang category `key`; `constraints` are those of `pydantic.Field`."""
    return Field(json_schema_extra={_CATEGORY: key}, **constraints)


def categories(model: type[PersonalData]) -> frozenset[str]:
    """All fideslang categories of a model and its nested parts."""
    found: set[str] = set()
    for info in model.model_fields.values():
        extra = info.json_schema_extra
        if isinstance(extra, Mapping) and _CATEGORY in extra:
            found.add(str(extra[_CATEGORY]))
        for part in _leaf_types(info.annotation):
            if isinstance(part, type) and issubclass(part, PersonalData):
                found |= categories(part)
    return frozenset(found)


def _leaf_types(annotation: Any) -> list[Any]:
    if get_origin(annotation) is None:
        return [annotation]
    return [leaf for arg in get_args(annotation) for leaf in _leaf_types(arg)]


T = TypeVar("T", bound=PersonalData)


class Sealed(Generic[T]):
    """An encrypted `T`: a token that services pass on and only code with a purpose opens.

    Of its bytes only the key id may be believed (docs/protocols.md#keys). In JSON it is base64url without padding.
    Raises `ValueError` for bytes that cannot be a token.
    """

    __slots__ = ("key_id", "token")

    def __init__(self, token: bytes) -> None:
        if not MIN_TOKEN_BYTES <= len(token) <= MAX_TOKEN_BYTES or token[0] != TOKEN_VERSION:
            raise ValueError("not a sealed token of a known version")
        self.token = token
        self.key_id = convert(token[1:17], UUID)  # a quarter of the time that UUID(bytes=…) takes

    @classmethod
    def from_text(cls, text: str) -> Sealed[T]:
        try:
            token = base64url.decode(text)
        except ValueError as error:
            raise ValueError("not a sealed token: the text is not base64url") from error
        return cls(token)

    def to_text(self) -> str:
        return base64url.encode(self.token)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sealed) and other.token == self.token

    def __hash__(self) -> int:
        return hash(self.token)

    def __repr__(self) -> str:
        return f"Sealed(key={self.key_id})"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from_text = core_schema.no_info_after_validator_function(cls.from_text, core_schema.str_schema(strict=True))
        return core_schema.json_or_python_schema(
            json_schema=from_text,
            python_schema=core_schema.union_schema([core_schema.is_instance_schema(cls), from_text]),
            serialization=core_schema.plain_serializer_function_ser_schema(cls.to_text, when_used="json"),
            metadata={"sealed": source},
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        (model,) = get_args(schema["metadata"]["sealed"])
        return {
            "type": "string",
            "contentEncoding": "base64url",
            "x-privacy": {
                "model": model.__name__,
                "data_class": model.data_class,
                "categories": sorted(categories(model)),
            },
        }


@dataclass(frozen=True, slots=True)
class Erased:
    """What opening gives when the key is fenced or destroyed: the value is gone, and that is not an error."""

    key_id: UUID


def about(*, subject: str, anchor: str, **constraints: Any) -> Any:
    """Binds a `Sealed` field to the sibling fields that state its subject and its anchor.

    The opener takes both from there, never from the token, so a token that was moved opens nowhere. `constraints` are those of
    `pydantic.Field`.
    """
    return Field(json_schema_extra={_ABOUT: {"subject": subject, "anchor": anchor}}, **constraints)


@dataclass(frozen=True, slots=True)
class SealedField:
    """Where a contract holds a sealed part, and whose it is."""

    name: str
    model: type[PersonalData]
    subject: str
    anchor: str
    optional: bool


class SealedPart(Struct, frozen=True, rename={"data_class": "class", "key_id": "key"}):
    """One sealed value with what binds it, without the token. In JSON it is an entry of the header `ce_sealed`."""

    data_class: str
    subject: UUID
    anchor: UUID
    key_id: UUID


@cache
def sealed_fields(model: type[BaseModel]) -> tuple[SealedField, ...]:
    """The sealed fields of a contract. Raises `TypeError` if one lacks `about(…)` or a data class."""
    fields = []
    for name, info in model.model_fields.items():
        sealed = _sealed_model(info.annotation)
        if sealed is None:
            continue
        extra = info.json_schema_extra
        bound = extra.get(_ABOUT) if isinstance(extra, Mapping) else None
        if not isinstance(bound, Mapping) or sealed.data_class is None:
            raise TypeError(
                f"{model.__name__}.{name}: a Sealed field needs about(subject=…, anchor=…) and a data class"
            )
        subject, anchor = str(bound["subject"]), str(bound["anchor"])
        fields.append(
            SealedField(name, sealed, subject, anchor, not info.is_required() or _is_optional(info.annotation))
        )
    return tuple(fields)


def _sealed_model(annotation: Any) -> type[PersonalData] | None:
    if get_origin(annotation) is Sealed:
        model: type[PersonalData] = get_args(annotation)[0]
        return model
    if get_origin(annotation) in (Union, UnionType):
        return next((m for arg in get_args(annotation) if (m := _sealed_model(arg)) is not None), None)
    return None


def _is_optional(annotation: Any) -> bool:
    return type(None) in get_args(annotation)


def sealed_parts(contract: BaseModel) -> tuple[SealedPart, ...]:
    """What stands sealed in one event, in the order of its fields."""
    parts = []
    for field in sealed_fields(type(contract)):
        sealed = getattr(contract, field.name)
        if sealed is not None:
            subject, anchor = getattr(contract, field.subject), getattr(contract, field.anchor)
            parts.append(SealedPart(str(field.model.data_class), subject, anchor, sealed.key_id))
    return tuple(parts)
