"""The saga of one subject of one request: `advance(state, message, now, rules) -> (state, commands)`. Pure.

A message that does not belong to the step at hand (late, twice, or about an older question) changes nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, TypeAlias
from uuid import UUID

from event_contracts.event import Event
from event_contracts.privacy import DescribeHoldings, EraseHoldings, ExportHoldings, TellRecipients
from privacy_service.holds.domain import Basis, Hold, Item, ManualHold, Scope, holds_on, names_of
from privacy_service.sagas.definition import HOW, How, Kind, Step, after, first

# A command that nobody answers is sent again after 1, 2, 4 and then always 8 times the pause of the settings.
LONGEST_BACKOFF: Final = 8
# Nothing has left or gone at these steps; whether a request may still be stopped is its status' to say.
_STOPPABLE: Final = (Step.PREVIEW, Step.APPROVE, Step.WAIT, Step.DESCRIBE, Step.EXPORT, Step.RECTIFY)
# What a rectification is about that names no class.
ACCOUNT_CLASSES: Final = ("contact", "identity")
FIRST_DRAIN_POLL: Final = timedelta(milliseconds=100)


@dataclass(frozen=True, slots=True)
class Rules:
    """What a saga goes by: the systems of its policy that must answer, the duties to keep, and the settings' pauses.

    `holders` hold a class; `rectifiers` correct it; `owners` say whether its anchors are open, for `longest_open` at most.
    """

    participants: frozenset[str]
    holders: Mapping[str, frozenset[str]]
    disclosers: frozenset[str]
    rectifiers: Mapping[str, frozenset[str]]
    duties: Mapping[str, timedelta]
    erasure_wait: timedelta
    command_retry: timedelta
    hold_check: timedelta
    new_id: Callable[[], UUID]
    owners: Mapping[str, str] = field(default_factory=dict)
    longest_open: Mapping[str, timedelta] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class State:
    """Where one subject stands. `round` counts from 0: each end of a hold is another. `number` is that of the list's entry.

    `revocation_id` names the subject's revocation in the vault and at the participants; `question_id` the last question
    what is held; `waiting_for` who still works with the keys; `answered` whoever has answered in this step. `policy` is the
    digest of the policy under which the round began.
    """

    request_id: UUID
    subject_id: UUID
    revocation_id: UUID
    kind: Kind
    scope: Scope
    step: Step
    since: datetime
    policy: str
    next_try_at: datetime | None = None
    attempts: int = 0
    round: int = 0
    number: int = 0
    question_id: UUID | None = None
    answered: frozenset[str] = frozenset()
    waiting_for: frozenset[str] = frozenset()
    holds: tuple[Hold, ...] = ()


@dataclass(frozen=True, slots=True)
class Approved:
    """A second person agrees."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """The request was denied or cancelled."""


@dataclass(frozen=True, slots=True)
class Due:
    """The time of `next_try_at` has come."""


@dataclass(frozen=True, slots=True)
class Described:
    """All parts of the answers of `systems` to a question are there; `items` are all of them."""

    question_id: UUID
    systems: frozenset[str]
    items: Sequence[Item] = ()
    by_hand: Sequence[ManualHold] = ()


@dataclass(frozen=True, slots=True)
class Erased:
    system: str
    number: int
    erased: int
    left: int


@dataclass(frozen=True, slots=True)
class Told:
    system: str


@dataclass(frozen=True, slots=True)
class Exported:
    """These systems have handed over all they hold."""

    systems: frozenset[str]


@dataclass(frozen=True, slots=True)
class Rectified:
    """`refused`: the owner of the data does not correct it, and says why; `misfits`: which fields do not fit, as codes."""

    system: str
    refused: str | None = None
    misfits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Fenced:
    """The vault has fenced and held the keys; the list's last entry about them has this number."""

    number: int


@dataclass(frozen=True, slots=True)
class Drained:
    """Who still works with keys that were named up to the number; nobody: they may be destroyed."""

    waiting_for: frozenset[str]


@dataclass(frozen=True, slots=True)
class Destroyed:
    number: int


@dataclass(frozen=True, slots=True)
class Worked:
    """The step's own work (a certificate, a package) is done, or what was waited for at it (a download) has happened."""

    step: Step


Answer: TypeAlias = Described | Erased | Told | Exported | Rectified
Message: TypeAlias = Approved | Stopped | Due | Answer | Fenced | Drained | Destroyed | Worked


@dataclass(frozen=True, slots=True)
class Send:
    """A command for the participants."""

    event: Event


@dataclass(frozen=True, slots=True)
class SendRectification:
    """What support typed in goes to its owner; it is sealed, so it is not in the state."""


@dataclass(frozen=True, slots=True)
class Note:
    """An answer to be kept; one that `is_final` need not be asked for again in this step."""

    system: str
    is_final: bool
    erased: int = 0
    left: int = 0


