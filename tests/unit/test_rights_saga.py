"""The sagas of rights requests as given / expect, and over every order of what can happen."""

import itertools
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, get_args
from uuid import uuid4

import pytest

from event_contracts.privacy import DescribeHoldings, EraseHoldings, ExportHoldings, HeldItem, TellRecipients
from privacy_service.holds.domain import Basis, Hold, Item, KeyRef, Scope
from privacy_service.requests.domain import Reason
from privacy_service.sagas.definition import (
    DEFINITIONS,
    SAGAS,
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
    Reply,
    Result,
    Step,
    StepDefinition,
    Timeout,
    Worked,
)
from privacy_service.sagas.machine import (
    Advance,
    Approved,
    Begun,
    Due,
    Enter,
    Message,
    Refuse,
    Rules,
    SaveReply,
    Send,
    SendRectification,
    State,
    Stopped,
    advance,
)

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
SYSTEMS = frozenset(("account", "order", "logistics-gateway"))
ME, ORDER = uuid4(), uuid4()
RULES = Rules(
    participants=SYSTEMS,
    systems_holding={"delivery": frozenset(("order", "logistics-gateway")), "behaviour": frozenset(["account"])},
    disclosers=frozenset(["logistics-gateway"]),
    rectifiers={"identity": frozenset(["account"]), "delivery": frozenset(["order"])},
    duties={"order_record": timedelta(days=3650)},
    erasure_wait=timedelta(days=1),
    command_retry=timedelta(seconds=30),
    hold_check=timedelta(hours=1),
    new_id=uuid4,
)


def state(kind: Kind = Kind.ERASURE, step: Step = Step.PREVIEW, **more: Any) -> State:
    request_id = uuid4()
    given: dict[str, Any] = {"scope": Scope(), "policy": "policy"}
    if step in (Step.PREVIEW, Step.DESCRIBE):
        given["question_id"] = uuid4()
    return State(request_id, ME, request_id, kind, step=step, since=NOW, **{**given, **more})


def item(data_class: str = "order_record", system: str = "order", **held: Any) -> Item:
    return Item(system, HeldItem(**{**_ITEM, "data_class": data_class, **held}))


_ITEM: dict[str, Any] = {"anchor": ORDER, "row_count": 1, "is_open": False, "closed_at": None}


def described(of: State, *items: Item, systems: frozenset[str] = SYSTEMS) -> Described:
    assert of.question_id is not None
    return Described(of.question_id, systems, items)


def begin(given: State, now: datetime, rules: Rules) -> Advance:
    return advance(given, Begun(), now, rules)


def run(given: State, *messages: Message, now: datetime = NOW) -> tuple[State, list[Any]]:
    commands: list[Any] = []
    for message in messages:
        given, more = advance(given, message, now, RULES)
        commands += more
    return given, commands


def entered(commands: Sequence[Any]) -> list[Step]:
    return [command.step for command in commands if isinstance(command, Enter)]


def sent(commands: Sequence[Any]) -> list[Any]:
    return [command.event for command in commands if isinstance(command, Send)]


def test_each_kinds_steps_end_and_every_step_is_known() -> None:
    for steps in STEPS.values():
        assert steps[-1] is Step.DONE
        assert len(set(steps)) == len(steps)
    assert set(DEFINITIONS) == set(Step)


@pytest.mark.parametrize("definition", DEFINITIONS.values(), ids=lambda each: each.step)
def test_a_row_of_the_table_says_what_its_step_waits_for(definition: StepDefinition) -> None:
    assert (definition.command is not None) == (definition.reply in get_args(Reply))
    assert definition.command is None or definition.timeout is Timeout.RETRY
    assert (definition.timeout is Timeout.AT_ONCE) == (
        definition.reply in get_args(Result) and definition.step is not Step.READY
    )
    assert (definition.timeout is Timeout.NEVER) == (definition.step in (Step.APPROVE, Step.DONE))
    assert all(definition in steps for steps in SAGAS.values() if definition.step in [each.step for each in steps])


def test_an_erasure_begins_with_the_question_what_everybody_holds() -> None:
    begun, commands = begin(state(question_id=None), NOW, RULES)
    assert entered(commands) == [Step.PREVIEW]
    assert sent(commands) == [DescribeHoldings(request_id=begun.question_id, subject_id=ME)]
    assert begun.next_try_at == NOW + timedelta(seconds=30)


