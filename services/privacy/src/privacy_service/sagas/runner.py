"""Carries messages to sagas and what follows from them to the database and the outbox: a few statements for any number."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final, Literal, Self
from uuid import uuid4

from event_contracts.account import ACCOUNT_EVENTS
from event_contracts.event import Event
from event_contracts.logistics_gateway import SHIPMENT_EVENTS
from event_contracts.order import ORDER_EVENTS
from event_contracts.personal import Sealed
from event_contracts.privacy import RectifyDelivery, RectifyHoldings
from privacy_service.export import begin_export
from privacy_service.history import store as history_store
from privacy_service.history.domain import HistoryEntry
from privacy_service.history.handlers import record
from privacy_service.participants import participants, systems_holding
from privacy_service.sagas import policies, rectifications_store, replies_store, store
from privacy_service.sagas.definition import HOW, How, Kind, Step
from privacy_service.sagas.machine import (
    ACCOUNT_CLASSES,
    Advance,
    Command,
    Enter,
    Message,
    Note,
    Refuse,
    Rules,
    Send,
    SendRectification,
    State,
    advance,
    begin,
)
from privacy_service.settings import settings_of
from servicekit import Kit, Record, Tx
from servicekit.core.policy import Policy
from servicekit.db.postgres import Database

# The name of the job that does the sagas' own work.
JOB: Final = "rights"
COMPLETED: Final = "completed"
REFUSED: Final = "refused"


def rules_of(kit: Kit, policy: Policy) -> Rules:
    """What a policy and the settings say to the sagas."""
    settings = settings_of(kit)
    return Rules(
        participants=frozenset(participants(policy)),
        holders={name: frozenset(systems_holding(policy, name)) for name in policy.classes},
        disclosers=_owner(policy, SHIPMENT_EVENTS),
        rectifiers={
            **dict.fromkeys(ACCOUNT_CLASSES, _owner(policy, ACCOUNT_EVENTS)),
            "delivery": _owner(policy, ORDER_EVENTS),
        },
        duties={
            name: timedelta(days=rule.retention.days)
            for name, rule in policy.classes.items()
            if rule.retention.obligation
        },
        erasure_wait=timedelta(seconds=settings.erasure_wait_seconds),
        command_retry=timedelta(seconds=settings.command_retry_seconds),
        hold_check=timedelta(seconds=settings.hold_check_seconds),
        new_id=uuid4,
        owners={name: owner for name in policy.classes if (owner := policy.owner(name)) is not None},
        longest_open={
            name: timedelta(days=rule.longest_open_days)
            for name, rule in policy.classes.items()
            if rule.longest_open_days is not None
        },
    )


def _owner(policy: Policy, topic: str) -> frozenset[str]:
    """Who publishes the topic, and so knows what its events are about."""
    return frozenset([policy.topics[topic].owner]) if topic in policy.topics else frozenset()


async def rules_by_policy(kit: Kit, db: Database | Tx, states: Iterable[State]) -> dict[str, Rules]:
    """The rules of the policy in force and of those that these go by, by the policy's digest."""
    current = rules_of(kit, kit.policy)
    others = {state.policy for state in states} - {kit.policy.digest, policies.UNKNOWN}
    found = await policies.read(db, others) if others else []
    return {policies.UNKNOWN: current, kit.policy.digest: current} | {p.digest: rules_of(kit, p) for p in found}


