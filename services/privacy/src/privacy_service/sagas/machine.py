"""The saga of one subject of one request: `advance(state, message, now, rules) -> (state, commands)`. Pure.

`definition.py` has the steps. A message that does not belong to the step at hand (late, twice, or about an older question)
changes nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, TypeAlias
from uuid import UUID

from event_contracts.event import Event
from event_contracts.privacy import DescribeHoldings, EraseHoldings, ExportHoldings, TellRecipients
from privacy_service.holds.domain import Basis, Hold, Scope, holds_on, names_of
from privacy_service.sagas.definition import (
    DEFINITIONS,
    STEPS,
    Described,
    Destroyed,
    Drained,
    Erased,
    Exported,
    Fenced,
    Kind,
    Notified,
    Rectified,
    Refusal,
    Reply,
    Result,
    Step,
    Systems,
    Timeout,
    Worked,
)

# A command without a reply is sent again after 1, 2, 4 and then always 8 times the pause of the settings.
LONGEST_BACKOFF: Final = 8
# The classes of a rectification that names none.
ACCOUNT_CLASSES: Final = ("contact", "identity")
FIRST_DRAIN_POLL: Final = timedelta(milliseconds=100)


@dataclass(frozen=True, slots=True)
class Rules:
    """What a saga goes by: the systems of its policy that must reply, the duties to keep, and the settings' pauses.

    By class: `systems_holding` hold it; `rectifiers` correct it; `owners` say whether its anchors are open, for `longest_open` at
    most.
    """

    participants: frozenset[str]
    systems_holding: Mapping[str, frozenset[str]]
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
    """Where one subject stands. `round` counts from 0: each end of a hold begins another. `number` is that of the list's entry.

    `revocation_id` names the subject's revocation in the vault and at the participants; `question_id` the last question
    what is held; `waiting_for` the systems that still work with the keys; `acknowledged` those that have replied in this
    step. `policy` is the digest of the policy under which the round began.
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
    acknowledged: frozenset[str] = frozenset()
    waiting_for: frozenset[str] = frozenset()
    holds: tuple[Hold, ...] = ()


@dataclass(frozen=True, slots=True)
class Begun:
    """The saga takes its first step."""