def test_a_preview_is_complete_when_all_have_answered() -> None:
    given = state()
    some, commands = run(given, described(given, systems=frozenset(["order", "account"])))
    assert (some.step, commands) == (Step.PREVIEW, [SaveReply("account", True), SaveReply("order", True)])
    done, commands = run(some, described(given))
    assert (done.step, done.next_try_at) == (Step.APPROVE, None)
    assert commands == [SaveReply("logistics-gateway", True), Enter(Step.APPROVE)]


@pytest.mark.parametrize("step", [Step.PREVIEW, Step.APPROVE])
def test_approval_begins_the_wait_also_while_somebody_is_silent(step: Step) -> None:
    waiting, commands = run(state(step=step), Approved())
    assert (waiting.step, waiting.next_try_at) == (Step.WAIT, NOW + timedelta(days=1))
    assert entered(commands) == [Step.WAIT]
    early, _ = run(waiting, Due(), now=NOW + timedelta(hours=23))
    assert early == waiting
    over, commands = run(waiting, Due(), now=NOW + timedelta(days=1))
    assert over.step is Step.DESCRIBE
    assert len(sent(commands)) == 1


def test_without_a_wait_the_approval_asks_again_at_once() -> None:
    rules = replace(RULES, erasure_wait=timedelta())
    asked, commands = advance(state(step=Step.APPROVE), Approved(), NOW, rules)
    assert entered(commands) == [Step.WAIT, Step.DESCRIBE]
    assert isinstance(sent(commands)[0], DescribeHoldings)
    assert asked.step is Step.DESCRIBE


@pytest.mark.parametrize("step", Step)
def test_a_stop_ends_what_has_not_begun_to_go(step: Step) -> None:
    stopped, _ = run(state(step=step), Stopped())
    before = (Step.PREVIEW, Step.APPROVE, Step.WAIT, Step.DESCRIBE, Step.EXPORT, Step.RECTIFY)
    assert stopped.step is (Step.DONE if step in before else step)


@pytest.mark.fault(15, "a late answer to an older question")
def test_answers_to_an_older_question_are_dropped() -> None:
    given = state(step=Step.DESCRIBE)
    assert run(given, replace(described(given), question_id=uuid4())) == (given, [])


def test_the_fence_follows_the_description_with_its_holds() -> None:
    given = state(step=Step.DESCRIBE)
    fenced, _ = run(given, described(given, item("delivery", is_open=True), item("identity", "account")))
    assert (fenced.step, fenced.next_try_at) == (Step.FENCE, NOW)
    assert fenced.holds == (Hold("delivery", ORDER, Basis.OPEN_ANCHOR),)


def test_what_was_fenced_is_erased_drained_destroyed_told_probed_and_certified() -> None:
    given = state(step=Step.FENCE)
    erased = [Erased(system, 7, 2, 0) for system in SYSTEMS]
    probed = [Erased(system, 8, 2, 0) for system in SYSTEMS]
    done, commands = run(
        given,
        Fenced(7),
        *erased,
        Drained(frozenset()),
        Destroyed(8),
        Notified("logistics-gateway"),
        *probed,
        Worked(Step.CERTIFY),
    )
    assert entered(commands) == [
        *(Step.ERASE, Step.DRAIN, Step.DESTROY, Step.TELL, Step.PROBE, Step.CERTIFY, Step.DONE)
    ]
    assert done.step is Step.DONE
    assert sent(commands) == [
        EraseHoldings(request_id=given.revocation_id, subject_id=ME, number=7),
        TellRecipients(request_id=given.revocation_id, subject_id=ME),
        EraseHoldings(request_id=given.revocation_id, subject_id=ME, number=8),
    ]


def test_an_answer_of_an_older_number_is_no_probe() -> None:
    given = state(step=Step.PROBE, number=8)
    late, commands = run(given, *[Erased(system, 7, 2, 0) for system in SYSTEMS])
    assert (late, commands) == (given, [])


def test_rows_that_are_left_are_no_end_and_take_back_an_earlier_answer() -> None:
    given = state(step=Step.ERASE, number=7)
    kept, commands = run(given, Erased("order", 7, 0, 0), Erased("order", 7, 1, 3))
    assert kept.acknowledged == frozenset()
    assert commands == [SaveReply("order", True), SaveReply("order", False, 1, 3)]


