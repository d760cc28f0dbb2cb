"""A rights request as people see it: its kinds, its states, who may decide, and when it is due. Pure."""

import calendar
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Final
from uuid import UUID

from event_contracts.moments import later
from event_contracts.privacy import HeldItem
from servicekit.core.errors import Conflict, Forbidden, Invalid

CUSTOMER: Final = "customer"
SYSTEM: Final = "system"


class Kind(StrEnum):
    """What is asked for. A retention request is opened by the retention run, never by a person."""

    ACCESS = "access"
    PORTABILITY = "portability"
    RECTIFICATION = "rectification"
    ERASURE = "erasure"
    RETENTION = "retention"


class NoMatch(Invalid):
    """No event names this id as an account, a guest or a consignee, so nothing was opened. Find the person, then ask again."""

    code = "no_match"


class Status(StrEnum):
    """`open`: the identity is to be confirmed; `waiting`: approved, and may still be cancelled; `running`: no way back."""

    OPEN = "open"
    AWAITING_APPROVAL = "awaiting_approval"
    WAITING = "waiting"
    RUNNING = "running"
    COMPLETED = "completed"
    DENIED = "denied"
    CANCELLED = "cancelled"


class Reason(StrEnum):
    """Why a request ended: `fulfilled`, `cancelled`, a denial in the words of the Data Rights Protocol 1.0, or a refusal
    of the system whose data it is."""

    FULFILLED = "fulfilled"
    CANCELLED = "cancelled"
    SUSPECTED_FRAUD = "suspected_fraud"
    INSUF_VERIFICATION = "insuf_verification"
    NO_MATCH = "no_match"
    CLAIM_NOT_COVERED = "claim_not_covered"
    OUTSIDE_JURISDICTION = "outside_jurisdiction"
    TOO_MANY_REQUESTS = "too_many_requests"
    OTHER = "other"
    EMAIL_TAKEN = "email_taken"
    NOT_UNDER_WAY = "not_under_way"
    DOES_NOT_FIT = "does_not_fit"


# Staff deny for none of these.
NO_DENIAL: Final = frozenset(
    (Reason.FULFILLED, Reason.CANCELLED, Reason.EMAIL_TAKEN, Reason.NOT_UNDER_WAY, Reason.DOES_NOT_FIT)
)


class Check(StrEnum):
    """How somebody made sure that the request comes from the person."""

    DOCUMENT = "document"
    CALLBACK = "callback"
    SIGNED_IN = "signed_in"


class Regime(StrEnum):
    GDPR = "gdpr"
    CCPA = "ccpa"


class Basis(StrEnum):
    """Why data of an erased person stays: by itself, or since somebody set a hold by hand."""

    OPEN_ANCHOR = "open_anchor"
    LEGAL_OBLIGATION = "legal_obligation"
    LITIGATION = "litigation"
    TAX_AUDIT = "tax_audit"
    DISPUTE = "dispute"


@dataclass(frozen=True, slots=True)
class Term:
    """How long a controller has: calendar months and days."""

    months: int = 0
    days: int = 0


class Extension(StrEnum):
    """Why a request takes longer than the term (GDPR article 12(3))."""

    COMPLEXITY = "complexity"
    NUMBER_OF_REQUESTS = "number_of_requests"


# GDPR article 12(3); CCPA regulations §7021. Once extended: two months, or 45 days, more at the most.
TERMS: Final[Mapping[Regime, Term]] = {Regime.GDPR: Term(months=1), Regime.CCPA: Term(days=45)}
LONGEST: Final[Mapping[Regime, Term]] = {Regime.GDPR: Term(months=3), Regime.CCPA: Term(days=90)}


def due_at(opened_at: datetime, regime: Regime) -> datetime:
    """The end of the usual term."""
    return _end(opened_at, TERMS[regime])


