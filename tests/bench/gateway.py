"""`gateway_vs_raw`: consume, lease, open, project, disclosure committed, produced; against copying the same bytes."""

from __future__ import annotations

import base64
import statistics
import urllib.request
from collections.abc import AsyncIterator, Mapping, Sequence
from uuid import UUID, uuid4

import asyncpg

from deploy.local.keys import carrier_key_file
from deploy.local.scan import Scanner
from deploy.local.stack import Stack
from event_contracts.carrier import shipments_topic
from event_contracts.topics import CARRIERS
from tests.bench import raw, single
from tests.bench.figures import Figure
from tests.bench.hall import Consumer, Watch, ends, login_of, make_topic, produce, values_since
from tests.support.carrier import Desk
from tests.support.deliveries import make_delivery
from tests.support.traffic import RawOrder, anew, seal_orders

CANARY = "Benchmark Canary 7f3a"
SINGLE = 1_500
SAMPLE = 100
LEASED = 'keys_leased_total{data_class="delivery",purpose="delivery",system="logistics-gateway"}'
SHIPMENTS = {carrier: shipments_topic(carrier) for carrier in CARRIERS}


async def run(stack: Stack, rounds: int, records: int) -> AsyncIterator[Figure]:
    """Each order has keys of its own, so leases are cold; then they are warm: the same orders again, for a gateway whose ledger
    has forgotten them. The gateway and the baselines take turns at who is first; the first round warms Kafka up and does not
    count."""
    delivery = make_delivery(country="DE", email=None, name=CANARY).model_dump_json().encode()
    speeds: dict[str, list[float]] = {"cold": [], "warm": [], "raw": [], "single": []}
    for turn in range(rounds + 1):
        orders = await seal_orders(stack, [delivery] * records)

        async def ours(orders: list[RawOrder] = orders) -> None:
            async with (
                Watch(stack, *SHIPMENTS.values()) as sent,
                Consumer(stack, "logistics-gateway", sent.count) as gateway,
            ):
                for state, events, leases in (("cold", orders, records), ("warm", anew(orders), 0)):
                    places, leased = (
                        {topic: await ends(stack, topic) for topic in SHIPMENTS.values()},
                        keys_leased(stack),
                    )
                    speeds[state].append(await gateway.speed(events))
                    leased = keys_leased(stack) - leased
                    assert leased == leases, f"{state}: {leased} keys were leased for {records} orders"
                    check(
                        stack,
                        {name: await values_since(stack, topic, places[topic]) for name, topic in SHIPMENTS.items()},
                        records,
                    )
                    await forget(stack, [order.order_id for order in orders])

        async def theirs(orders: list[RawOrder] = orders) -> None:
            source, copies, ones = (f"bench.{name}.{uuid4().hex[:8]}" for name in ("source", "raw", "single"))
            for topic in (source, copies, ones):
                await make_topic(stack, topic)
            await produce(stack, orders, source)
            speeds["raw"].append(await raw.pass_through(login_of(stack), source, copies, records))
            some = min(SINGLE, records)
            speeds["single"].append(await single.pass_through(login_of(stack), source, ones, some))
            for topic, least in ((copies, records), (ones, some)):
                copied = sum((await ends(stack, topic)).values())
                assert copied >= least, f"{copied} of {least} records were copied"

        for part in (ours, theirs) if turn % 2 else (theirs, ours):
            await part()
    cold, warm, raw_, single_ = (statistics.median(speeds[name][1:]) for name in speeds)
    ours_ = statistics.mean((cold, warm))
    yield Figure("gateway_vs_raw", ours_ / raw_, "ratio", "leases cold in half of the rounds")
    yield Figure("gateway_vs_faststream_single", ours_ / single_, "ratio")
    yield Figure("gateway_cold_vs_raw", cold / raw_, "ratio")
    yield Figure("gateway_warm_vs_raw", warm / raw_, "ratio")
    yield Figure("gateway_cold_events_per_s", cold, "events/s")
    yield Figure("gateway_warm_events_per_s", warm, "events/s")
    yield Figure("raw_events_per_s", raw_, "events/s", "aiokafka, same keys, headers, partitions, acks=all")
    yield Figure("faststream_single_events_per_s", single_, "events/s")


def keys_leased(stack: Stack) -> int:
    """How many keys of deliveries the vault has leased to the gateway."""
    with urllib.request.urlopen(f"{stack.process('vault').health_url}/metrics") as answer:
        found = [line for line in answer.read().decode().splitlines() if line.startswith(LEASED)]
    return int(float(found[0].split()[-1])) if found else 0


def check(stack: Stack, sent: Mapping[str, Sequence[bytes]], expected: int) -> None:
    """One message for each order, none in clear; of each carrier's a sample is opened."""
    values = [value for mine in sent.values() for value in mine]
    assert len(values) == expected, f"{len(values)} messages at the carriers for {expected} orders"
    scanner = Scanner([CANARY])
    scanner.scan_bytes("control", base64.urlsafe_b64encode(CANARY.encode()))
    scanner.scan_bytes("carriers", b"\n".join(values))
    assert set(scanner.findings.hits) == {"control"}, "a name in clear at a carrier, or a search that finds nothing"
    for carrier, mine in sent.items():
        desk = Desk(carrier_key_file(stack.keys, carrier).read_text())
        for value in mine[:SAMPLE]:
            desk.receive(value)
        names = [shipment["recipient"]["person_name"] for shipment in desk.shipments.values()]
        assert names == [CANARY] * len(mine[:SAMPLE]), f"{carrier} cannot read all of its shipments"


async def forget(stack: Stack, order_ids: list[UUID]) -> None:
    """Removes the orders from the ledger, which must have all of them."""
    connection = await asyncpg.connect(stack.owner_dsn("logistics-gateway"))
    try:
        done = await connection.execute(
            "DELETE FROM disclosures WHERE order_id = ANY($1) AND state = 'sent'", order_ids
        )
    finally:
        await connection.close()
    assert done == f"DELETE {len(order_ids)}", f"{done.split()[1]} of {len(order_ids)} orders were disclosed"
