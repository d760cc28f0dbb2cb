"""Browsing as CloudEvents 1.0 over HTTP: structured, batch and binary mode (CloudEvents HTTP protocol binding §3)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from account_service import schemas
from account_service.domain import PageView
from event_contracts.account import Browsing, BrowsingKind, Line
from event_contracts.moments import Moment
from servicekit.core.errors import UnsupportedMedia
from servicekit.core.metrics import CARD_NUMBERS_REFUSED
from servicekit.http.admission import item_by_item, max_body
from servicekit.http.bodies import read_json
from servicekit.http.cards import find_card
from servicekit.http.problems import invalid_fields

MAX_EVENTS = 500
ONE = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
BINARY = "application/json"


def _random(event_id: UUID) -> UUID:
    """Other versions can be guessed, or computed from something personal (law L2)."""
    if event_id.version not in (4, 7):
        raise PydanticCustomError("uuid_random", "Send a random UUID of your own (version 4 or 7).")
    return event_id


class BrowsingData(schemas.Request):
    page: Line
    sku: Line | None = None
    seconds: Annotated[int, Field(ge=0, le=86_400)] = 0


class BrowsingCloudEvent(BaseModel):
    """One view of a page. `id` becomes the browsing_id, so an event that is sent again changes nothing.

    `type` is the kind of view. Extension attributes are ignored and not kept.
    """

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)
    specversion: Literal["1.0"]
    id: Annotated[UUID, AfterValidator(_random)]
    source: Annotated[str, Field(min_length=1, max_length=200)]
    type: BrowsingKind
    time: Moment
    datacontenttype: Literal["application/json"] = "application/json"
    data: BrowsingData

    def page_view(self) -> PageView:
        browsing = Browsing(page=self.data.page, sku=self.data.sku)
        return PageView(self.id, self.time, self.type, self.data.seconds, browsing)


_BATCH: TypeAdapter[list[BrowsingCloudEvent]] = TypeAdapter(
    Annotated[list[BrowsingCloudEvent], Field(min_length=1, max_length=MAX_EVENTS)]
)


@dataclass(frozen=True)
class PageViews:
    """The events of a request, and how many of a batch are left out for the payment card number in them."""

    kept: list[PageView]
    left_out: int = 0


async def read_page_views(request: Request) -> PageViews:
    """A dependency: the events of a request. Raises `UnsupportedMedia` and `Invalid`."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await request.body()
    try:
        match media_type:
            case "application/cloudevents+json":
                events = [BrowsingCloudEvent.model_validate_json(body)]
            case "application/cloudevents-batch+json":
                return _without_cards(_BATCH.validate_json(body), read_json(body))
            case "application/json" if "ce-specversion" in request.headers:
                events = [_binary(request, body)]
            case _:
                raise UnsupportedMedia
    except ValidationError as error:
        raise invalid_fields(error, "body") from None
    return PageViews([event.page_view() for event in events])


def _without_cards(events: Sequence[BrowsingCloudEvent], sent: Sequence[Any]) -> PageViews:
    """One address of a page that somebody has typed a card number into does not cost the batch: its event goes alone."""
    kept = [event.page_view() for event, item in zip(events, sent, strict=True) if find_card(item) is None]
    left_out = len(events) - len(kept)
    CARD_NUMBERS_REFUSED.inc(left_out)
    return PageViews(kept, left_out)


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
    return {**max_body(512 * 1024), **item_by_item(), "requestBody": {"required": True, "content": content}}
