"""Orders as people make them, to every country that a lane serves, through the API and the gateway to the carriers.

An accepted order arrives, and says what was ordered; every other one is refused at once, with a reason.
"""

import asyncio
import json
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID, uuid4

import pytest

from deploy.local import keys
from deploy.local.http import open_http
from deploy.local.services import ROOT
from deploy.local.stack import Stack
from event_contracts.topics import CARRIERS
from lanes.lane import in_force
from lanes.loading import load_lanes
from logistics_gateway.domain import shipment_id_of
from tests.support.arrivals import differences
from tests.support.carrier import Carrier
from tests.support.purchases import Purchases
from tests.support.stacks import account_of

AT_ONCE = 8
BUYERS = 40
SEED = 15
COUNTS = [pytest.param(60, id="some"), pytest.param(10_000, id="all", marks=pytest.mark.long)]
LANES = in_force(load_lanes(ROOT / "shared" / "policy" / "lanes"))


async def place(stack: Stack, bodies: list[dict[str, Any]]) -> tuple[dict[UUID, dict[str, Any]], list[str]]:
    """Places them all. Returns the accepted ones by their order's id, and the reasons of the refused ones."""
    accepted: dict[UUID, dict[str, Any]] = {}
    refused: list[str] = []
    buyers = [keys.customer_token(stack.keys, uuid4(), scope="guest") for _ in range(BUYERS)]
    waiting = list(enumerate(bodies))

    async def work() -> None:
        while waiting:
            number, body = waiting.pop()
            headers = {"Authorization": f"Bearer {buyers[number % BUYERS]}", "Idempotency-Key": str(uuid4())}
            answer = await http.post("/v1/orders", json=body, headers=headers)
            if answer.status_code == 201:
                accepted[UUID(answer.json()["order_id"])] = body
            else:
                assert answer.status_code == 422, answer.text
                refused.append(json.dumps(answer.json().get("errors") or answer.json()["detail"]))

    async with open_http(stack.url("order")) as http:
        await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return accepted, refused


async def arrive(stack: Stack, bodies: list[dict[str, Any]]) -> tuple[int, list[str], list[str]]:
    """Returns how many were accepted, the reasons of those refused, and what differs in those that arrived."""
    async with AsyncExitStack() as running:
        desks = [await running.enter_async_context(Carrier(account_of(stack, name), answers=())) for name in CARRIERS]
        accepted, refused = await place(stack, bodies)
        wanted = {shipment_id_of(order_id): body for order_id, body in accepted.items()}
        arrived: dict[UUID, dict[str, Any]] = {}
        async with asyncio.timeout(60 + len(bodies)):
            while not wanted.keys() <= arrived.keys():
                arrived = {key: value for carrier in desks for key, value in carrier.desk.shipments.items()}
                await asyncio.sleep(0.2)
    found = [difference for key, body in wanted.items() for difference in differences(body, arrived[key])]
    return len(accepted), refused, found


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("count", COUNTS)
def test_what_is_accepted_arrives_as_it_was_ordered(stack: Stack, count: int) -> None:
    accepted, refused, found = asyncio.run(arrive(stack, list(Purchases(LANES, SEED).take(count))))
    reasons = Counter(refused)
    print(f"\ngenerated orders: {accepted} of {count} accepted, all arrived; refused: {reasons.most_common(5)}")
    assert not found, found[:20]
    assert accepted + len(refused) == count
    assert accepted >= count * 0.99, reasons
