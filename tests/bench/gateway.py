"""`gateway_vs_raw`: consume, lease, open, project, disclosure committed, produced; against copying the same bytes."""

from __future__ import annotations

import statistics
from collections.abc import AsyncIterator
from uuid import uuid4

from deploy.local.stack import Stack
from event_contracts.carrier import shipments_topic
from event_contracts.topics import CARRIERS
from tests.bench import raw, single
from tests.bench.figures import Figure
from tests.bench.hall import ORDERS, consume_speed, ends, login_of, make_topic, produce, values_since
from tests.support.deliveries import make_delivery
from tests.support.end_states import number
from tests.support.traffic import seal_orders

CANARY = "Benchmark Canary 7f3a"
SINGLE = 1_500
DISCLOSED = "SELECT count(*) FROM disclosures"


async def run(stack: Stack, rounds: int, records: int) -> AsyncIterator[Figure]:
    """Each order has keys of its own, so every lease is cold. The gateway and the baselines take turns at who is first; the first
    round warms Kafka up and does not count."""
    delivery = make_delivery(country="DE", email=None, name=CANARY).model_dump_json().encode()
    speeds: dict[str, list[float]] = {"gateway": [], "raw": [], "single": []}
    for turn in range(rounds + 1):
        orders = await seal_orders(stack, [delivery] * records)
        begin = await ends(stack, ORDERS)
        before = await number(stack, "logistics-gateway", DISCLOSED)
        places = {topic: await ends(stack, topic) for topic in map(shipments_topic, CARRIERS)}
        await produce(stack, orders)
        copies, ones = f"bench.raw.{uuid4().hex[:8]}", f"bench.single.{uuid4().hex[:8]}"
        await make_topic(stack, copies)
        await make_topic(stack, ones)

        async def ours() -> None:
            speeds["gateway"].append(await consume_speed(stack, "logistics-gateway", records))

        async def theirs(begin: dict[int, int] = begin, copies: str = copies, ones: str = ones) -> None:
            speeds["raw"].append(await raw.pass_through(login_of(stack), ORDERS, copies, begin, records))
            speeds["single"].append(await single.pass_through(login_of(stack), copies, ones, min(SINGLE, records)))

        for part in (ours, theirs) if turn % 2 else (theirs, ours):
            await part()
        disclosed = await number(stack, "logistics-gateway", DISCLOSED) - before
        assert disclosed == records, f"{disclosed} of {records} orders were disclosed"
        values = [value for topic, place in places.items() for value in await values_since(stack, topic, place)]
        assert len(values) == records, f"{len(values)} messages at the carriers for {records} orders"
        assert not any(CANARY.encode() in value for value in values), "a name in clear at a carrier"
    ours_, raw_, single_ = (statistics.median(speeds[name][1:]) for name in ("gateway", "raw", "single"))
    yield Figure("gateway_vs_raw", ours_ / raw_, "ratio")
    yield Figure("gateway_vs_faststream_single", ours_ / single_, "ratio")
    yield Figure("gateway_events_per_s", ours_, "events/s", "every lease cold")
    yield Figure("raw_events_per_s", raw_, "events/s", "aiokafka, same keys, headers, partitions, acks=all")
    yield Figure("faststream_single_events_per_s", single_, "events/s")
