"""Gives messages to the sagas of a batch and saves what follows: a few statements, however many sagas there are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Literal, Self
from uuid import UUID

from event_contracts.event import Event
from event_contracts.personal import Sealed
from event_contracts.privacy import RectifyDelivery, RectifyHoldings
from privacy_service.export import begin_export
from privacy_service.history import store as history_store
from privacy_service.history.domain import HistoryEntry
from privacy_service.history.handlers import record
from privacy_service.sagas import policies, rectifications_store, replies_store, store
from privacy_service.sagas.definition import DEFINITIONS, Kind, Step, Timeout
from privacy_service.sagas.machine import (
    Command,
    Enter,
    Message,
    Refuse,
    Rules,
    SaveReply,
    Send,
    SendRectification,
    State,
    advance,
)
from servicekit import Kit, Record, Tx

# The name of the job that does the sagas' own work.
JOB: Final = "rights"
COMPLETED: Final = "completed"
REFUSED: Final = "refused"


@dataclass(frozen=True, slots=True)
class SagaRunner:
    """The sagas of one locked batch. `save` writes what the messages given to it have changed."""

    _kit: Kit
    _now: datetime
    _rules: Mapping[str, Rules]
    _before: Mapping[tuple[UUID, UUID], State]
    _after: dict[tuple[UUID, UUID], State]
    _commands: list[tuple[State, Command]]

    @classmethod
    async def of(cls, kit: Kit, tx: Tx, states: Sequence[State]) -> Self:
        """Each saga follows the policy under which its round began, even when another one is in force by now."""
        rules = await policies.rules_by_policy(kit, tx, states)
        before = {(state.request_id, state.subject_id): state for state in states}
        return cls(kit, kit.clock.now(), rules, before, dict(before), [])

    def rules(self, state: State) -> Rules:
        return self._rules[state.policy]

    def states(self) -> list[State]:
        """Where all of them stand at this moment."""
        return list(self._after.values())

    def give(self, state: State, message: Message) -> None:
        """Give a message to the saga of this state, at the step where it is by now."""
        current = self._after[state.request_id, state.subject_id]
        following, commands = advance(current, message, self._now, self._rules[current.policy])
        if following.round != current.round:
            following = replace(following, policy=self._kit.policy.digest)
        self._after[state.request_id, state.subject_id] = following
        self._commands.extend((current, command) for command in commands)

    def give_all(self, message: Message) -> None:
        for state in self.states():
            self.give(state, message)

    async def save(self, tx: Tx) -> None:
        """Save states, replies, holds, history and commands, and end requests."""
        changed = [(self._before[key], state) for key, state in self._after.items() if state != self._before[key]]
        if any(new.policy != old.policy for old, new in changed):
            await policies.keep(tx, self._kit.policy)
        if changed:
            await store.save_states(tx, [new for _, new in changed])
        # The last reply of a system at a step counts.
        replies = {
            (state.request_id, state.subject_id, state.round, state.step, command.system): (state, command)
            for state, command in self._commands
            if isinstance(command, SaveReply)
        }
        if replies:
            await replies_store.save_replies(tx, list(replies.values()), self._now)
        # Two holds are equal whatever their ends and rows, so these are compared as well.
        held = [
            new
            for old, new in changed
            if [(hold, hold.until, hold.rows) for hold in old.holds]
            != [(hold, hold.until, hold.rows) for hold in new.holds]
        ]
        if held:
            await store.save_holds(tx, held)
        asked_anew = [old for old, new in changed if old.question_id not in (None, new.question_id)]
        if asked_anew:
            await replies_store.forget_questions(tx, asked_anew)
        entered = [(state, command.step) for state, command in self._commands if isinstance(command, Enter)]
        if entered:
            entries = [HistoryEntry(state.request_id, step, subject_id=state.subject_id) for state, step in entered]
            await history_store.write_history(tx, entries, self._now)
        if any(isinstance(command, Send | SendRectification) for _, command in self._commands):
            await self._send(tx)
        # Requests that the owner of the data refuses end before they count as fulfilled.
        refused = {state.request_id: command for state, command in self._commands if isinstance(command, Refuse)}
        if refused:
            await self._refuse(tx, refused)
        if entered:
            await self._enter(tx, entered)

    async def _send(self, tx: Tx) -> None:
        events: list[Event] = [command.event for _, command in self._commands if isinstance(command, Send)]
        rectified = [state.request_id for state, c in self._commands if isinstance(c, SendRectification)]
        if rectified:
            events += [_rectification(row) for row in await rectifications_store.read_rectifications(tx, rectified)]
        if events:
            await tx.emit(*events)

    async def _refuse(self, tx: Tx, refused: Mapping[UUID, Refuse]) -> None:
        await store.refuse(tx, {request_id: refuse.reason for request_id, refuse in refused.items()}, self._now)
        entries = [
            HistoryEntry(request_id, REFUSED, reason=reason)
            for request_id, refuse in refused.items()
            for reason in (refuse.reason, *refuse.misfits)
        ]
        await record(self._kit, tx, entries)

    async def _enter(self, tx: Tx, entered: Sequence[tuple[State, Step]]) -> None:
        """What begins or ends with these steps: exports, the job's work, the point of no return, whole requests."""
        for request_id in {state.request_id for state, step in entered if step is Step.EXPORT}:
            subjects = [state for state in self._after.values() if state.request_id == request_id]
            kind: Literal["access", "portability"] = "portability" if subjects[0].kind is Kind.PORTABILITY else "access"
            await begin_export(tx, request_id, kind, [state.subject_id for state in subjects], self._now)
        if any(DEFINITIONS[step].timeout is Timeout.AT_ONCE for _, step in entered):
            tx.wake(self._kit.wakes[JOB])
        if running := {state.request_id for state, step in entered if step is Step.FENCE}:
            await store.start_running(tx, running)
        if through := {state.request_id for state, step in entered if step in (Step.HELD, Step.DONE)}:
            ended = await store.complete(tx, through, self._now)
            await record(self._kit, tx, [HistoryEntry(request_id, COMPLETED) for request_id in ended])


def _rectification(row: Record) -> Event:
    if row["order_id"] is not None:
        return RectifyDelivery(
            request_id=row["request_id"],
            subject_id=row["subject_id"],
            order_id=row["order_id"],
            delivery=Sealed(row["delivery"]),
        )
    return RectifyHoldings(
        request_id=row["request_id"],
        subject_id=row["subject_id"],
        identity=None if row["identity"] is None else Sealed(row["identity"]),
        contact=None if row["contact"] is None else Sealed(row["contact"]),
    )
