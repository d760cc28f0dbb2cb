"""`inventory_vs_upsert`: event to committed holding, against a bulk upsert of the same rows."""

from __future__ import annotations

import statistics
from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg

from deploy.local.stack import Stack
from tests.bench.figures import Figure
from tests.bench.hall import consume_speed, produce
from tests.bench.upsert import upsert
from tests.support.deliveries import make_delivery
from tests.support.end_states import number
from tests.support.traffic import seal_orders

PARTS = 3
HELD = "SELECT count(*) FROM inventory"
ROWS = """SELECT subject_id, system, data_class, anchor, key_id, first_seen, last_seen FROM inventory
WHERE anchor = ANY($1)"""


async def run(stack: Stack, rounds: int, records: int) -> AsyncIterator[Figure]:
    """Cold: new rows. Warm: the same orders under new event ids, so that every row is there and says nothing new. The first
    round warms Kafka up and does not count."""
    delivery = make_delivery(country="DE", email=None).model_dump_json().encode()
    ours: dict[str, list[float]] = {"cold": [], "warm": []}
    floor: dict[str, list[float]] = {"cold": [], "warm": []}
    for _ in range(rounds + 1):
        orders = await seal_orders(stack, [delivery] * records)
        again = [type(order)(order.order_id, order.value, _renamed(order.headers)) for order in orders]
        before, table = await number(stack, "privacy", HELD), f"public.bench_{uuid4().hex[:8]}"
        for state, sent in (("cold", orders), ("warm", again)):
            await produce(stack, sent)
            ours[state].append(await consume_speed(stack, "privacy", records))
            held = await number(stack, "privacy", HELD) - before
            assert held == records * PARTS, f"{held} holdings of {records} orders"
            rows = await _rows(stack, [order.order_id for order in orders])
            floor[state].append(await upsert(stack.owner_dsn("privacy"), table, rows) / PARTS)
    ratios = {state: statistics.median(ours[state][1:]) / statistics.median(floor[state][1:]) for state in ours}
    yield Figure("inventory_vs_upsert", min(ratios.values()), "ratio", "the lower of cold and warm")
    for state in ours:
        yield Figure(f"inventory_vs_upsert_{state}", ratios[state], "ratio")
        yield Figure(f"inventory_{state}_events_per_s", statistics.median(ours[state][1:]), "events/s")
        yield Figure(f"upsert_{state}_events_per_s", statistics.median(floor[state][1:]), "events/s")


def _renamed(headers: list[tuple[str, str | bytes | None]]) -> list[tuple[str, str | bytes | None]]:
    return [(name, str(uuid4()).encode() if name == "ce_id" else value) for name, value in headers]


async def _rows(stack: Stack, order_ids: list[object]) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(stack.owner_dsn("privacy"))
    try:
        rows: list[asyncpg.Record] = await connection.fetch(ROWS, order_ids)
    finally:
        await connection.close()
    return rows