@dataclass(frozen=True, slots=True)
class Approved:
    """A second person agrees."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """The request was denied or cancelled."""


@dataclass(frozen=True, slots=True)
class Due:
    """The time of `next_try_at` has come."""


Message: TypeAlias = Begun | Approved | Stopped | Due | Reply | Result


@dataclass(frozen=True, slots=True)
class Send:
    """A command for the participants."""

    event: Event


@dataclass(frozen=True, slots=True)
class SendRectification:
    """What support typed in goes to its owner. It is sealed, so it is not in the state."""


@dataclass(frozen=True, slots=True)
class SaveReply:
    """A reply to keep. When it is not final, the system is asked again in this step."""

    system: str
    is_final: bool
    erased: int = 0
    left: int = 0


@dataclass(frozen=True, slots=True)
class Enter:
    """The subject came to this step: an entry of the history."""

    step: Step


@dataclass(frozen=True, slots=True)
class Refuse:
    """The request ends with this reason: to ask again would change nothing."""

    reason: str
    misfits: tuple[str, ...] = ()


Command: TypeAlias = Send | SendRectification | SaveReply | Enter | Refuse
Advance: TypeAlias = tuple[State, list[Command]]


def must_reply(state: State, rules: Rules) -> frozenset[str]:
    """The systems whose reply this step needs."""
    definition = DEFINITIONS[state.step]
    if definition.command is None:
        return frozenset()
    if definition.systems is Systems.RECTIFIERS:
        classes = state.scope.data_classes or ACCOUNT_CLASSES
        return frozenset().union(*(rules.rectifiers.get(name, frozenset()) for name in classes))
    concerned = rules.participants
    if state.scope.names is not None:
        # A system that does not hold the classes of these keys cannot have any of them.
        concerned = frozenset().union(
            *(rules.systems_holding.get(name.data_class, rules.participants) for name in state.scope.names)
        )
    return concerned & rules.disclosers if definition.systems is Systems.DISCLOSERS else concerned


def backoff(state: State, rules: Rules) -> timedelta:
    """How long to wait before the next try."""
    return rules.command_retry * min(1 << min(max(0, state.attempts - 1), 10), LONGEST_BACKOFF)


def advance(state: State, message: Message, now: datetime, rules: Rules) -> Advance:
    """What a message changes, and what is to be sent and saved."""
    match message:
        case Begun():
            return _enter(state, STEPS[state.kind][0], now, rules)
        case Due():
            return _due(state, now, rules)
        case Approved() if state.step in (Step.PREVIEW, Step.APPROVE):
            return _enter(state, Step.WAIT, now, rules)
        case Stopped() if DEFINITIONS[state.step].is_stoppable and state.round == 0:
            return _enter(state, Step.DONE, now, rules)
        case Described() | Erased() | Notified() | Exported() | Rectified():
            return _replied(state, message, now, rules)
        case Fenced() | Drained() | Destroyed() | Worked():
            return _worked(state, message, now, rules)
    return state, []


def _replied(state: State, message: Reply, now: datetime, rules: Rules) -> Advance:
    """A reply of participants."""
    definition = DEFINITIONS[state.step]
    if type(message) is not definition.reply:
        return state, []
    match message:
        case Described() if message.question_id == state.question_id:
            return _described(state, message, now, rules)
        case Erased() if message.number >= state.number:
            is_final = message.left == 0 or definition.refusal is not Refusal.ASK_AGAIN
            return _acknowledge(state, [SaveReply(message.system, is_final, message.erased, message.left)], now, rules)
        case Exported():
            return _acknowledge(state, [SaveReply(system, is_final=True) for system in message.systems], now, rules)
        case Notified():
            return _acknowledge(state, [SaveReply(message.system, is_final=True)], now, rules)
        case Rectified():
            return _rectified(state, message, now, rules)
    return state, []


def _worked(state: State, message: Result, now: datetime, rules: Rules) -> Advance:
    """A result of this service's own work, or of the vault's."""
    definition = DEFINITIONS[state.step]
    if type(message) is not definition.reply:
        return state, []
    match message:
        case Drained() if message.waiting_for and definition.refusal is Refusal.ASK_AGAIN:
            return _poll_again(state, message, now, rules)
        case Drained():
            return _next(state, now, rules)
        case Fenced() | Destroyed():
            return _next(replace(state, number=max(state.number, message.number)), now, rules)
        case Worked() if message.step is state.step:
            return _next(state, now, rules)
    return state, []


def _acknowledge(state: State, replies: Sequence[SaveReply], now: datetime, rules: Rules) -> Advance:
    """Count the replies of systems that must reply. The step ends with the last of them."""
    needed = must_reply(state, rules)
    kept: list[Command] = []
    for reply in replies:
        if reply.system in needed:
            kept.append(reply)
            others = state.acknowledged - {reply.system}
            state = replace(state, acknowledged=others | {reply.system} if reply.is_final else others)
    if not kept or not needed <= state.acknowledged:
        return state, kept
    state, commands = _next(state, now, rules)
    return state, [*kept, *commands]


def _rectified(state: State, message: Rectified, now: datetime, rules: Rules) -> Advance:
    reply = SaveReply(message.system, is_final=True)
    is_refused = message.refused is not None and DEFINITIONS[state.step].refusal is Refusal.END_REQUEST
    if message.refused is None or not is_refused or message.system not in must_reply(state, rules):
        return _acknowledge(state, [reply], now, rules)
    state, commands = _enter(state, Step.DONE, now, rules)
    return state, [reply, Refuse(message.refused, message.misfits), *commands]


def _poll_again(state: State, message: Drained, now: datetime, rules: Rules) -> Advance:
    """A process usually needs as long as its work at hand. One that stands still has until the end of its lease."""
    pause = min(FIRST_DRAIN_POLL * (1 << min(state.attempts, 10)), rules.command_retry)
    return replace(state, waiting_for=message.waiting_for, next_try_at=now + pause), []


def _due(state: State, now: datetime, rules: Rules) -> Advance:
    if state.next_try_at is None or now < state.next_try_at:
        return state, []
    match DEFINITIONS[state.step].timeout:
        case Timeout.ERASURE_WAIT:
            return _next(state, now, rules)
        case Timeout.HOLD_END:
            return _enter(replace(state, round=state.round + 1), Step.DESCRIBE, now, rules)
        case Timeout.RETRY if DEFINITIONS[state.step].command is not None:
            again = replace(state, attempts=state.attempts + 1)
            return replace(again, next_try_at=now + backoff(again, rules)), _commands(again)
    return state, []


def _described(state: State, message: Described, now: datetime, rules: Rules) -> Advance:
    needed = must_reply(state, rules)
    systems = message.systems & needed
    replies: list[Command] = [SaveReply(system, is_final=True) for system in sorted(systems - state.acknowledged)]
    state = replace(state, acknowledged=state.acknowledged | systems)
    if not needed <= state.acknowledged:
        return state, replies
    before, longest = state.holds, rules.longest_open
    holds = holds_on(message.items, message.manual, state.scope, rules.duties, now, longest, before)
    state = replace(state, holds=holds)
    if state.step is Step.PREVIEW:
        following = Step.APPROVE
    elif state.round == 0 or names_of(before) - names_of(holds):
        following = Step.FENCE
    elif _dated(before) != _dated(holds):
        following = Step.CERTIFY  # the same data is held, for other reasons or longer: the certificate says so
    else:
        following = Step.HELD
    state, commands = _enter(state, following, now, rules)
    return state, replies + commands


def _dated(holds: Sequence[Hold]) -> list[tuple[Hold, datetime | None]]:
    return [(hold, hold.until) for hold in holds]


def _next(state: State, now: datetime, rules: Rules) -> Advance:
    steps = STEPS[state.kind]
    return _enter(state, steps[steps.index(state.step) + 1], now, rules)


def _enter(state: State, step: Step, now: datetime, rules: Rules) -> Advance:
    if step is Step.HELD and not state.holds:
        step = Step.DONE
    # A hold without a known end is checked for years. As long as nothing changes, that leaves no entry in the history.
    is_same_hold = state.round > 0 and {state.step, step} == {Step.HELD, Step.DESCRIBE}
    state = replace(
        state, step=step, since=now, next_try_at=None, attempts=0, acknowledged=frozenset(), waiting_for=frozenset()
    )
    definition = DEFINITIONS[step]
    commands: list[Command] = [] if is_same_hold else [Enter(step)]
    if definition.command is DescribeHoldings:
        state = replace(state, question_id=rules.new_id())
    if definition.command is not None:
        state = replace(state, attempts=1)
        commands += _commands(state)
    state = replace(state, next_try_at=_first_try_at(state, now, rules))
    is_over = definition.timeout is Timeout.ERASURE_WAIT and not rules.erasure_wait
    if is_over or (definition.command is not None and not must_reply(state, rules)):
        state, further = _next(state, now, rules)  # also when the policy has no system that must reply
        commands += further
    return state, commands


def _first_try_at(state: State, now: datetime, rules: Rules) -> datetime | None:
    match DEFINITIONS[state.step].timeout:
        case Timeout.RETRY:
            return now + rules.command_retry
        case Timeout.AT_ONCE:
            return now
        case Timeout.ERASURE_WAIT:
            return now + rules.erasure_wait
        case Timeout.HOLD_END:
            # Some holds end at a known date. The others, and open anchors, may end at any time.
            ends = [hold.until for hold in state.holds if hold.until is not None]
            if any(hold.until is None or hold.basis is Basis.OPEN_ANCHOR for hold in state.holds):
                ends.append(now + rules.hold_check)
            return min(ends)
        case Timeout.NEVER:
            return None


def _commands(state: State) -> list[Command]:
    """The command of the step; when it is sent again it is the same."""
    command, revocation, subject = DEFINITIONS[state.step].command, state.revocation_id, state.subject_id
    if command is DescribeHoldings:
        assert state.question_id is not None
        return [Send(DescribeHoldings(request_id=state.question_id, subject_id=subject))]
    if command is EraseHoldings:
        return [Send(EraseHoldings(request_id=revocation, subject_id=subject, number=state.number))]
    if command is TellRecipients:
        return [Send(TellRecipients(request_id=revocation, subject_id=subject))]
    if command is ExportHoldings:
        return [Send(ExportHoldings(request_id=state.request_id, subject_id=subject))]
    return [SendRectification()]
