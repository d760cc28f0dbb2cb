"""Browsing as CloudEvents 1.0 over HTTP: structured, batch and binary mode (CloudEvents HTTP protocol binding §3)."""

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from account_service import shapes
from account_service.domain import Look
from event_contracts.account import Browsing, BrowsingKind, Line
from event_contracts.moments import Moment
from servicekit.admission import max_body
from servicekit.errors import UnsupportedMedia
from servicekit.problems import invalid_fields

MAX_EVENTS = 500
ONE = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
BINARY = "application/json"


def _random(event_id: UUID) -> UUID:
    """Other versions can be guessed, or computed from something personal (law L2)."""
    if event_id.version not in (4, 7):
        raise PydanticCustomError("uuid_random", "Send a random UUID of your own (version 4 or 7).")
    return event_id


class BrowsingData(shapes.Request):
    page: Line
    sku: Line | None = None
    seconds: Annotated[int, Field(ge=0, le=86_400)] = 0


class BrowsingCloudEvent(BaseModel):
    """One look at a page. `id` becomes the browsing_id, so an event that is sent again changes nothing.

    `type` is the kind of look. Extension attributes are ignored and not kept.
    """

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)
    specversion: Literal["1.0"]
    id: Annotated[UUID, AfterValidator(_random)]
    source: Annotated[str, Field(min_length=1, max_length=200)]
    type: BrowsingKind
    time: Moment
    datacontenttype: Literal["application/json"] = "application/json"
    data: BrowsingData

    def look(self) -> Look:
        browsing = Browsing(page=self.data.page, sku=self.data.sku)
        return Look(self.id, self.time, self.type, self.data.seconds, browsing)


_BATCH: TypeAdapter[list[BrowsingCloudEvent]] = TypeAdapter(
    Annotated[list[BrowsingCloudEvent], Field(min_length=1, max_length=MAX_EVENTS)]
)


async def read_looks(request: Request) -> list[Look]:
    """A dependency: the events of a request. Raises `UnsupportedMedia` and `Invalid`."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await request.body()
    try:
        match media_type:
            case "application/cloudevents+json":
                events = [BrowsingCloudEvent.model_validate_json(body)]
            case "application/cloudevents-batch+json":
                events = _BATCH.validate_json(body)
            case "application/json" if "ce-specversion" in request.headers:
                events = [_binary(request, body)]
            case _:
                raise UnsupportedMedia
    except ValidationError as error:
        raise invalid_fields(error, "body") from None
    return [event.look() for event in events]


def _binary(request: Request, body: bytes) -> BrowsingCloudEvent:
    """The attributes stand in the headers `ce-…`, the data is the body."""
    attributes = {name[3:]: value for name, value in request.headers.items() if name.startswith("ce-")}
    return BrowsingCloudEvent.model_validate({**attributes, "data": BrowsingData.model_validate_json(body)})


def describe() -> dict[str, Any]:
    """`openapi_extra` of the route: the three forms of the body, and its size."""
    path = "#/paths/~1v1~1browsing-events/post/requestBody/content/{}/schema/$defs/{{model}}"

    def schema(adapter: TypeAdapter[Any], media_type: str) -> dict[str, Any]:
        return {"schema": adapter.json_schema(ref_template=path.format(media_type.replace("/", "~1")))}

    content = {
        ONE: schema(TypeAdapter(BrowsingCloudEvent), ONE),
        BATCH: schema(_BATCH, BATCH),
        BINARY: schema(TypeAdapter(BrowsingData), BINARY),
    }
    return {**max_body(512 * 1024), "requestBody": {"required": True, "content": content}}
