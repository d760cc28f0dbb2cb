"""What goes over HTTP about a request."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from country_data.fields import CountryCode, EmailAddress, PhoneNumber, StatedConsignee
from event_contracts.account import IdentityCorrection
from event_contracts.codes import DataClass
from event_contracts.moments import Moment
from privacy_service.holds.domain import Basis, Hold, Item, ManualHold, holds_on
from privacy_service.requests.domain import Check, Extension, Reason, Regime, Request, Status
from privacy_service.requests.handlers import MOST_SUBJECTS
from privacy_service.sagas.definition import DEFINITIONS, Kind, Step, Timeout
from privacy_service.sagas.machine import Rules, State, must_reply
from servicekit import Record


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class DeliveryBody(_Body):
    """To whom an order under way goes; the request's subject is its consignee. Its repr shows nothing."""

    order_id: UUID
    consignee: StatedConsignee


class ContactBody(_Body):
    """`country` is that of the phone, when it is written without + and the country's code. It is not kept."""

    country: CountryCode | None = None
    email: EmailAddress | None = None
    phone: PhoneNumber | None = None

    def __repr__(self) -> str:
        return "<ContactBody>"

    __str__ = __repr__


class RectificationBody(_Body):
    """What is right: of the account, or of the delivery of one order. Its repr shows nothing."""

    identity: IdentityCorrection | None = None
    contact: ContactBody | None = None
    delivery: DeliveryBody | None = None


class OwnRequestBody(_Body):
    """What a customer asks for about themselves."""

    kind: Literal["access", "portability", "rectification", "erasure"]
    data_classes: list[DataClass] | None = None
    regime: Regime = Regime.GDPR
    rectification: RectificationBody | None = None


class RequestBody(OwnRequestBody):
    subject_ids: Annotated[list[UUID], Field(min_length=1, max_length=MOST_SUBJECTS)]
    identity_check: Check | None = None


class IdentityBody(_Body):
    check: Check


class DenialBody(_Body):
    reason: Reason


class ExtensionBody(_Body):
    """`until` null: the latest that the law allows."""

    reason: Extension
    until: Moment | None = None


class HoldBody(_Body):
    """`anchor` null: on the whole class. `until` null: until it is lifted."""

    subject_id: UUID
    data_class: DataClass
    anchor: UUID | None = None
    basis: Literal["litigation", "tax_audit", "dispute"]
    until: Moment | None = None


class HoldId(BaseModel):
    hold_id: UUID


class Silent(BaseModel):
    """A system that has not replied yet, since when the step waits for it, and when the command is sent again."""

    system: str
    since: datetime
    next_try_at: datetime | None


class StepState(BaseModel):
    subject_id: UUID
    step: Step
    since: datetime
    waiting_for: list[Silent]


class HoldState(BaseModel):
    """`owner`: the system that says when an open anchor closes. `until` is then the latest day on which it is waited for."""

    subject_id: UUID
    data_class: str
    anchor: UUID
    basis: Basis
    until: datetime | None
    rows: int
    owner: str | None = None


class Outstanding(BaseModel):
    """What is still to come after the end: a hold's end (`hold`), or the reply of a recipient (`recipient`)."""

    what: Literal["hold", "recipient"]
    subject_id: UUID
    data_class: str | None = None
    anchor: UUID | None = None
    until: datetime | None = None
    recipient: str | None = None
    shipments: int | None = None
    told: int | None = None
    answered: int | None = None
    topic_clean_at: datetime | None = None


class HistoryLine(BaseModel):
    at: datetime
    what: str
    by_role: str
    subject_id: UUID | None
    reason: str | None


class RequestSummary(BaseModel):
    request_id: UUID
    kind: Kind
    status: Status
    reason: Reason | None
    regime: Regime
    opened_at: datetime
    due_at: datetime
    extension: Extension | None
    ended_at: datetime | None
    data_classes: list[str] | None


class RequestState(RequestSummary):
    """`certificate`: `pending` until it is in the witnessed log, null when there is none yet."""

    subject_ids: list[UUID]
    steps: list[StepState]
    holds: list[HoldState]
    outstanding: list[Outstanding]
    history: list[HistoryLine]
    certificate: Literal["pending", "ready"] | None


class Goes(BaseModel):
    system: str
    data_class: str
    anchor_count: int
    row_count: int


class Stays(BaseModel):
    system: str
    data_class: str
    anchor: UUID
    row_count: int
    why: Basis
    until: datetime | None


class Preview(BaseModel):
    """Complete once nobody is waited for."""

    complete: bool
    waiting_for: list[Silent]
    goes: list[Goes]
    stays: list[Stays]


def summary(request: Request) -> RequestSummary:
    return RequestSummary.model_validate(_summary(request))


