"""What is held of an erased person and why, who may decide what, and when a request is due."""

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from event_contracts.privacy import HeldItem
from privacy_service.history.domain import Person
from privacy_service.holds.domain import Basis, Item, KeyRef, ManualHold, Scope, holds_on
from privacy_service.requests.domain import Check, Extension, Reason, Regime, Request, Status, due_at
from privacy_service.sagas.definition import Kind
from servicekit.core.clock import Clock
from servicekit.core.errors import Conflict, Forbidden, Invalid

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
ME, ORDER = uuid4(), uuid4()
DUTIES = {"order_record": timedelta(days=3650)}


def item(data_class: str = "order_record", system: str = "order", **held: Any) -> Item:
    return Item(system, HeldItem(**{**_ITEM, "data_class": data_class, **held}))


_ITEM: dict[str, Any] = {"anchor": ORDER, "row_count": 1, "is_open": False, "closed_at": None}


def test_an_open_order_and_a_duty_to_keep_hold_and_nothing_else() -> None:
    closed = NOW - timedelta(days=10)
    items = [
        item("delivery", is_open=True),
        item("delivery", "logistics-gateway", is_open=True),
        item("order_record", anchor=ME, closed_at=closed),
        item("payment", closed_at=closed),
        item("identity", "account"),
    ]
    found = holds_on(items, [], Scope(), DUTIES, NOW)
    assert {(h.data_class, h.anchor, h.basis, h.until, h.rows) for h in found} == {
        ("delivery", ORDER, Basis.OPEN_ANCHOR, None, 2),
        ("order_record", ME, Basis.LEGAL_OBLIGATION, closed + timedelta(days=3650), 1),
    }


@pytest.mark.fault(21, "the last day of a duty to keep")
@pytest.mark.parametrize(
    ("days", "held"), [(0, True), (3649, True), (3650, False)], ids=["closed today", "last day", "over"]
)
def test_a_duty_ends_with_its_last_day(days: int, held: bool) -> None:
    items = [item("order_record", closed_at=NOW - timedelta(days=days))]
    assert bool(holds_on(items, [], Scope(), DUTIES, NOW)) is held


def test_of_a_class_with_a_duty_nothing_goes_whose_end_nobody_knows() -> None:
    (hold,) = holds_on([item("order_record")], [], Scope(), DUTIES, NOW)
    assert (hold.basis, hold.until) == (Basis.LEGAL_OBLIGATION, None)


def test_the_longest_of_several_systems_ends_counts() -> None:
    items = [
        item("order_record", "order", closed_at=NOW - timedelta(days=5)),
        item("order_record", "account", closed_at=NOW - timedelta(days=2)),
    ]
    (hold,) = holds_on(items, [], Scope(), DUTIES, NOW)
    assert hold.until == NOW + timedelta(days=3648)


def test_a_manual_hold_keeps_one_anchor_or_a_class_until_its_day() -> None:
    other = uuid4()
    items = [item("contact"), item("contact", anchor=other), item("identity")]

    def held(anchor: UUID | None, until: datetime | None) -> set[UUID]:
        by_hand = [ManualHold("contact", anchor, Basis.LITIGATION, until)]
        return {hold.anchor for hold in holds_on(items, by_hand, Scope(), DUTIES, NOW)}

    assert held(ORDER, None) == {ORDER}
    assert held(None, NOW + timedelta(seconds=1)) == {ORDER, other}
    assert held(None, NOW) == set()


def test_outside_the_scope_nothing_is_held() -> None:
    items = [item("delivery", is_open=True)]
    assert holds_on(items, [], Scope(("identity",)), DUTIES, NOW) == ()
    assert holds_on(items, [], Scope(None, frozenset([KeyRef("delivery", ME)])), DUTIES, NOW) == ()


