"""Erasures on real Postgres: from the opening to the certificate, with answers in any order, twice and late."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from event_contracts import Event
from event_contracts.privacy import (
    EraseHoldings,
    HoldingsErased,
    RecipientsTold,
    TellRecipients,
    ToldRecipient,
)
from privacy_service import vault_revocations
from privacy_service.holds.domain import KeyRef
from privacy_service.requests import handlers
from servicekit.core import faults
from servicekit.core.errors import Unavailable
from servicekit.core.faults import Fault
from servicekit.db.postgres import Tx
from tests.support.infra import postgres_server
from tests.support.rights import Shop, approve, certificates, open_erasure, shop, show

__all__ = ["postgres_server", "shop"]


async def test_an_erasure_goes_through_all_its_steps(shop: Shop) -> None:
    subject = uuid4()
    key = shop.holds(subject, "account", "identity", subject)
    async with shop.client() as client:
        request_id = await open_erasure(shop, client, subject)
        await shop.settle()
        assert (await show(shop, client, request_id))["status"] == "awaiting_approval"
        preview = await client.get(f"/v1/requests/{request_id}/preview", headers=shop.staff("privacy_officer"))
        assert preview.json() == {
            "complete": True,
            "waiting_for": [],
            "goes": [{"system": "account", "data_class": "identity", "anchor_count": 1, "row_count": 1}],
            "stays": [],
        }
        assert shop.vault.calls == []
        approved = await approve(shop, client, request_id)
        assert approved.json()["status"] == "waiting"
        await shop.settle()
        state = await show(shop, client, request_id)
    assert (state["status"], state["reason"], state["certificate"]) == ("completed", "fulfilled", "pending")
    assert [step["step"] for step in state["steps"]] == ["done"]
    assert shop.vault.states == {key: "destroyed"}
    steps = [line["what"] for line in state["history"]]
    assert steps == [
        *("opened", "identity_confirmed", "preview", "approve", "approved", "wait", "describe", "fence", "erase"),
        *("drain", "destroy", "tell", "probe", "certify", "done", "completed"),
    ]
    numbers = [command.number for command in shop.sent if isinstance(command, EraseHoldings)]
    assert numbers == [1, 2]  # after the fence, and once more after the keys were destroyed
    assert await certificates(shop, request_id) == 1


@pytest.mark.fault(16, "an erasure during an open order and a duty to keep")
async def test_orders_under_way_and_duties_to_keep_are_held_and_go_by_themselves(shop: Shop) -> None:
    subject, order = uuid4(), uuid4()
    delivery = shop.holds(subject, "order", "delivery", order, is_open=True)
    record = shop.holds(subject, "order", "order_record", order, is_open=True)
    name = shop.holds(subject, "account", "identity", subject)
    async with shop.client() as client:
        request_id = await open_erasure(shop, client, subject)
        await shop.settle()
        preview = (await client.get(f"/v1/requests/{request_id}/preview", headers=shop.staff())).json()
        assert {(item["data_class"], item["why"]) for item in preview["stays"]} == {
            ("delivery", "open_anchor"),
            ("order_record", "legal_obligation"),
        }
        await approve(shop, client, request_id)
        await shop.settle()
        state = await show(shop, client, request_id)
        assert state["status"] == "completed"
        assert {(hold["data_class"], hold["basis"]) for hold in state["holds"]} == {
            ("delivery", "open_anchor"),
            ("order_record", "open_anchor"),
            ("order_record", "legal_obligation"),
        }
        assert shop.vault.states == {delivery: "held", record: "held", name: "destroyed"}
        await shop.tick(hours=2)  # nothing has changed, so nothing happens
        await shop.settle()
        assert await certificates(shop, request_id) == 1

        closed = shop.clock.now()
        shop.holds(subject, "order", "delivery", order, closed_at=closed)
        shop.holds(subject, "order", "order_record", order, closed_at=closed)
        await shop.tick(hours=2)
        await shop.settle()
        state = await show(shop, client, request_id)
        assert [(hold["data_class"], hold["basis"]) for hold in state["holds"]] == [
            ("order_record", "legal_obligation")
        ]
        assert shop.vault.states == {delivery: "destroyed", record: "held", name: "destroyed"}
        assert await certificates(shop, request_id) == 2

        await shop.tick(days=3651)
        await shop.settle()
        state = await show(shop, client, request_id)
    assert state["holds"] == state["outstanding"] == []
    assert shop.vault.states == {delivery: "destroyed", record: "destroyed", name: "destroyed"}
    assert await certificates(shop, request_id) == 3


@pytest.mark.fault(19, "a participant of an erasure is silent")
async def test_a_silent_participant_is_named_and_asked_again_with_growing_pauses(shop: Shop) -> None:
    subject = uuid4()
    shop.silent = {"order"}
    async with shop.client() as client:
        request_id = await open_erasure(shop, client, subject)
        await shop.settle()
        (step,) = (await show(shop, client, request_id))["steps"]
        assert (step["step"], [each["system"] for each in step["waiting_for"]]) == ("preview", ["order"])
        (waiting,) = step["waiting_for"]
        assert waiting["since"] == "2026-11-24T00:00:00Z"
        assert waiting["next_try_at"] == "2026-11-24T00:00:01Z"
        pauses = []
        for _ in range(5):
            before = len(shop.sent)
            while len(shop.sent) == before:
                await shop.tick(seconds=1)
                await shop.settle()
            (step,) = (await show(shop, client, request_id))["steps"]
            again = step["waiting_for"][0]["next_try_at"]
            pauses.append((datetime.fromisoformat(again) - shop.clock.now()).total_seconds())
        assert pauses == [2, 4, 8, 8, 8]
        shop.silent = set()
        await shop.tick(seconds=8)
        await shop.settle()
        assert (await show(shop, client, request_id))["steps"][0]["step"] == "approve"


@pytest.mark.fault(6, "answers to a saga, doubled, late and about others")
async def test_answers_that_come_twice_late_or_about_others_change_nothing(shop: Shop) -> None:
    subject = uuid4()
    shop.holds(subject, "account", "identity", subject)
    seen: list[Event] = []
    async with shop.client() as client:
        request_id = await open_erasure(shop, client, subject)
        approved = False
        for _ in range(40):
            await shop.work()
            commands = await shop.asked()
            replies = [answer for command in commands for answer in shop.answers(command)]
            await shop.hear(*reversed(seen))
            for reply in replies:
                await shop.hear(reply, reply)
            await shop.hear(*seen, *replies)
            seen += replies
            state = await show(shop, client, request_id)
            if state["status"] == "awaiting_approval" and state["steps"][0]["step"] == "approve" and not approved:
                await approve(shop, client, request_id)
                approved = True
        assert state["status"] == "completed"
        steps = [line["what"] for line in state["history"] if line["subject_id"]]
        assert len(steps) == len(set(steps))
        stranger = HoldingsErased(
            request_id=UUID(request_id), subject_id=uuid4(), system="order", number=9, erased=0, left=0
        )
        await shop.hear(stranger, *seen)
        assert (await show(shop, client, request_id))["history"] == state["history"]
    assert await certificates(shop, request_id) == 1


async def test_rows_that_are_left_are_asked_about_until_none_is(shop: Shop) -> None:
    subject = uuid4()
    shop.left = {"order": 3}
    async with shop.client() as client:
        request_id = await open_erasure(shop, client, subject)
        await shop.settle()
        await approve(shop, client, request_id)
        await shop.settle()
        (step,) = (await show(shop, client, request_id))["steps"]
        assert (step["step"], [each["system"] for each in step["waiting_for"]]) == ("erase", ["order"])
        shop.left = {}
        await shop.tick(seconds=1)
        await shop.settle()
        assert (await show(shop, client, request_id))["status"] == "completed"


async def test_a_holder_that_is_not_done_keeps_the_keys_from_being_destroyed(shop: Shop) -> None:
    subject = uuid4()
    key = shop.holds(subject, "account", "identity", subject)
    shop.vault.held_up = ["logistics-gateway"]
    async with shop.client() as client:
        request_id = await open_erasure(shop, client, subject)
        await shop.settle()
        await approve(shop, client, request_id)
        await shop.settle()
        (step,) = (await show(shop, client, request_id))["steps"]
        assert (step["step"], [each["system"] for each in step["waiting_for"]]) == ("drain", ["logistics-gateway"])
        assert shop.vault.states == {key: "fenced"}
        shop.vault.held_up = []
        await shop.tick(seconds=1)
        await shop.settle()
        assert (await show(shop, client, request_id))["status"] == "completed"


async def test_a_recipients_answer_amends_the_certificate(shop: Shop) -> None:
    subject = uuid4()
    told = ToldRecipient(recipient="meridian", shipments=2, told=2, answered=0, topic_clean_at=None)
    shop.recipients = (told,)
    async with shop.client() as client:
        request_id = await open_erasure(shop, client, subject)
        await shop.settle()
        await approve(shop, client, request_id)
        await shop.settle()
        state = await show(shop, client, request_id)
        assert state["status"] == "completed"
        assert [(each["recipient"], each["answered"]) for each in state["outstanding"]] == [("meridian", 0)]
        for answered, count in ((1, 2), (1, 2), (2, 3)):
            reply = RecipientsTold(
                request_id=UUID(request_id),
                subject_id=subject,
                system="logistics-gateway",
                recipients=(told.model_copy(update={"answered": answered}),),
            )
            await shop.hear(reply)
            await shop.settle()
            assert await certificates(shop, request_id) == count
        assert (await show(shop, client, request_id))["outstanding"] == []


async def test_an_erasure_of_classes_fences_only_those(shop: Shop) -> None:
    subject, month = uuid4(), uuid4()
    name = shop.holds(subject, "account", "identity", subject)
    browsing = shop.holds(subject, "account", "behaviour", month)
    async with shop.client() as client:
        request_id = await open_erasure(shop, client, subject, data_classes=["behaviour"])
        await shop.settle()
        await approve(shop, client, request_id)
        await shop.settle()
        assert (await show(shop, client, request_id))["status"] == "completed"
    assert shop.vault.states == {browsing: "destroyed"}
    assert name not in shop.vault.states


async def test_a_request_over_several_people_ends_when_all_are_through(shop: Shop) -> None:
    subjects = [uuid4() for _ in range(3)]
    for subject in subjects:
        shop.holds(subject, "account", "identity", subject)
    async with shop.client() as client:
        request_id = await open_erasure(shop, client, *subjects)
        await shop.settle()
        await approve(shop, client, request_id)
        await shop.work()
        one = [c for c in await shop.asked() if c.subject_id == subjects[0]]  # type: ignore[attr-defined]
        while one:  # the others' participants are slow
            await shop.hear(*(answer for command in one for answer in shop.answers(command)))
            await shop.work()
            one = [c for c in await shop.asked() if c.subject_id == subjects[0]]  # type: ignore[attr-defined]
        state = await show(shop, client, request_id)
        assert sorted(step["step"] for step in state["steps"]) == ["certify", "describe", "describe"]
        assert (state["status"], state["certificate"]) == ("running", None)
        await shop.tick(seconds=1)
        await shop.settle()
        state = await show(shop, client, request_id)
    assert state["status"] == "completed"
    assert await certificates(shop, request_id) == 1
    assert set(shop.vault.states.values()) == {"destroyed"}


async def test_retention_ends_exactly_the_names_it_was_opened_for(shop: Shop) -> None:
    subject, old, fresh = uuid4(), uuid4(), uuid4()
    closed = shop.clock.now() - timedelta(days=400)
    expired = shop.holds(subject, "order", "payment", old, closed_at=closed)
    shop.holds(subject, "order", "payment", fresh, closed_at=shop.clock.now())
    held = shop.holds(subject, "order", "order_record", old, closed_at=closed)

    async def work(tx: Tx) -> UUID:
        names = [KeyRef("payment", old), KeyRef("order_record", old)]
        return (await handlers.open_retentions(shop.kit, tx, {subject: names}))[0]

    request_id = await shop.kit.run_tx("test", work)
    await shop.settle()
    async with shop.client() as client:
        state = await show(shop, client, str(request_id))
    assert (state["kind"], state["status"]) == ("retention", "completed")
    assert shop.vault.states == {expired: "destroyed", held: "held"}


async def test_many_erasures_go_through_in_batches(shop: Shop) -> None:
    subjects = [uuid4() for _ in range(60)]
    async with shop.client() as client:
        requests = [await open_erasure(shop, client, subject) for subject in subjects]
        await shop.settle()
        for request_id in requests:
            await approve(shop, client, request_id)
        shop.vault.calls.clear()
        await shop.settle()
        assert [call for call, _ in shop.vault.calls] == ["revoke", "drained", "destroy"]
        assert shop.vault.calls[0] == ("revoke", 60)
    open_ones = await shop.kit.db.fetchval("SELECT count(*) FROM rights_requests WHERE status <> 'completed'")
    assert open_ones == 0
    assert await shop.kit.db.fetchval("SELECT count(*) FROM certificates") == 60


@pytest.mark.fault(19, "the vault is away from an erasure")
async def test_a_vault_that_is_away_is_asked_again(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = uuid4()
    key = shop.holds(subject, "account", "identity", subject)

    async def away(*_: Any) -> list[Any]:
        raise Unavailable

    async with shop.client() as client:
        request_id = await open_erasure(shop, client, subject)
        await shop.settle()
        await approve(shop, client, request_id)
        commands = await shop.asked()
        await shop.hear(*(answer for command in commands for answer in shop.answers(command)))
        with monkeypatch.context() as patched:
            patched.setattr(vault_revocations, "revoke", away)
            with pytest.raises(Unavailable):
                await shop.work()
        (step,) = (await show(shop, client, request_id))["steps"]
        assert (step["step"], [each["system"] for each in step["waiting_for"]]) == ("fence", ["vault"])
        await shop.settle()
        assert shop.vault.states == {}
        await shop.tick(seconds=1)
        await shop.settle()
        assert (await show(shop, client, request_id))["status"] == "completed"
    assert shop.vault.states == {key: "destroyed"}


@pytest.mark.fault(7, "a worker outlives its lease")
async def test_a_worker_that_lost_its_lease_has_no_effect(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = uuid4()
    shop.holds(subject, "account", "identity", subject)
    revoke = shop.vault.revoke

    async def stalled(*args: Any) -> list[Any]:
        """While this worker stands still, another one does the whole erasure."""
        monkeypatch.setattr(vault_revocations, "revoke", revoke)
        answer = await revoke(*args)
        await shop.tick(seconds=60)
        await shop.settle()
        return answer

    async with shop.client() as client:
        request_id = await open_erasure(shop, client, subject)
        await shop.settle()
        await approve(shop, client, request_id)
        commands = await shop.asked()
        await shop.hear(*(answer for command in commands for answer in shop.answers(command)))
        monkeypatch.setattr(vault_revocations, "revoke", stalled)
        await shop.work()
        state = await show(shop, client, request_id)
    assert state["status"] == "completed"
    steps = [line["what"] for line in state["history"]]
    assert len(steps) == len(set(steps))
    tells = [command for command in shop.sent if isinstance(command, TellRecipients)]
    assert len(tells) == 1


POINTS = ("tx.commit", "tx.committed", "rights.leased", "rights.vault_answered", "rights.answered", "rights.certified")


@pytest.mark.fault(17, "an erasure fails at every point")
@pytest.mark.parametrize("point", POINTS)
async def test_an_erasure_that_fails_anywhere_is_resumed(shop: Shop, point: str) -> None:
    """Each point fails once at each of its first hits, one after the other."""
    subject, order = uuid4(), uuid4()
    name = shop.holds(subject, "account", "identity", subject)
    record = shop.holds(subject, "order", "order_record", order, closed_at=shop.clock.now())
    async with shop.client() as client:
        request_id = await open_erasure(shop, client, subject)
        await shop.settle()
        await approve(shop, client, request_id)
        reached = 0
        try:
            for hit in range(1, 9):
                faults.arm({point: Fault("error", at=hit)})
                await shop.settle_with_faults()
                reached += faults.HITS[point]
        finally:
            faults.arm({})
        await shop.settle_with_faults()
        state = await show(shop, client, request_id)
    assert reached > 0
    assert state["status"] == "completed"
    assert shop.vault.states == {name: "destroyed", record: "held"}
    steps = [line["what"] for line in state["history"]]
    assert len(steps) == len(set(steps))
    assert await certificates(shop, request_id) == 1
