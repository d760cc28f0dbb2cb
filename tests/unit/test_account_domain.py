"""The rules of accounts."""

from datetime import UTC, date, datetime, timedelta, timezone
from uuid import UUID, uuid4

import pytest

from account_service.domain import (
    Notice,
    NoticeKind,
    PageView,
    check_birth_date,
    check_page_views,
    check_room,
    edited,
    month_of,
)
from event_contracts.account import Browsing, BrowsingKind, Contact, Identity
from servicekit.core.errors import Conflict, Invalid

NOW = datetime(2026, 3, 15, tzinfo=UTC)
JANE = UUID(int=1)


def view(at: datetime = NOW, browsing_id: UUID | None = None) -> PageView:
    return PageView(browsing_id or uuid4(), at, BrowsingKind.SEARCHED, 0, Browsing(page="/"))


def test_browsing_of_one_person_and_month_has_one_anchor() -> None:
    assert month_of(JANE, NOW) == month_of(JANE, NOW + timedelta(days=10))
    others = {
        month_of(UUID(int=2), NOW),
        month_of(JANE, NOW + timedelta(days=20)),
        month_of(JANE, NOW.replace(year=2027)),
    }
    assert len(others | {month_of(JANE, NOW)}) == 4


@pytest.mark.fault(21, "a browser in another time zone")
def test_months_are_counted_in_utc_wherever_the_browser_stood() -> None:
    tokyo = datetime(2026, 4, 1, 3, tzinfo=timezone(timedelta(hours=9)))
    (checked,) = check_page_views([view(tokyo)], tokyo)
    assert month_of(JANE, checked.at) == month_of(JANE, datetime(2026, 3, 31, tzinfo=UTC))


def test_looks_are_taken_once_and_in_the_order_of_time() -> None:
    early, late = view(NOW - timedelta(hours=1)), view()
    assert check_page_views([late, early, late], NOW) == [early, late]


@pytest.mark.parametrize("at", [NOW + timedelta(minutes=6), NOW - timedelta(days=32)])
@pytest.mark.fault(21, "a browser's clock is off")
def test_looks_from_the_future_or_long_past_are_refused(at: datetime) -> None:
    with pytest.raises(Invalid):
        check_page_views([view(), view(at)], NOW)


def test_an_edit_touches_only_the_part_that_it_changes() -> None:
    identity, contact = Identity(name="Jane"), Contact(email="jane@example.org", phone="+4915112345678")
    assert edited(identity, contact, {"name": "Jane"}) == (None, None)
    assert edited(identity, contact, {"name": "June", "phone": None}) == (
        Identity(name="June"),
        Contact(email="jane@example.org"),
    )


@pytest.mark.parametrize("born", [date(1899, 12, 31), date(2026, 3, 16)])
def test_birth_dates_of_nobody_alive_are_refused(born: date) -> None:
    check_birth_date(Identity(name="Jane", birth_date=date(2000, 2, 29)), NOW.date())
    with pytest.raises(Invalid):
        check_birth_date(Identity(name="Jane", birth_date=born), NOW.date())


def test_a_notice_is_named_by_its_order_and_kind() -> None:
    order = uuid4()
    ids = {Notice(JANE, order, kind, NOW).notice_id for kind in (*NoticeKind, *NoticeKind)}
    assert len(ids) == len(NoticeKind)


def test_a_full_list_takes_no_more() -> None:
    check_room(49, 50)
    with pytest.raises(Conflict):
        check_room(50, 50)