def test_strangers_answers_are_dropped() -> None:
    given = state(step=Step.ERASE, number=7)
    assert run(given, Erased("nobody", 7, 0, 0)) == (given, [])
    told = state(step=Step.TELL)
    assert run(told, Notified("order")) == (told, [])


def test_holders_are_polled_until_none_is_left() -> None:
    polled, commands = run(state(step=Step.DRAIN), Drained(frozenset(["order"])))
    assert (polled.step, polled.waiting_for, commands) == (Step.DRAIN, frozenset(["order"]), [])
    assert polled.next_try_at is not None
    assert polled.next_try_at > NOW
    assert run(polled, Drained(frozenset()))[0].step is Step.DESTROY


def test_the_silent_are_asked_again_with_pauses_that_grow_to_a_limit() -> None:
    given, _ = begin(state(question_id=None), NOW, RULES)
    pauses, now = [], NOW
    for _ in range(6):
        assert given.next_try_at is not None
        now = given.next_try_at
        question = given.question_id
        given, commands = advance(given, Due(), now, RULES)
        assert [event.request_id for event in sent(commands)] == [question]
        assert given.next_try_at is not None
        pauses.append((given.next_try_at - now).total_seconds())
    assert pauses == [60, 120, 240, 240, 240, 240]


def test_a_hold_with_a_date_is_looked_at_then_and_others_every_so_often() -> None:
    until = NOW + timedelta(days=400)
    dated = (Hold("order_record", ORDER, Basis.LEGAL_OBLIGATION, until),)
    held, _ = run(state(step=Step.CERTIFY, holds=dated), Worked(Step.CERTIFY))
    assert (held.step, held.next_try_at) == (Step.HELD, until)
    undated = (*dated, Hold("delivery", ORDER, Basis.OPEN_ANCHOR))
    held, _ = run(state(step=Step.CERTIFY, holds=undated), Worked(Step.CERTIFY))
    assert held.next_try_at == NOW + timedelta(hours=1)


@pytest.mark.parametrize(
    ("said", "following"),
    [
        ([item("delivery", is_open=True)], Step.HELD),  # as before
        ([], Step.FENCE),  # the hold has ended
        ([item("delivery", closed_at=NOW)], Step.FENCE),
        ([item("delivery", is_open=True), item("payment", is_open=True)], Step.CERTIFY),
    ],
)
def test_a_hold_that_ended_begins_again_with_the_fence(said: list[Item], following: Step) -> None:
    held = state(step=Step.HELD, next_try_at=NOW, holds=(Hold("delivery", ORDER, Basis.OPEN_ANCHOR),))
    asked, commands = run(held, Due())
    assert (asked.step, asked.round) == (Step.DESCRIBE, 1)
    assert len(sent(commands)) == 1
    after, further = run(asked, described(asked, *said))
    assert after.step is following
    # While nothing changes, no look at a hold leaves a line: otherwise the history would grow as long as the hold lasts.
    written = [command for command in [*commands, *further] if isinstance(command, Enter)]
    assert written == ([] if following is Step.HELD else [Enter(following)])


def test_an_access_request_hands_over_packages_and_ends_when_it_was_fetched() -> None:
    given, commands = begin(state(Kind.ACCESS, Step.EXPORT), NOW, RULES)
    assert sent(commands) == [ExportHoldings(request_id=given.request_id, subject_id=ME)]
    some, _ = run(given, Exported(frozenset(["account"])))
    assert some.step is Step.EXPORT
    done, commands = run(some, Exported(SYSTEMS), Worked(Step.PACKAGE), Worked(Step.READY))
    assert entered(commands) == [Step.PACKAGE, Step.READY, Step.DONE]
    assert done.step is Step.DONE


def test_a_rectification_waits_for_the_owner_of_the_data() -> None:
    given, commands = begin(state(Kind.RECTIFICATION, Step.RECTIFY), NOW, RULES)
    assert commands == [Enter(Step.RECTIFY), SendRectification()]
    assert run(given, Rectified("order"))[0] == given
    assert run(given, Rectified("account"))[0].step is Step.DONE