@dataclass(frozen=True, slots=True)
class Enter:
    """The history's line: the subject came to this step."""

    step: Step


@dataclass(frozen=True, slots=True)
class Refuse:
    """The request ends with this reason: asking again would change nothing."""

    reason: str
    misfits: tuple[str, ...] = ()


Command: TypeAlias = Send | SendRectification | Note | Enter | Refuse
Advance: TypeAlias = tuple[State, list[Command]]


def begin(state: State, now: datetime, rules: Rules) -> Advance:
    """The first step of a subject."""
    return _enter(state, first(state.kind), now, rules)


def asked(state: State, rules: Rules) -> frozenset[str]:
    """Who must answer at this step."""
    match state.step:
        case Step.TELL:
            return rules.disclosers & _concerned(state, rules)
        case Step.RECTIFY:
            classes = state.scope.data_classes or ACCOUNT_CLASSES
            return frozenset().union(*(rules.rectifiers.get(name, frozenset()) for name in classes))
        case step if HOW[step] is How.ASK:
            return _concerned(state, rules)
    return frozenset()


def _concerned(state: State, rules: Rules) -> frozenset[str]:
    """All participants; of a request about some names only, those that hold their classes: no other has any of it."""
    if state.scope.names is None:
        return rules.participants
    return frozenset().union(*(rules.holders.get(name.data_class, rules.participants) for name in state.scope.names))


def advance(state: State, message: Message, now: datetime, rules: Rules) -> Advance:
    """What a message changes, and what is to be sent and noted."""
    match message:
        case Due():
            return _due(state, now, rules)
        case Approved() if state.step in (Step.PREVIEW, Step.APPROVE):
            return _enter(state, Step.WAIT, now, rules)
        case Stopped() if state.step in _STOPPABLE and state.round == 0:
            return _enter(state, Step.DONE, now, rules)
        case Described() | Erased() | Told() | Exported() | Rectified():
            return _heard(state, message, now, rules)
        case Fenced() | Drained() | Destroyed() | Worked():
            return _worked(state, message, now, rules)
    return state, []


def _heard(state: State, message: Answer, now: datetime, rules: Rules) -> Advance:
    """An answer of participants."""
    match message:
        case Described() if state.step in (Step.PREVIEW, Step.DESCRIBE) and message.question_id == state.question_id:
            return _described(state, message, now, rules)
        case Erased() if state.step in (Step.ERASE, Step.PROBE) and message.number >= state.number:
            note = Note(message.system, message.left == 0, message.erased, message.left)
            return _answered(state, [note], now, rules)
        case Exported() if state.step is Step.EXPORT:
            return _answered(state, [Note(system, is_final=True) for system in message.systems], now, rules)
        case Told() if state.step is Step.TELL:
            return _answered(state, [Note(message.system, is_final=True)], now, rules)
        case Rectified() if state.step is Step.RECTIFY:
            return _rectified(state, message, now, rules)
    return state, []


def _rectified(state: State, message: Rectified, now: datetime, rules: Rules) -> Advance:
    note = Note(message.system, is_final=True)
    if message.refused is None or message.system not in asked(state, rules):
        return _answered(state, [note], now, rules)
    state, commands = _enter(state, Step.DONE, now, rules)
    return state, [note, Refuse(message.refused, message.misfits), *commands]


def _worked(state: State, message: Fenced | Drained | Destroyed | Worked, now: datetime, rules: Rules) -> Advance:
    """A result of our own work, or of the vault's."""
    match message:
        case Fenced() if state.step is Step.FENCE:
            return _next(replace(state, number=max(state.number, message.number)), now, rules)
        case Drained() if state.step is Step.DRAIN:
            return _drained(state, message, now, rules)
        case Destroyed() if state.step is Step.DESTROY:
            return _next(replace(state, number=max(state.number, message.number)), now, rules)
        case Worked() if state.step is message.step:
            return _next(state, now, rules)
    return state, []


def _due(state: State, now: datetime, rules: Rules) -> Advance:
    if state.next_try_at is None or now < state.next_try_at:
        return state, []
    if state.step is Step.WAIT:
        return _next(state, now, rules)
    if state.step is Step.HELD:
        return _enter(replace(state, round=state.round + 1), Step.DESCRIBE, now, rules)
    if HOW[state.step] is How.ASK:
        again = replace(state, attempts=state.attempts + 1)
        return replace(again, next_try_at=now + backoff(again, rules)), _questions(again)
    return state, []


def backoff(state: State, rules: Rules) -> timedelta:
    """How long to wait for what was tried so often."""
    return rules.command_retry * min(1 << min(max(0, state.attempts - 1), 10), LONGEST_BACKOFF)


