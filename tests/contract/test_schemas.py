"""Schemas, examples and AsyncAPI documents under version control are those of the code; a breaking change is refused."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import pytest
from pydantic import Field

import event_contracts
from deploy.check import asyncapi, schemas
from event_contracts import Event, PersonalData, Sealed, about, category
from event_contracts.compatibility import breaks
from event_contracts.order import OrderPlaced
from event_contracts.personal import sealed_fields

EXAMPLES = Path(event_contracts.__file__).parent / "examples"
EVENTS = {name: model for name, model in schemas.contracts().items() if issubclass(model, Event)}


def test_committed_schemas_are_those_of_the_code() -> None:
    assert [str(finding) for finding in schemas.find()] == []


def test_committed_asyncapi_documents_are_those_of_the_code() -> None:
    assert [str(finding) for finding in asyncapi.find()] == []


@pytest.mark.parametrize("service", asyncapi.services(), ids=lambda service: service.name)
def test_asyncapi_says_of_every_sealed_field_what_is_in_it(service: Any) -> None:
    document = json.loads(asyncapi.document(service))
    assert document["asyncapi"].startswith("3.")
    described = document["components"]["schemas"]
    for event in service.emits:
        for field in sealed_fields(event):
            told = described[event.__name__]["properties"][field.name]
            privacy = told.get("x-privacy") or told["anyOf"][0]["x-privacy"]
            assert privacy["data_class"] == field.model.data_class
            assert privacy["model"] == field.model.__name__
            assert told["x-about"] == {"subject": field.subject, "anchor": field.anchor}


@pytest.mark.parametrize("name", EVENTS)
def test_every_event_has_an_example_that_its_contract_reads_and_writes_unchanged(name: str) -> None:
    text = (EXAMPLES / name).read_text()
    event = EVENTS[name].model_validate_json(text)
    assert json.loads(event.model_dump_json()) == json.loads(text)


def test_there_is_no_example_without_an_event() -> None:
    assert {path.name for path in EXAMPLES.glob("*.json")} == set(EVENTS)


class Reviewer(PersonalData, data_class="identity"):
    display_name: str = category("user.name", max_length=50)
    city: str | None = category("user.contact.address.city", default=None)


class ReviewPosted(Event, topic="review.events", key="review_id"):
    review_id: UUID
    author_id: UUID
    stars: Annotated[int, Field(ge=1, le=5)]
    note_id: UUID | None = None
    reviewer: Sealed[Reviewer] = about(subject="author_id", anchor="review_id")


BEFORE = schemas.schema_of(ReviewPosted)
PERSON = schemas.schema_of(Reviewer)


def changed(schema: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of the schema with one value set; None takes it out."""
    copy = deepcopy(schema)
    *parents, last = path.split("/")
    place = copy
    for name in parents:
        place = place[name]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return copy


def test_an_unchanged_schema_is_compatible() -> None:
    assert breaks(BEFORE, deepcopy(BEFORE)) == []
    assert breaks(PERSON, deepcopy(PERSON)) == []


@pytest.mark.parametrize(
    "after",
    [
        changed(BEFORE, "properties/shop_id", {"type": "string", "format": "uuid"}),
        changed(BEFORE, "title", "Renamed"),
        changed(
            BEFORE,
            "properties/reviewer/x-privacy/categories",
            ["user.contact.address.city", "user.device", "user.name"],
        ),
    ],
    ids=["new optional field", "title", "sealed model gained an optional field"],
)
def test_a_compatible_change_is_let_through(after: dict[str, Any]) -> None:
    assert breaks(BEFORE, after) == []


@pytest.mark.parametrize(
    ("schema", "path", "value", "what"),
    [
        (BEFORE, "properties/note_id", None, "note_id: the field is gone"),
        (BEFORE, "required", [*BEFORE["required"], "shop_id"], "shop_id: is new and required: old records lack it"),
        (BEFORE, "required", [*BEFORE["required"], "note_id"], "note_id: was optional and is required now"),
        (BEFORE, "required", ["author_id", "stars", "reviewer"], "review_id: was required and is optional now"),
        (BEFORE, "properties/stars/maximum", 4, "stars: maximum changed from 5 to 4"),
        (BEFORE, "properties/stars/type", "string", "stars: its type changed: integer became string"),
        (BEFORE, "properties/review_id/format", "date-time", "review_id: its type changed"),
        (BEFORE, "properties/note_id/anyOf", [{"type": "string", "format": "uuid"}], "note_id: its type changed"),
        (BEFORE, "properties/reviewer/x-privacy/data_class", "contact", "reviewer: what is sealed in it changed"),
        (BEFORE, "properties/reviewer/x-privacy/model", "Other", "reviewer: what is sealed in it changed"),
        (BEFORE, "properties/reviewer/x-privacy/categories", [], "reviewer: what is sealed in it changed"),
        (BEFORE, "properties/reviewer/x-about/subject", "note_id", "reviewer: its subject or anchor changed"),
        (BEFORE, "x-topic", "other.events", "the whole: its topic changed"),
        (BEFORE, "x-key", "author_id", "the whole: its record key changed"),
        (PERSON, "properties/display_name/x-category", "user.contact", "display_name: its category changed"),
        (PERSON, "properties/display_name/maxLength", 20, "display_name: maxLength changed from 50 to 20"),
        (PERSON, "properties/display_name/pattern", "^[a-z]+$", "display_name: pattern changed"),
        (PERSON, "x-data-class", "contact", "the whole: its data class changed"),
    ],
)
def test_a_breaking_change_is_named(schema: dict[str, Any], path: str, value: Any, what: str) -> None:
    (found,) = breaks(schema, changed(schema, path, value))
    assert found.startswith(what)


WIDER = [
    ("properties/display_name/maxLength", 80),
    ("properties/display_name/minLength", None),
    ("properties/display_name/pattern", None),
    ("properties/display_name", {"anyOf": [{"type": "string", "maxLength": 50}, {"type": "null"}]}),
    ("required", []),
]


@pytest.mark.parametrize(("path", "value"), WIDER)
def test_a_sealed_model_may_become_wider_when_its_readers_come_first(path: str, value: Any) -> None:
    """And not narrower again: then old records could not be read."""
    name = {"type": "string", "minLength": 1, "maxLength": 50, "pattern": "^[a-z]+$"}
    before = changed(PERSON, "properties/display_name", name)
    after = changed(before, path, value)
    assert breaks(before, after) != []
    assert breaks(before, after, readers_first=True) == []
    assert breaks(after, before, readers_first=True) != []


def test_a_breaking_change_in_a_nested_part_and_in_an_enum_is_named() -> None:
    before = schemas.schema_of(sealed_fields(OrderPlaced)[0].model)
    nested = changed(before, "$defs/Consignee/properties/phone", None)
    assert "consignee.phone: the field is gone" in breaks(before, nested)
    in_a_list = changed(before, "$defs/CustomsLine/properties/hs_code", None)
    assert "customs[].hs_code: the field is gone" in breaks(before, in_a_list)
    enum = changed(before, "$defs/Service/enum", ["standard", "drone"])
    assert breaks(before, enum) == ["service: its values changed: +drone, -express"]