def test_a_rectification_that_its_owner_refuses_ends_with_the_reason() -> None:
    given = state(Kind.RECTIFICATION, Step.RECTIFY)
    assert run(given, Rectified("order", Reason.EMAIL_TAKEN)) == (given, [])
    done, commands = run(given, Rectified("account", Reason.EMAIL_TAKEN))
    assert commands == [SaveReply("account", True), Refuse(Reason.EMAIL_TAKEN), Enter(Step.DONE)]
    assert done.step is Step.DONE


def test_a_retention_request_asks_what_is_held_first() -> None:
    given, commands = begin(state(Kind.RETENTION, Step.DESCRIBE), NOW, RULES)
    assert entered(commands) == [Step.DESCRIBE]
    assert run(given, described(given))[0].step is Step.FENCE


def test_a_retention_request_waits_for_those_that_hold_its_classes_and_nobody_else() -> None:
    """L5: a silent system holds up what it may have, and not what it cannot have."""
    scope = Scope(None, frozenset([KeyRef("behaviour", ORDER)]))
    given, _ = begin(state(Kind.RETENTION, Step.DESCRIBE, scope=scope), NOW, RULES)
    silent, _ = run(given, described(given, systems=frozenset(["order", "logistics-gateway"])))
    assert silent.step is Step.DESCRIBE
    done, commands = run(
        silent,
        described(given, systems=frozenset(["account"])),
        Fenced(7),
        Erased("account", 7, 1, 0),
        Drained(frozenset()),
        Destroyed(8),
        Erased("account", 8, 1, 0),
        Worked(Step.CERTIFY),
    )
    assert done.step is Step.DONE
    assert Step.TELL in entered(commands)  # passed: nobody who discloses has behaviour
    deliveries = state(Kind.RETENTION, Step.TELL, scope=Scope(None, frozenset([KeyRef("delivery", ORDER)])))
    assert run(deliveries, Notified("logistics-gateway"))[0].step is Step.PROBE


def _everything(given: State) -> list[Message]:
    """All that can be heard in the life of an erasure, each of it once, for this question."""
    assert given.question_id is not None
    replies = [Erased(system, number, 1, 0) for number in (7, 8) for system in SYSTEMS]
    work = [Fenced(7), Drained(frozenset()), Drained(frozenset(["order"])), Destroyed(8), Worked(Step.CERTIFY)]
    return [described(given), *replies, Notified("logistics-gateway"), *work, Approved(), Due()]


@pytest.mark.parametrize("step", STEPS[Kind.ERASURE])
def test_no_message_leads_anywhere_but_to_a_later_step_or_a_new_round(step: Step) -> None:
    steps = STEPS[Kind.ERASURE]
    given = state(step=step, number=7, next_try_at=NOW, question_id=uuid4())
    for messages in itertools.permutations(_everything(given), 2):
        after, _ = run(given, *messages, now=NOW + timedelta(days=2))
        assert steps.index(after.step) >= steps.index(given.step) or after.round > given.round


@pytest.mark.fault(6, "a saga's messages, doubled and shuffled")
@pytest.mark.parametrize("seed", range(200))
def test_in_any_order_with_duplicates_the_steps_are_taken_one_by_one_and_end(seed: int) -> None:
    dice = random.Random(seed)
    given, _ = begin(state(question_id=None), NOW, RULES)
    taken: list[Step] = []
    now = NOW
    for _ in range(2_000):
        if given.step is Step.DONE:
            break
        now += timedelta(hours=1)
        before = given.step
        given, commands = advance(given, dice.choice(_everything(given)), now, RULES)
        taken += entered(commands)
        if before in (Step.FENCE, Step.DRAIN, Step.DESTROY):
            # whatever is fenced is destroyed before anything else is said about it
            assert given.step in (before, *STEPS[Kind.ERASURE][STEPS[Kind.ERASURE].index(before) :][:2])
    wanted = list(STEPS[Kind.ERASURE][1:])
    wanted.remove(Step.HELD)
    # an approval may come while the preview is not complete
    assert [step for step in taken if step is not Step.APPROVE] == [s for s in wanted if s is not Step.APPROVE]


@pytest.mark.parametrize("kind", Kind)
def test_the_steps_that_ask_always_say_when_they_ask_again(kind: Kind) -> None:
    for step in STEPS[kind]:
        if DEFINITIONS[step].command is not None:
            given = state(kind, step, next_try_at=NOW, attempts=3, question_id=uuid4())
            after, commands = run(given, Due())
            assert commands
            assert after.next_try_at is not None
            assert after.next_try_at > NOW
