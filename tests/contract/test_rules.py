"""Law L10 on types: what a contract may hold outside `PersonalData`, and what every personal model must say."""

import re
from datetime import date, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, computed_field, create_model, field_serializer

from event_contracts import Event, PersonalData, Sealed, about, category
from event_contracts.codes import Code, Country, Quantity, Sku
from event_contracts.rules import Violation, violations

CATEGORIES = frozenset(("user.name", "user.contact.email"))
CLASSES = {"identity": frozenset(("user.name",))}


class Reviewer(PersonalData, data_class="identity"):
    display_name: str = category("user.name")


class Kind(StrEnum):
    GOOD = "good"


class Part(BaseModel):
    country: Country


class LoosePart(BaseModel):
    country: str


class SealedPart(BaseModel):
    author_id: UUID
    reviewer: Sealed[Reviewer] = about(subject="author_id", anchor="author_id")


def breaches(*models: type[BaseModel]) -> list[Violation]:
    return list(violations(models, CATEGORIES, CLASSES))


def event_with(annotation: Any) -> type[Event]:
    """An event with a field `planted` of this type, right in everything else."""
    return create_model(
        "Planted",
        __base__=Event,
        __cls_kwargs__={"topic": "planted.events", "key": "event_id"},
        event_id=(UUID, ...),
        planted=(annotation, ...),
    )


def named(value: object) -> str:
    """The same in every process."""
    return re.sub(r" object at 0x\w+", "", str(value))


@pytest.mark.parametrize(
    "annotation",
    [
        UUID,
        UUID | None,
        bool,
        datetime,
        Kind,
        Literal["a", "b"],
        Country,
        Sku | None,
        Quantity,
        Annotated[float, Field(ge=0, lt=1)],
        Annotated[tuple[Sku, ...], Field(max_length=10)],
        tuple[UUID, Kind],
        Part,
    ],
    ids=named,
)
def test_what_cannot_hold_personal_data_is_accepted(annotation: Any) -> None:
    assert breaches(event_with(annotation)) == []


@pytest.mark.parametrize(
    ("annotation", "what"),
    [
        (str, "str can hold a person's data"),
        (str | None, "str can hold a person's data"),
        (Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")], "str can hold a person's data"),
        (Annotated[str, Code()], "its code type takes free text"),
        (Annotated[str, Code(), StringConstraints(pattern=r"^.{1,20}$")], "its code type takes free text"),
        (Annotated[str, Code(), StringConstraints(pattern=r"[A-Za-z]+")], "its code type takes free text"),
        (Annotated[str, Code(), StringConstraints(pattern=r"^\+?[0-9]+$")], "its code type takes free text"),
        (dict[str, Any], "dict can hold anything"),
        (dict, "dict is not classified"),
        (Any, "Any can hold anything"),
        (object, "object can hold anything"),
        (bytes, "bytes is not classified"),
        (date, "date is not classified"),
        (list[UUID], "list can hold anything"),
        (int, "int has no bounds"),
        (float, "float has no bounds"),
        (Annotated[int, Field(ge=0)], "int has no bounds"),
        (Annotated[int, Field(ge=0, le=10**15)], "int has no bounds"),
        (Annotated[float, Field(ge=0, le=float("inf"))], "float has no bounds"),
        (tuple[UUID, ...], "the tuple has no bound"),
        (Annotated[tuple[UUID, ...], Field(max_length=10**6)], "the tuple has no bound"),
        (Annotated[tuple[str, ...], Field(max_length=10)], "str can hold a person's data"),
        (Reviewer, "Reviewer stands in it unsealed"),
        (Annotated[tuple[Reviewer, ...], Field(max_length=10)], "Reviewer stands in it unsealed"),
        (Annotated[tuple[Sealed[Reviewer], ...], Field(max_length=10)], "the tuple holds sealed values"),
        (SealedPart, "SealedPart holds a sealed value"),
        (LoosePart, "in LoosePart.country: str can hold a person's data"),
    ],
    ids=named,
)
def test_what_can_hold_personal_data_is_refused(annotation: Any, what: str) -> None:
    found = breaches(event_with(annotation))
    assert [breach.field for breach in found] == ["planted"]
    assert found[0].what.startswith(what)
    assert found[0].do


def test_sealed_parts_are_accepted_when_subject_and_anchor_are_ids() -> None:
    class Right(Event, topic="t", key="review_id"):
        review_id: UUID
        author_id: UUID
        reviewer: Sealed[Reviewer] = about(subject="author_id", anchor="review_id")

    class Wrong(Event, topic="t", key="number"):
        number: Quantity
        country: Country
        reviewer: Sealed[Reviewer] = about(subject="country", anchor="nowhere")

    assert breaches(Right) == []
    assert [(found.field, found.what) for found in breaches(Wrong)] == [
        ("number", "it is the record key but no UUID"),
        ("country", "it is the subject of reviewer but no UUID"),
        (None, "the anchor of reviewer is 'nowhere', which is no field of it"),
    ]


def test_an_event_that_keeps_unknown_fields_or_computes_what_it_writes_is_refused() -> None:
    class Keeps(Event, topic="t", key="event_id"):
        model_config = ConfigDict(extra="allow")
        event_id: UUID

    class Computes(Event, topic="t", key="event_id"):
        event_id: UUID

        @computed_field
        def name(self) -> str:
            return "Jane Doe"

    class Serializes(Event, topic="t", key="event_id"):
        event_id: UUID

        @field_serializer("event_id")
        def write(self, value: UUID) -> str:
            return "Jane Doe"

    assert [found.what for found in breaches(Keeps)] == ["it keeps unknown fields (extra='allow')"]
    assert [(found.field, found.what) for found in breaches(Computes)] == [("name", "it computes what is written")]
    assert [(found.field, found.what) for found in breaches(Serializes)] == [("write", "it computes what is written")]


def test_personal_models_say_category_and_class() -> None:
    class Loose(PersonalData, data_class="identity"):
        name: str
        nick: str = category("user.nickname")
        email: str = category("user.contact.email")
        more: dict[str, str] = category("user.name")
        any: tuple[Any, ...] = category("user.name")

    class Unknown(PersonalData, data_class="gossip"):
        name: str = category("user.name")

    assert breaches(Reviewer) == []
    assert [(found.field, found.what) for found in breaches(Loose, Unknown)] == [
        ("name", "it has no category"),
        ("nick", "'user.nickname' is no data category of fideslang"),
        ("more", "dict hides unclassified fields"),
        ("any", "Any hides unclassified fields"),
        (None, "category 'user.contact.email' is not among those of the class 'identity'"),
        (None, "category 'user.nickname' is not among those of the class 'identity'"),
        (None, "its data class 'gossip' is not in the policy"),
    ]