class SagaRunner:
    """The subjects of one locked batch on their way. `save` writes whatever the messages given to it have changed."""

    def __init__(self, kit: Kit, states: Iterable[State], rules: Mapping[str, Rules]) -> None:
        self._kit = kit
        self._rules = rules
        self._now = kit.clock.now()
        self._before = {(state.request_id, state.subject_id): state for state in states}
        self._after = dict(self._before)
        self._commands: list[tuple[State, Command]] = []

    @classmethod
    async def of(cls, kit: Kit, tx: Tx, states: Iterable[State]) -> Self:
        """Each of them goes by the policy under which its round began, whatever policy is in force by now."""
        states = list(states)
        return cls(kit, states, await rules_by_policy(kit, tx, states))

    def rules(self, state: State) -> Rules:
        return self._rules[state.policy]

    def states(self) -> list[State]:
        """Where all of them stand at this moment."""
        return list(self._after.values())

    def begin(self) -> None:
        """All of them take their first step."""
        for state in self.states():
            self._took(state, begin(state, self._now, self.rules(state)))

    def give(self, state: State, message: Message) -> None:
        """A message for one of them, wherever it stands by now."""
        current = self._after[state.request_id, state.subject_id]
        self._took(current, advance(current, message, self._now, self.rules(current)))

    def give_all(self, message: Message) -> None:
        for state in self.states():
            self.give(state, message)

    def _took(self, state: State, outcome: Advance) -> None:
        following, commands = outcome
        if following.round != state.round:
            following = replace(following, policy=self._kit.policy.digest)
        self._after[state.request_id, state.subject_id] = following
        self._commands += [(state, command) for command in commands]

    async def save(self, tx: Tx) -> None:
        """States, answers, holds, history, commands, and the ends of requests."""
        changed = [state for key, state in self._after.items() if state != self._before[key]]
        if any(state.policy != self._before[state.request_id, state.subject_id].policy for state in changed):
            await policies.keep(tx, self._kit.policy)
        if changed:
            await store.save_states(tx, changed)
        await self._save_answers(tx, changed)
        entered = [(state, command.step) for state, command in self._commands if isinstance(command, Enter)]
        if entered:
            lines = [HistoryEntry(state.request_id, step, subject_id=state.subject_id) for state, step in entered]
            await history_store.write_history(tx, lines, self._now)
        await self._send(tx)
        await self._refuse(tx)
        if any(HOW[step] is How.WORK for _, step in entered):
            tx.wake(self._kit.wakes[JOB])
        if running := {state.request_id for state, step in entered if step is Step.FENCE}:
            await store.start_running(tx, running)
        if through := {state.request_id for state, step in entered if step in (Step.HELD, Step.DONE)}:
            ended = await store.complete(tx, through, self._now)
            await record(self._kit, tx, [HistoryEntry(request_id, COMPLETED) for request_id in ended])

    async def _save_answers(self, tx: Tx, changed: Sequence[State]) -> None:
        notes = {
            (state.request_id, state.subject_id, state.round, state.step, command.system): (state, command)
            for state, command in self._commands
            if isinstance(command, Note)
        }
        if notes:
            await replies_store.save_notes(tx, list(notes.values()), self._now)
        before = [self._before[state.request_id, state.subject_id] for state in changed]
        held = [new for old, new in zip(before, changed, strict=True) if _rows(old) != _rows(new)]
        if held:
            await store.save_holds(tx, held)
        forgotten = [
            old
            for old, new in zip(before, changed, strict=True)
            if old.question_id is not None and old.question_id != new.question_id
        ]
        if forgotten:
            await replies_store.forget_questions(tx, forgotten)

    async def _send(self, tx: Tx) -> None:
        events: list[Event] = [command.event for _, command in self._commands if isinstance(command, Send)]
        rectified = [state.request_id for state, c in self._commands if isinstance(c, SendRectification)]
        if rectified:
            events += [_rectification(row) for row in await rectifications_store.read_rectifications(tx, rectified)]
        await self._begin_exports(tx)
        if events:
            await tx.emit(*events)

    async def _refuse(self, tx: Tx) -> None:
        """Requests that the owner of the data refuses end before they count as fulfilled."""
        refused = {state.request_id: command for state, command in self._commands if isinstance(command, Refuse)}
        if refused:
            await store.refuse(tx, {request_id: refuse.reason for request_id, refuse in refused.items()}, self._now)
            lines = [
                HistoryEntry(request_id, REFUSED, reason=reason)
                for request_id, refuse in refused.items()
                for reason in (refuse.reason, *refuse.misfits)
            ]
            await record(self._kit, tx, lines)

    async def _begin_exports(self, tx: Tx) -> None:
        for request_id in {s.request_id for s, c in self._commands if isinstance(c, Enter) and c.step is Step.EXPORT}:
            subjects = [state for state in self._after.values() if state.request_id == request_id]
            kind: Literal["access", "portability"] = "portability" if subjects[0].kind is Kind.PORTABILITY else "access"
            await begin_export(tx, request_id, kind, [state.subject_id for state in subjects], self._now)


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


def _rows(state: State) -> list[tuple[object, ...]]:
    return [(hold, hold.until, hold.rows) for hold in state.holds]
