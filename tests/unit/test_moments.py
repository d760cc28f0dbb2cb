"""Times that somebody states have bounds, and sums of dates stop at them."""

from datetime import UTC, datetime, timedelta, timezone
from uuid import uuid4

import pytest
from pydantic import TypeAdapter, ValidationError

from event_contracts.event import Event
from event_contracts.logistics_gateway import ShipmentDelivered
from event_contracts.moments import EARLIEST, LATEST, Moment, bounded, is_plausible, later
from event_contracts.privacy import HeldItem
from privacy_service.holds.domain import Basis, Item, ManualHold, Scope, holds_on
from servicekit.core.errors import Poison
from servicekit.kafka.cloudevents import RawRecord, read_event, to_headers, types_of

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
# What asyncpg gives for infinity has no zone.
NO_END, NO_START = datetime.fromisoformat("9999-12-31T23:59:59.999999"), datetime.fromisoformat("0001-01-01")
AT_END, AT_START = NO_END.replace(tzinfo=UTC), NO_START.replace(tzinfo=timezone(timedelta(hours=14)))
# Ends of Python's range in all zones, of what asyncpg gives for infinity, and of our own.
OUT_OF_RANGE = [
    "9999-12-31T23:59:59.999999+00:00",
    "9999-12-31T23:59:59-14:00",
    "0001-01-01T00:00:00+00:00",
    "0001-01-01T00:00:00+14:00",
    "1999-12-31T23:59:59+00:00",
    "2200-01-01T00:00:00+00:00",
    "2026-11-30T12:00:00",
    "0",
]


@pytest.mark.fault(29, "the ends of the calendar, in every zone")
@pytest.mark.parametrize("text", OUT_OF_RANGE)
def test_a_time_out_of_range_is_refused_by_its_own_code(text: str) -> None:
    with pytest.raises(ValidationError) as refused:
        TypeAdapter(Moment).validate_json(f'"{text}"')
    assert [error["type"] for error in refused.value.errors()] == ["implausible_time"]


def test_a_time_is_kept_in_utc() -> None:
    given = datetime(2026, 11, 30, 1, tzinfo=timezone(timedelta(hours=14)))
    kept = TypeAdapter(Moment).validate_python(given)
    assert (kept, kept.tzinfo) == (given, UTC)


@pytest.mark.parametrize("moment", [NO_END, AT_END, datetime(3000, 1, 1, tzinfo=UTC)])
def test_what_a_database_gives_for_infinity_is_the_latest_time(moment: datetime) -> None:
    assert bounded(moment) == LATEST


@pytest.mark.parametrize("moment", [NO_START, AT_START])
def test_what_a_database_gives_for_minus_infinity_is_the_earliest_time(moment: datetime) -> None:
    assert bounded(moment) == EARLIEST


@pytest.mark.parametrize(
    ("moment", "span", "total"),
    [
        (NOW, timedelta(days=3650), NOW + timedelta(days=3650)),
        (LATEST, timedelta(days=3650), LATEST),
        (NO_END, timedelta.max, LATEST),
        (NOW, timedelta.max, LATEST),
        (NOW, timedelta.min, EARLIEST),
        (NO_START, -timedelta(days=1), EARLIEST),
    ],
)
def test_sums_stop_at_the_bounds(moment: datetime, span: timedelta, total: datetime) -> None:
    assert later(moment, span) == total


def test_nobody_knows_of_a_time_before_the_beginning_or_of_one_to_come() -> None:
    since = NOW - timedelta(hours=1)
    inside = (since - timedelta(minutes=4), since, NOW, NOW + timedelta(minutes=4))
    outside = (since - timedelta(minutes=6), NOW + timedelta(minutes=6), datetime(2010, 1, 1, tzinfo=UTC), NO_END)
    assert all(is_plausible(at, since=since, now=NOW) for at in inside)
    assert not any(is_plausible(at, since=since, now=NOW) for at in outside)


@pytest.mark.fault(29, "an event with such a time, in its body or in its envelope")
@pytest.mark.parametrize("text", OUT_OF_RANGE[:-1])
@pytest.mark.parametrize("place", ["body", "envelope"])
def test_an_event_with_such_a_time_is_quarantined_with_that_reason(place: str, text: str) -> None:
    event = ShipmentDelivered(order_id=uuid4(), shipment_id=uuid4(), at=NOW)
    body, headers = event.model_dump_json().encode(), dict(_headers(event))
    if place == "body":
        body = body.replace(b"2026-11-30T12:00:00Z", text.encode())
    else:
        headers["ce_time"] = text.encode()
    record = RawRecord("shipment.events", 0, 0, str(event.order_id).encode(), body, tuple(headers.items()))
    with pytest.raises(Poison) as poison:
        read_event(record, types_of([ShipmentDelivered]))
    assert poison.value.reason == "implausible_time"


def _headers(event: Event) -> list[tuple[str, bytes]]:
    return to_headers(event, event_id=uuid4(), source="logistics-gateway", time=NOW)


@pytest.mark.fault(29, "a participant's closing time and a hold at the end of time")
def test_a_duty_that_begins_at_the_end_of_time_is_a_hold_and_no_error() -> None:
    held = HeldItem(data_class="order_record", anchor=uuid4(), row_count=1, is_open=False, closed_at=LATEST)
    by_hand = [ManualHold("order_record", None, Basis.DISPUTE, LATEST)]
    found = holds_on([Item("order", held)], by_hand, Scope(), {"order_record": timedelta(days=3650)}, NOW)
    assert {(hold.basis, hold.until) for hold in found} == {(Basis.LEGAL_OBLIGATION, LATEST), (Basis.DISPUTE, LATEST)}