def _summary(request: Request) -> dict[str, object]:
    own = {name: getattr(request, name) for name in RequestSummary.model_fields if name != "data_classes"}
    return {**own, "data_classes": None if request.data_classes is None else list(request.data_classes)}


def state_of(
    request: Request,
    states: Sequence[State],
    recipients: Sequence[Record],
    history: Sequence[Record],
    is_ready: bool | None,
    rules: Mapping[str, Rules],
) -> RequestState:
    """Everything about a request."""
    holds = [
        HoldState(
            subject_id=state.subject_id,
            data_class=hold.data_class,
            anchor=hold.anchor,
            basis=hold.basis,
            until=hold.until,
            rows=hold.rows,
            owner=rules[state.policy].owners.get(hold.data_class) if hold.basis is Basis.OPEN_ANCHOR else None,
        )
        for state in states
        for hold in state.holds
    ]
    return RequestState.model_validate(
        {
            **_summary(request),
            "subject_ids": [state.subject_id for state in states],
            "steps": [step_of(state, rules[state.policy]) for state in states],
            "holds": holds,
            "outstanding": _outstanding(states, recipients),
            "history": [dict(row) for row in history],
            "certificate": None if is_ready is None else "ready" if is_ready else "pending",
        }
    )


def _outstanding(states: Sequence[State], recipients: Sequence[Record]) -> list[Outstanding]:
    holds = [
        Outstanding(
            what="hold",
            subject_id=state.subject_id,
            data_class=hold.data_class,
            anchor=hold.anchor,
            until=hold.until,
        )
        for state in states
        if state.step is Step.HELD
        for hold in state.holds
    ]
    recipients_left = [
        Outstanding(
            what="recipient",
            subject_id=row["subject_id"],
            recipient=row["recipient"],
            shipments=row["shipments"],
            told=row["told"],
            answered=row["answered"],
            topic_clean_at=row["topic_clean_at"],
        )
        for row in recipients
        if row["answered"] < row["shipments"]
    ]
    return [*holds, *recipients_left]


def step_of(state: State, rules: Rules) -> StepState:
    definition = DEFINITIONS[state.step]
    if definition.command is not None and state.next_try_at is not None:
        silent = must_reply(state, rules) - state.acknowledged
    elif state.step is Step.DRAIN and state.waiting_for:
        silent = state.waiting_for
    elif state.step in (Step.FENCE, Step.DRAIN, Step.DESTROY):
        silent = frozenset(["vault"])
    elif definition.timeout is Timeout.AT_ONCE and state.attempts:
        silent = frozenset(["privacy"])  # this service's own work failed: it is tried again
    else:
        silent = frozenset()
    waiting = [Silent(system=name, since=state.since, next_try_at=state.next_try_at) for name in sorted(silent)]
    return StepState(subject_id=state.subject_id, step=state.step, since=state.since, waiting_for=waiting)


def preview_of(
    states: Sequence[State],
    items: Mapping[UUID, Sequence[Item]],
    manual: Mapping[UUID, Sequence[ManualHold]],
    rules: Mapping[str, Rules],
    now: datetime,
) -> Preview:
    """What would go and what would stay by what is known now. Of several reasons to stay the longest is shown."""
    counts: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    stays = []
    for state in states:
        described = items.get(state.question_id, ()) if state.question_id is not None else ()
        by = rules[state.policy]
        holds = holds_on(
            described, manual.get(state.subject_id, ()), state.scope, by.duties, now, by.longest_open, state.holds
        )
        for item in described:
            if not state.scope.covers(item.held.data_class, item.held.anchor):
                continue
            why = _longest([h for h in holds if (h.data_class, h.anchor) == (item.held.data_class, item.held.anchor)])
            if why is None:
                count = counts[item.system, item.held.data_class]
                count[0] += 1
                count[1] += item.held.row_count
            else:
                stays.append(_stays(item, why))
    goes = [
        Goes(system=system, data_class=data_class, anchor_count=anchors, row_count=rows)
        for (system, data_class), (anchors, rows) in sorted(counts.items())
    ]
    previewed = [state for state in states if state.step is Step.PREVIEW]
    waiting = [each for state in previewed for each in step_of(state, rules[state.policy]).waiting_for]
    return Preview(complete=not waiting, waiting_for=waiting, goes=goes, stays=stays)


def _longest(holds: Sequence[Hold]) -> Hold | None:
    """The one that ends last; one without a date ends after all others."""
    return max(holds, key=lambda hold: (hold.until is None, hold.until.timestamp() if hold.until else 0), default=None)


def _stays(item: Item, hold: Hold) -> Stays:
    held = item.held
    return Stays(
        system=item.system,
        data_class=held.data_class,
        anchor=held.anchor,
        row_count=held.row_count,
        why=hold.basis,
        until=hold.until,
    )
