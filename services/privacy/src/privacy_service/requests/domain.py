"""A rights request as people see it: its kinds, its states, who may decide, and when it is due. Pure."""

import calendar
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from event_contracts.moments import later
from privacy_service.history.domain import Person
from privacy_service.sagas.definition import Kind
from servicekit.core.errors import Conflict, Forbidden, Invalid


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
