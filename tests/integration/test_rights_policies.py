"""A policy that changes while sagas are under way, on real Postgres."""

import json
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import pytest

from event_contracts.topics import system_replies
from privacy_service.rights import policies
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
