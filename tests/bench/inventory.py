"""`inventory_vs_upsert`: event to committed holding, against a bulk upsert of the same rows."""

from __future__ import annotations

import json
import statistics
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from deploy.local.stack import Stack
from tests.bench.figures import Figure
from tests.bench.hall import Consumer, positions
from tests.bench.upsert import upsert
from tests.support.deliveries import make_delivery
from tests.support.end_states import rows
from tests.support.traffic import RawOrder, anew, seal_orders

Row = tuple[Any, ...]
Said = dict[str, list[Row]]
PARTS = 3
ROWS = """SELECT subject_id, system, data_class, anchor, key_id, first_seen, last_seen FROM inventory
WHERE anchor = ANY($1) ORDER BY subject_id, data_class"""
STATES = ("cold", "warm")


async def run(stack: Stack, rounds: int, records: int) -> AsyncIterator[Figure]:
    """Cold: new rows. Warm: the same orders in later events, which each row takes up. The inventory and the upsert take turns at
    who is first; the first round warms up and does not count."""
    delivery = make_delivery(country="DE", email=None).model_dump_json().encode()
    ours: dict[str, list[float]] = {state: [] for state in STATES}
    floor: dict[str, list[float]] = {state: [] for state in STATES}
    for turn in range(rounds + 1):
        orders = await seal_orders(stack, [delivery] * records)
        later = anew(orders)
        said = {"cold": held(orders, orders), "warm": held(orders, later)}

        async def inventory(orders: list[RawOrder] = orders, later: list[RawOrder] = later, said: Said = said) -> None:
            async with positions(stack, "privacy") as count, Consumer(stack, "privacy", count) as consumer:
                for state, sent in zip(STATES, (orders, later), strict=True):
                    ours[state].append(await consumer.speed(sent))
                    wrong = set(said[state]) ^ {tuple(row) for row in await _rows(stack, orders)}
                    assert not wrong, f"{state}: of {len(said[state])} holdings {len(wrong)} are missing or wrong"

        async def upserts(said: Said = said) -> None:
            table = f"public.bench_{uuid4().hex[:8]}"
            for state in STATES:
                floor[state].append(await upsert(stack.owner_dsn("privacy"), table, said[state]) / PARTS)

        for part in (inventory, upserts) if turn % 2 else (upserts, inventory):
            await part()
    ratios = {state: statistics.median(ours[state][1:]) / statistics.median(floor[state][1:]) for state in STATES}
    yield Figure("inventory_vs_upsert", min(ratios.values()), "ratio", "the lower of cold and warm")
    for state in STATES:
        yield Figure(f"inventory_vs_upsert_{state}", ratios[state], "ratio")
        yield Figure(f"inventory_{state}_events_per_s", statistics.median(ours[state][1:]), "events/s")
        yield Figure(f"upsert_{state}_events_per_s", statistics.median(floor[state][1:]), "events/s")


def held(first: Sequence[RawOrder], last: Sequence[RawOrder]) -> list[Row]:
    """The rows that the headers of these events say there are."""
    found: list[Row] = []
    for earlier, later in zip(first, last, strict=True):
        seen = [datetime.fromisoformat(_header(order, "ce_time")) for order in (earlier, later)]
        for part in json.loads(_header(later, "ce_sealed")):
            ids = [UUID(part[name]) for name in ("subject", "anchor", "key")]
            found.append((ids[0], "order", part["class"], ids[1], ids[2], *seen))
    return found


def _header(order: RawOrder, name: str) -> str:
    value = dict(order.headers)[name]
    assert isinstance(value, bytes)
    return value.decode()


async def _rows(stack: Stack, orders: Sequence[RawOrder]) -> list[asyncpg.Record]:
    return await rows(stack, "privacy", ROWS, [order.order_id for order in orders])
