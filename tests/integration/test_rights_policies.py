"""What a policy says of systems and sagas, on real Postgres: whose answers count, and a change in the middle."""

import json
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import pytest

from event_contracts.privacy import DescribeHoldings, RecipientsTold, TellRecipients, ToldRecipient
from event_contracts.topics import system_replies
from privacy_service.rights import policies
from servicekit.metrics import ANSWERS_OUT_OF_SCOPE
from servicekit.policy import Policy
from tests.support.infra import postgres_server
from tests.support.rights import POLICY, Shop, approve, open_erasure, shop, show

__all__ = ["postgres_server", "shop"]


def next_policy() -> Policy:
    """One more system must answer, and records of orders are a year longer a duty to keep."""
    document = POLICY.model_dump(mode="json")
    document["version"] = "2099-01-01"
    document["systems"]["reviews"] = {"title": "Reviews", "holds": ["identity", "order_record"]}
    document["topics"][system_replies("reviews")] = {"owner": "reviews", "keep": "P30D"}
    document["classes"]["order_record"]["retention"]["keep"] = "P11Y"
    return Policy.model_validate(document)


@pytest.mark.fault(22, "the policy changes while an erasure is under way")
async def test_a_saga_stays_on_the_policy_under_which_its_round_began(shop: Shop) -> None:
    subject, order = uuid4(), uuid4()
    shop.holds(subject, "account", "identity", subject)
    closed = shop.clock.now()
    shop.holds(subject, "order", "order_record", order, closed_at=closed)
    async with shop.client() as client:
        request_id = await open_erasure(shop, client, subject)
        await shop.settle()
        await approve(shop, client, request_id)
    # The next version of the service takes over, which has never heard of the old policy.
    policies._KNOWN.clear()
    shop.kit = replace(shop.kit, policy=next_policy())
    async with shop.client() as client:
        await shop.settle()
        state = await show(shop, client, request_id)
        assert (state["status"], [step["waiting_for"] for step in state["steps"]]) == ("completed", [[]])
        (hold,) = state["holds"]
        assert datetime.fromisoformat(hold["until"]) == closed + timedelta(days=3650)
        assert await versions(shop, request_id) == [POLICY.version]

        # Whatever begins now goes by the new one: another request, and the held one when it is looked at again.
        other = await open_erasure(shop, client, uuid4())
        await shop.tick(days=3651)
        await shop.settle()
        for each, step in ((other, "preview"), (request_id, "describe")):
            (at,) = (await show(shop, client, each))["steps"]
            assert (at["step"], [waiting["system"] for waiting in at["waiting_for"]]) == (step, ["reviews"])


async def versions(shop: Shop, request_id: str) -> list[str]:
    rows = await shop.kit.db.fetch("SELECT body FROM certificates WHERE request_id = $1", UUID(request_id))
    return [json.loads(row["body"])["policy_version"] for row in rows]


@pytest.mark.fault(37, "a participant lies about what others hold, and about open anchors")
@pytest.mark.attack("say as one system what another one holds", expected="no effect, counted")
async def test_what_a_system_says_of_data_that_is_not_its_own_changes_nothing(shop: Shop) -> None:
    """The gateway says that the person's name is in use, and that the order is still under way. Neither is its to say."""
    subject, order = uuid4(), uuid4()
    name = shop.holds(subject, "account", "identity", subject)
    delivery = shop.holds(subject, "order", "delivery", order, closed_at=shop.clock.now())
    shop.holds(subject, "logistics-gateway", "identity", subject, is_open=True)
    shop.holds(subject, "logistics-gateway", "delivery", order, is_open=True)
    before = ANSWERS_OUT_OF_SCOPE.labels("logistics-gateway", "described")._value.get()
    async with shop.client() as client:
        request_id = await open_erasure(shop, client, subject)
        await shop.settle()
        await approve(shop, client, request_id)
        await shop.settle()
        state = await show(shop, client, request_id)
        assert (state["status"], state["holds"]) == ("completed", []), "a lie about another system's data is believed"
        assert shop.vault.states == {name: "destroyed", delivery: "destroyed"}
        assert ANSWERS_OUT_OF_SCOPE.labels("logistics-gateway", "described")._value.get() > before
        (told,) = [each for each in shop.sent if isinstance(each, TellRecipients)]
        line = ToldRecipient(recipient="meridian", shipments=1, told=1, answered=0, topic_clean_at=None)
        await shop.hear(
            RecipientsTold(request_id=told.request_id, subject_id=subject, system="account", recipients=(line,))
        )
        assert (await show(shop, client, request_id))["outstanding"] == []


async def test_an_answer_that_nobody_asked_for_or_that_is_old_changes_nothing(shop: Shop) -> None:
    subject = uuid4()
    shop.holds(subject, "account", "identity", subject)
    async with shop.client() as client:
        request_id = await open_erasure(shop, client, subject)
        await shop.work()
        (asked,) = await shop.asked()
        assert isinstance(asked, DescribeHoldings)
        answers = shop.answers(asked)
        await shop.hear(*(each.model_copy(update={"request_id": uuid4()}) for each in answers))
        await shop.hear(*(each.model_copy(update={"subject_id": uuid4()}) for each in answers))
        assert [step["step"] for step in (await show(shop, client, request_id))["steps"]] == ["preview"]
        await shop.hear(*answers)
        await approve(shop, client, request_id)
        await shop.hear(*answers)  # they are about the question before
        await shop.work()
        await shop.hear(*answers)
        assert [step["step"] for step in (await show(shop, client, request_id))["steps"]] == ["describe"]
        await shop.settle()
        assert (await show(shop, client, request_id))["status"] == "completed"


async def test_an_anchor_that_never_closes_holds_an_erasure_up_for_its_longest_time(shop: Shop) -> None:
    subject, order = uuid4(), uuid4()
    delivery = shop.holds(subject, "order", "delivery", order, is_open=True)
    record = shop.holds(subject, "order", "order_record", order, is_open=True)
    began = shop.clock.now()
    async with shop.client() as client:
        request_id = await open_erasure(shop, client, subject)
        await shop.settle()
        await approve(shop, client, request_id)
        await shop.settle()
        held = (await show(shop, client, request_id))["holds"]
        opens = [hold for hold in held if hold["basis"] == "open_anchor"]
        assert {(hold["data_class"], hold["owner"]) for hold in opens} == {
            ("delivery", "order"),
            ("order_record", "order"),
        }
        assert {datetime.fromisoformat(hold["until"]) for hold in opens} == {began + timedelta(days=365)}
        await shop.tick(days=364)
        await shop.settle()
        assert shop.vault.states == {delivery: "held", record: "held"}
        await shop.tick(days=2)
        await shop.settle()
        assert shop.vault.states == {delivery: "destroyed", record: "held"}
        (kept,) = (await show(shop, client, request_id))["holds"]
        assert (kept["basis"], datetime.fromisoformat(kept["until"])) == (
            "legal_obligation",
            began + timedelta(days=365 + 3650),
        )
        await shop.tick(days=3650)
        await shop.settle()
        assert shop.vault.states == {delivery: "destroyed", record: "destroyed"}