@pytest.mark.fault(21, "the nights when daylight saving begins and ends")
@pytest.mark.parametrize("opened", ["2026-02-28T01:30", "2026-03-28T02:30", "2026-09-25T01:30", "2026-10-24T23:59"])
def test_a_term_knows_no_daylight_saving(opened: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the machine stands: the same time of day, by the one clock that all systems have."""
    at = datetime.fromisoformat(opened).replace(tzinfo=UTC)
    try:
        for zone in ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe"):
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            assert Clock(timedelta()).now().utcoffset() == timedelta()
            assert due_at(at, Regime.GDPR).timetz() == at.timetz()
            assert due_at(at, Regime.CCPA) - at == timedelta(days=45)
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.fault(21, "ends of months and leap days")
@pytest.mark.parametrize(
    ("opened", "due"),
    [
        ("2026-01-31", "2026-02-28"),
        ("2028-01-31", "2028-02-29"),
        ("2026-12-15", "2027-01-15"),
        ("2026-02-28", "2026-03-28"),
    ],
)
def test_a_month_is_one_of_the_calendar(opened: str, due: str) -> None:
    at = datetime.fromisoformat(opened).replace(tzinfo=UTC)
    assert due_at(at, Regime.GDPR).date().isoformat() == due
    assert due_at(at, Regime.CCPA) == at + timedelta(days=45)


@pytest.mark.parametrize(("regime", "latest"), [(Regime.GDPR, "2026-04-30"), (Regime.CCPA, "2026-05-01")])
def test_a_term_is_extended_once_with_a_reason_while_it_lasts(regime: Regime, latest: str) -> None:
    """GDPR article 12(3)."""
    given = replace(request(Status.RUNNING), regime=regime, due_at=due_at(NOW, regime))
    longest = given.extended(Extension.COMPLEXITY, None, given.due_at)
    assert (longest.due_at.date().isoformat(), longest.extension) == (latest, Extension.COMPLEXITY)
    sooner = given.due_at + timedelta(days=1)
    assert given.extended(Extension.NUMBER_OF_REQUESTS, sooner, NOW).due_at == sooner
    for wrong in (given.due_at, longest.due_at + timedelta(seconds=1)):
        with pytest.raises(Invalid):
            given.extended(Extension.COMPLEXITY, wrong, NOW)
    too_late = given.due_at + timedelta(seconds=1)
    retention = replace(given, kind=Kind.RETENTION)
    for refused, now in ((longest, NOW), (given, too_late), (retention, NOW)):
        with pytest.raises(Conflict):
            refused.extended(Extension.COMPLEXITY, None, now)


SUPPORT, OFFICER = Person(uuid4(), "support"), Person(uuid4(), "privacy_officer")


def request(status: Status, kind: Kind = Kind.ERASURE) -> Request:
    return Request(uuid4(), kind, status, SUPPORT, NOW, due_at(NOW, Regime.GDPR))


def test_only_an_erasure_is_approved() -> None:
    assert request(Status.OPEN).confirmed(Check.CALLBACK).status is Status.AWAITING_APPROVAL
    for kind in (Kind.ACCESS, Kind.PORTABILITY, Kind.RECTIFICATION):
        assert request(Status.OPEN, kind).confirmed(Check.DOCUMENT).status is Status.RUNNING


def test_nobody_approves_their_own_request_or_one_of_their_role() -> None:
    waiting = request(Status.AWAITING_APPROVAL)
    assert waiting.approved(OFFICER).status is Status.WAITING
    for who in (Person(SUPPORT.person_id, "privacy_officer"), Person(uuid4(), "support")):
        with pytest.raises(Forbidden):
            waiting.approved(who)


@pytest.mark.parametrize("status", Status)
def test_each_decision_is_possible_in_its_states_only(status: Status) -> None:
    given = request(status)
    ended = (Status.COMPLETED, Status.DENIED, Status.CANCELLED)
    if status in ended:
        with pytest.raises(Conflict):
            given.extended(Extension.COMPLEXITY, None, NOW)
    else:
        assert given.extended(Extension.COMPLEXITY, None, NOW).status is status
    decisions = {
        "confirm": (lambda: given.confirmed(Check.CALLBACK), {Status.OPEN}),
        "approve": (lambda: given.approved(OFFICER), {Status.AWAITING_APPROVAL}),
        "deny": (lambda: given.denied(Reason.OTHER, NOW), {Status.OPEN, Status.AWAITING_APPROVAL}),
        "cancel": (lambda: given.cancelled(NOW), {Status.OPEN, Status.AWAITING_APPROVAL, Status.WAITING}),
    }
    for decide, possible in decisions.values():
        if status in possible:
            assert decide().status is not status
        else:
            with pytest.raises(Conflict):
                decide()