def _described(state: State, message: Described, now: datetime, rules: Rules) -> Advance:
    systems = message.systems & asked(state, rules)
    notes: list[Command] = [Note(system, is_final=True) for system in sorted(systems - state.answered)]
    state = replace(state, answered=state.answered | systems)
    if not asked(state, rules) <= state.answered:
        return state, notes
    longest = rules.longest_open
    holds = holds_on(message.items, message.by_hand, state.scope, rules.duties, now, longest, state.holds)
    before, state = state.holds, replace(state, holds=holds)
    if state.step is Step.PREVIEW:
        following = Step.APPROVE
    elif state.round == 0 or names_of(before) - names_of(holds):
        following = Step.FENCE
    elif _dated(before) != _dated(holds):
        following = Step.CERTIFY  # the same data is held, for other reasons or longer: the certificate says so
    else:
        following = Step.HELD
    state, commands = _enter(state, following, now, rules)
    return state, notes + commands


def _dated(holds: Sequence[Hold]) -> list[tuple[Hold, datetime | None]]:
    return [(hold, hold.until) for hold in holds]


def _answered(state: State, notes: Sequence[Note], now: datetime, rules: Rules) -> Advance:
    who = asked(state, rules)
    kept = [note for note in notes if note.system in who]
    for note in kept:
        said = state.answered | {note.system} if note.is_final else state.answered - {note.system}
        state = replace(state, answered=said)
    if not kept or not who <= state.answered:
        return state, [*kept]
    state, commands = _next(state, now, rules)
    return state, [*kept, *commands]


def _drained(state: State, message: Drained, now: datetime, rules: Rules) -> Advance:
    if not message.waiting_for:
        return _next(state, now, rules)
    # Usually a holder needs as long as its work at hand; one that stands still has until the end of its lease.
    pause = min(FIRST_DRAIN_POLL * (1 << min(state.attempts, 10)), rules.command_retry)
    return replace(state, waiting_for=message.waiting_for, next_try_at=now + pause), []


def _next(state: State, now: datetime, rules: Rules) -> Advance:
    return _enter(state, after(state.kind, state.step), now, rules)


def _enter(state: State, step: Step, now: datetime, rules: Rules) -> Advance:
    if step is Step.HELD and not state.holds:
        step = Step.DONE
    # A hold without a known end is looked at for years: as long as nothing changes, that leaves no line behind.
    looks_again = state.round > 0 and {state.step, step} == {Step.HELD, Step.DESCRIBE}
    state = replace(
        state, step=step, since=now, next_try_at=None, attempts=0, answered=frozenset(), waiting_for=frozenset()
    )
    commands: list[Command] = [] if looks_again else [Enter(step)]
    if step in (Step.PREVIEW, Step.DESCRIBE):
        state = replace(state, question_id=rules.new_id())
    if HOW[step] is How.ASK:
        state = replace(state, attempts=1, next_try_at=now + rules.command_retry)
        commands += _questions(state)
        if not asked(state, rules):  # a policy without any such system
            state, further = _next(state, now, rules)
            commands += further
    elif step is Step.WAIT:
        state = replace(state, next_try_at=now + rules.erasure_wait)
        if not rules.erasure_wait:
            state, further = _next(state, now, rules)
            commands += further
    elif step is Step.READY:
        state = replace(state, next_try_at=now + rules.command_retry)
    elif step is Step.HELD:
        state = replace(state, next_try_at=_next_check(state.holds, now, rules))
    elif HOW[step] is How.WORK:
        state = replace(state, next_try_at=now)
    return state, commands


def _next_check(holds: Sequence[Hold], now: datetime, rules: Rules) -> datetime:
    """When a hold may end: a date is known, whatever else ends one has to be asked for. An open anchor may close any time."""
    times = [hold.until for hold in holds if hold.until is not None]
    if any(hold.until is None or hold.basis is Basis.OPEN_ANCHOR for hold in holds):
        times.append(now + rules.hold_check)
    return min(times)


def _questions(state: State) -> list[Command]:
    """The command of a step that asks; sent again it is the same."""
    request, revocation, subject = state.request_id, state.revocation_id, state.subject_id
    match state.step:
        case Step.PREVIEW | Step.DESCRIBE:
            assert state.question_id is not None
            return [Send(DescribeHoldings(request_id=state.question_id, subject_id=subject))]
        case Step.ERASE | Step.PROBE:
            return [Send(EraseHoldings(request_id=revocation, subject_id=subject, number=state.number))]
        case Step.TELL:
            return [Send(TellRecipients(request_id=revocation, subject_id=subject))]
        case Step.EXPORT:
            return [Send(ExportHoldings(request_id=request, subject_id=subject))]
        case Step.RECTIFY:
            return [SendRectification()]
    raise AssertionError("unreachable")