def _end(opened_at: datetime, term: Term) -> datetime:
    """The same time of the same day of a later month, or of its last day (Regulation 1182/71, article 3(2)(c))."""
    month = opened_at.month - 1 + term.months
    year, month = opened_at.year + month // 12, month % 12 + 1
    day = min(opened_at.day, calendar.monthrange(year, month)[1])
    return later(opened_at.replace(year=year, month=month, day=day), timedelta(days=term.days))


@dataclass(frozen=True, slots=True)
class Person:
    """Who decides something: a staff member, or the customer."""

    person_id: UUID
    role: str


@dataclass(frozen=True, slots=True)
class Request:
    """One request over confirmed subjects; `data_classes` None: all of them. Each change gives a new state or raises."""

    request_id: UUID
    kind: Kind
    status: Status
    opener: Person
    opened_at: datetime
    due_at: datetime
    data_classes: tuple[str, ...] | None = None
    regime: Regime = Regime.GDPR
    check: Check | None = None
    approver: Person | None = None
    reason: Reason | None = None
    ended_at: datetime | None = None
    extension: Extension | None = None

    def confirmed(self, check: Check) -> "Request":
        """The person is who they say. An erasure still needs somebody's approval. Raises `Conflict`."""
        self._must_be(Status.OPEN)
        following = Status.AWAITING_APPROVAL if self.kind is Kind.ERASURE else Status.RUNNING
        return replace(self, status=following, check=check)

    def approved(self, by: Person) -> "Request":
        """A second person of another role agrees. Raises `Conflict`, or `Forbidden` when it is not a second one."""
        self._must_be(Status.AWAITING_APPROVAL)
        if by.person_id == self.opener.person_id or by.role == self.opener.role:
            raise Forbidden(
                "An erasure is approved by another person of another role than its opener. Ask one of them."
            )
        return replace(self, status=Status.WAITING, approver=by)

    def denied(self, reason: Reason, now: datetime) -> "Request":
        """Raises `Conflict` once it was approved or has ended."""
        self._must_be(Status.OPEN, Status.AWAITING_APPROVAL)
        return replace(self, status=Status.DENIED, reason=reason, ended_at=now)

    def cancelled(self, now: datetime) -> "Request":
        """Until the point of no return, which is the fence of an erasure. Raises `Conflict`."""
        self._must_be(Status.OPEN, Status.AWAITING_APPROVAL, Status.WAITING)
        return replace(self, status=Status.CANCELLED, reason=Reason.CANCELLED, ended_at=now)

    def extended(self, why: Extension, until: datetime | None, now: datetime) -> "Request":
        """A later end of the term, once, while it lasts; `until` None: the latest that the law allows.

        Raises `Conflict` when that is not possible any more, `Invalid` for a moment outside of what is allowed.
        """
        self._must_be(Status.OPEN, Status.AWAITING_APPROVAL, Status.WAITING, Status.RUNNING)
        if self.kind is Kind.RETENTION or self.extension is not None or now > self.due_at:
            raise Conflict("A term is extended once, before it is over, for a person's request. Answer it in time.")
        latest = _end(self.opened_at, LONGEST[self.regime])
        until = until or latest
        if not self.due_at < until <= latest:
            raise Invalid("The new end is not after the term, or later than the law allows. Choose one in between.")
        return replace(self, due_at=until, extension=why)

    def _must_be(self, *statuses: Status) -> None:
        if self.status not in statuses:
            raise Conflict(f"The request is {self.status}, so this cannot be done to it. Read it again and decide.")


@dataclass(frozen=True, slots=True, order=True)
class Name:
    """What one key is for."""

    data_class: str
    anchor: UUID


@dataclass(frozen=True, slots=True)
class Scope:
    """What of a person a request concerns: some classes (None: all) and, of a retention request, some names only."""

    data_classes: tuple[str, ...] | None = None
    names: frozenset[Name] | None = None

    def covers(self, data_class: str, anchor: UUID) -> bool:
        if self.names is not None and Name(data_class, anchor) not in self.names:
            return False
        return self.data_classes is None or data_class in self.data_classes


