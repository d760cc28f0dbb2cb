"""What a retention run asks, by the policy. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from event_contracts.event import Event
from event_contracts.moments import later
from event_contracts.privacy import DescribeHoldings, FindExpired
from servicekit.core.policy import Policy
from servicekit.participant.holdings import PSEUDONYM

PAGE: Final = 1000
# Sealed by services for themselves: no system's tables say when they close, so the age of the key counts.
QUARANTINE: Final = "quarantine"
EXPORT: Final = "export"
# A quarantine's key is made at any time of its day, and closes at its end.
_ONE_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a page ends: the time and the anchor of its last item."""

    closed_at: datetime
    anchor: UUID


@dataclass(frozen=True, slots=True)
class Question:
    """Which anchors of a class are past their time; or, with `subject_id`, what is held of one person."""

    question_id: UUID
    run_id: UUID
    data_class: str | None = None
    closed_before: datetime | None = None
    is_unused: bool = False
    after: Cursor | None = None
    subject_id: UUID | None = None

    @property
    def command(self) -> Event:
        if self.subject_id is not None:
            return DescribeHoldings(request_id=self.question_id, subject_id=self.subject_id)
        assert self.data_class is not None
        assert self.closed_before is not None
        return FindExpired(
            request_id=self.question_id,
            data_class=self.data_class,
            closed_before=self.closed_before,
            limit=PAGE,
            unused=self.is_unused,
            after_closed_at=None if self.after is None else self.after.closed_at,
            after_anchor=None if self.after is None else self.after.anchor,
        )


@dataclass(frozen=True, slots=True)
class Rule:
    """Anchors of a class that closed before a moment, or were last used before it, are past their time."""

    data_class: str
    closed_before: datetime
    is_unused: bool


def rules_of(policy: Policy, systems: Iterable[str], now: datetime) -> Iterator[Rule]:
    """Of each class that one of the systems holds, its rules."""
    held = {data_class for system in systems for data_class in policy.systems[system].holds}
    for data_class in sorted(held - {PSEUDONYM, QUARANTINE, EXPORT}):
        retention = policy.classes[data_class].retention
        yield Rule(data_class, later(now, -timedelta(days=retention.days)), is_unused=False)
        if retention.unused_days is not None:
            yield Rule(data_class, later(now, -timedelta(days=retention.unused_days)), is_unused=True)


def scans_of(policy: Policy, now: datetime, unnamed: timedelta) -> dict[str, datetime]:
    """Made before which moment keys are looked at: of a class with a scan of its own, and under "" of all others."""
    scans = {"": later(now, -unnamed)}
    if QUARANTINE in policy.classes:
        scans[QUARANTINE] = later(now, -timedelta(days=policy.classes[QUARANTINE].retention.days) - _ONE_DAY)
    return scans


def next_cursor(ends: Sequence[Cursor], after: Cursor | None) -> Cursor | None:
    """Where the next page begins, when these systems had more than a page: behind the earliest of their ends.

    None when that is no further: a system that repeats itself gets no other question.
    """
    places = sorted(ends, key=lambda place: (place.closed_at, place.anchor))
    if not places:
        return None
    first = places[0]
    if after is not None and (first.closed_at, first.anchor) <= (after.closed_at, after.anchor):
        return None
    return first