@dataclass(frozen=True, slots=True)
class Item:
    """What one system says that it holds."""

    system: str
    held: HeldItem


@dataclass(frozen=True, slots=True)
class ManualHold:
    """A hold that somebody set; `anchor` None: on all anchors of the class."""

    data_class: str
    anchor: UUID | None
    basis: Basis
    until: datetime | None


@dataclass(frozen=True, slots=True, order=True)
class Hold:
    """Why a name stays, and until when (None: until something happens). A name may have several."""

    data_class: str
    anchor: UUID
    basis: Basis
    until: datetime | None = field(default=None, compare=False)
    rows: int = field(default=0, compare=False)

    @property
    def name(self) -> Name:
        return Name(self.data_class, self.anchor)


def names_of(holds: Sequence[Hold]) -> frozenset[Name]:
    return frozenset(hold.name for hold in holds)


def holds_on(
    items: Sequence[Item],
    by_hand: Sequence[ManualHold],
    scope: Scope,
    duties: Mapping[str, timedelta],
    now: datetime,
    longest_open: Mapping[str, timedelta] = MappingProxyType({}),
    before: Sequence[Hold] = (),
) -> tuple[Hold, ...]:
    """What of these items stays.

    `longest_open` says how long an open anchor of a class holds an erasure up, from the first of the holds `before` on.

    `duties` are the classes that a law makes us keep, with how long after the anchor closed. Of a class with a duty but
    without a known end nothing is given up: that is a hold without an end until its service knows one.
    """
    found: dict[Hold, Hold] = {}
    ends = _open_ends(before, duties)
    for item in items:
        held = item.held
        if not scope.covers(held.data_class, held.anchor):
            continue
        longest = longest_open.get(held.data_class)
        open_until = ends.get(Name(held.data_class, held.anchor), None if longest is None else now + longest)
        for basis, until in _bases(held, by_hand, duties, now, open_until):
            hold = Hold(held.data_class, held.anchor, basis, until, held.row_count)
            found[hold] = _longer(found[hold], hold) if hold in found else hold
    return tuple(sorted(found.values()))


def _open_ends(before: Sequence[Hold], duties: Mapping[str, timedelta]) -> dict[Name, datetime]:
    """When the open anchors of these holds end at the latest. One whose time is over has left its date in the duty to keep."""
    ends = {hold.name: hold.until for hold in before if hold.basis is Basis.OPEN_ANCHOR and hold.until is not None}
    for hold in before:
        if hold.basis is Basis.LEGAL_OBLIGATION and hold.until is not None and hold.data_class in duties:
            ends.setdefault(hold.name, hold.until - duties[hold.data_class])
    return ends


def _bases(
    held: HeldItem,
    by_hand: Sequence[ManualHold],
    duties: Mapping[str, timedelta],
    now: datetime,
    open_until: datetime | None,
) -> Iterator[tuple[Basis, datetime | None]]:
    closed_at = held.closed_at
    if held.is_open:
        is_over = open_until is not None and open_until <= now
        closed_at = open_until if is_over else None
        if not is_over:
            yield Basis.OPEN_ANCHOR, open_until
    duty = duties.get(held.data_class)
    if duty is not None:
        until = None if closed_at is None else later(closed_at, duty)
        if until is None or until > now:
            yield Basis.LEGAL_OBLIGATION, until
    for hold in by_hand:
        is_here = hold.data_class == held.data_class and hold.anchor in (None, held.anchor)
        if is_here and (hold.until is None or hold.until > now):
            yield hold.basis, hold.until


def _longer(one: Hold, other: Hold) -> Hold:
    """Several systems may hold the same: the longest counts, and no end is the longest."""
    ends = (one.until, other.until)
    until = None if None in ends else max(end for end in ends if end is not None)
    return replace(one, until=until, rows=one.rows + other.rows)
