"""`erasure_*`: from approval to certificate; no waiting time, carriers' answers outstanding, nobody crashed.

An open loop posts approvals at fixed times, whatever the answers, and counts from the time at which each was due. Then the
same number of people are approved all at once, which says how many a second there can be. Then the floor.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from uuid import UUID, uuid4

import asyncpg

from deploy.local.shop import all_of
from deploy.local.stack import Stack
from servicekit.db.postgres import _keep
from tests.bench.erasure_floor import HOLDERS, Floor
from tests.bench.figures import Figure
from tests.bench.population import Settled, settle
from tests.support.attacker import raid
from tests.support.end_states import number
from tests.support.staff import Staff

RATE = 50.0
BOUND = 60.0  # seconds without a new certificate, after which the rest counts as not keeping up
WARM = 20
AT_ONCE = 32
FLOOR_PEOPLE = 800
COPIES = {"vault": ("revocations",), "privacy": ("evidence_leaves", "certificates")}
LOOK_SECONDS = 0.05
# Whose first certificate can be read: the witness has signed a checkpoint that covers it.
READABLE = """SELECT c.request_id
FROM certificates c JOIN evidence_leaves l USING (leaf_id) JOIN evidence_sequence s USING (entry_id)
WHERE c.amendment = 0 AND c.request_id = ANY($1::uuid[])
AND s.leaf_index < (SELECT max(size) FROM evidence_cosignatures)"""


async def run(stack: Stack, rounds: int, people: int) -> AsyncIterator[Figure]:
    async with Staff(stack) as staff:
        await erase_all(stack, staff, await settle(stack, WARM))
        everybody = await settle(stack, people)
        for figure in await _open_loop(stack, staff, everybody):
            yield figure
        bursts, floors = list[float](), list[float]()
        floored, unfinished = list[Settled](), 0
        for turn in range(rounds):
            burst, alone = await settle(stack, people), await settle(stack, FLOOR_PEOPLE)
            for product in (turn % 2 == 0, turn % 2 == 1):
                if product:
                    per_s, late = await erase_all(stack, staff, burst)
                    bursts.append(per_s)
                    unfinished += late
                else:
                    floors.append(await _floor(stack, alone, at_once=16, batch=1))
            everybody += burst
            floored += alone
    per_s, floor = statistics.median(bursts), statistics.median(floors)
    note = f"{people} people approved at once" + _unfinished(unfinished, rounds * people)
    yield Figure("erasure_per_s", per_s, "1/s", note)
    yield Figure("erasure_vs_floor", per_s / floor, "ratio", "the floor: each person alone, 16 at once")
    yield Figure("erasure_floor_per_s", floor, "1/s", "the same statements, a transaction per database and person")
    together = await settle(stack, FLOOR_PEOPLE)
    batched = await _floor(stack, together, at_once=2, batch=100)
    yield Figure("erasure_floor_batched_per_s", batched, "1/s", "the same statements for 100 people at once")
    yield Figure("erasure_vs_floor_batched", per_s / batched, "ratio")
    if not unfinished:
        await _check(stack, everybody, [*floored, *together])


async def _open_loop(stack: Stack, staff: Staff, people: Sequence[Settled]) -> list[Figure]:
    requests = await _prepare(staff, people)
    due: dict[UUID, float] = {}
    tasks = []
    certified = asyncio.create_task(_certificates(stack, requests))
    begin = time.time() + 0.2
    for place, request in enumerate(requests):
        due[request] = begin + place / RATE
        await asyncio.sleep(max(0.0, due[request] - time.time()))
        tasks.append(asyncio.create_task(_approve(staff, request)))
    await asyncio.gather(*tasks)
    issued = await certified
    stopped = time.time()
    waits = sorted(1000 * (issued.get(request, stopped) - at) for request, at in due.items())
    late = len(people) - len(issued)
    note = f"open loop of {RATE:.0f}/s, {len(people)} people" + _unfinished(late, len(people))
    if late:  # what still runs must not be in the way of what is measured next
        await _certificates(stack, requests)
    return [
        Figure("erasure_p50_ms", statistics.median(waits), "ms", note),
        Figure("erasure_p99_ms", _p99(waits), "ms", note),
    ]


async def erase_all(stack: Stack, staff: Staff, people: Sequence[Settled]) -> tuple[float, int]:
    """People a second, from the first approval to the last certificate, and how many have none yet when the time is over."""
    requests = await _prepare(staff, people)
    started = time.time()
    certified = asyncio.create_task(_certificates(stack, requests))
    await all_of(lambda request: _approve(staff, request), requests, AT_ONCE)
    issued = await certified
    assert issued, f"nobody was erased within {BOUND:.0f} s"
    return len(issued) / (max(issued.values()) - started), len(people) - len(issued)


async def _prepare(staff: Staff, people: Sequence[Settled]) -> list[UUID]:
    requests = await all_of(lambda who: staff.open("erasure", who.subject_id), people)
    await all_of(staff.previewed, requests)
    return requests


async def _approve(staff: Staff, request: UUID) -> None:
    await staff._ask("POST", f"/v1/requests/{request}/approve", staff._officer)


async def _certificates(stack: Stack, requests: Sequence[UUID]) -> dict[UUID, float]:
    """When each certificate could be read; looks until all can, until nothing was new for BOUND seconds."""
    found: dict[UUID, float] = {}
    waiting, give_up = set(requests), time.monotonic() + BOUND
    connection = await asyncpg.connect(stack.owner_dsn("privacy"))
    try:
        while waiting and time.monotonic() < give_up:
            await asyncio.sleep(LOOK_SECONDS)
            if readable := await connection.fetch(READABLE, list(waiting)):
                now, give_up = time.time(), time.monotonic() + BOUND
                found |= {row["request_id"]: now for row in readable}
                waiting -= found.keys()
    finally:
        await connection.close()
    return found


async def _floor(stack: Stack, people: Sequence[Settled], *, at_once: int, batch: int) -> float:
    """People a second; `batch` of them share their transactions, and so many batches are under way at once.

    The first batch of each worker warms its connections up and does not count. The vault's list and the evidence get copies
    of their tables: what is written there past the services would not fit.
    """
    product = {"plan_cache_mode": "force_generic_plan", "search_path": "floor, public"}
    async with AsyncExitStack() as running:
        pools = {
            system: await running.enter_async_context(
                asyncpg.create_pool(
                    stack.owner_dsn(system), min_size=at_once, max_size=at_once, server_settings=product, reset=_keep
                )
            )
            for system in ("vault", *HOLDERS)
        }
        for system, tables in COPIES.items():
            copies = (f"CREATE TABLE floor.{table} (LIKE public.{table} INCLUDING ALL)" for table in tables)
            fresh = ("DROP SCHEMA IF EXISTS floor CASCADE", "CREATE SCHEMA floor", *copies)
            await pools[system].execute(";".join(fresh))
        floor = Floor(pools)
        waiting = [people[start : start + batch] for start in range(0, len(people), batch)]

        async def work(most: int) -> None:
            while waiting and (most := most - 1) >= 0:
                await floor.erase([(uuid4(), who.subject_id) for who in waiting.pop()])

        await asyncio.gather(*(work(1) for _ in range(at_once)))
        left, started = sum(map(len, waiting)), time.monotonic()
        await asyncio.gather(*(work(len(people)) for _ in range(at_once)))
        return left / (time.monotonic() - started)


async def _check(stack: Stack, erased: Sequence[Settled], floors: Sequence[Settled]) -> None:
    """Nothing of anybody is left where it was, and an attacker opens nothing of those whom the product erased."""
    ids = ", ".join(f"'{who.subject_id}'" for who in (*erased, *floors))
    for system, table, column in (
        ("account", "accounts", "subject_id"), ("account", "addresses", "subject_id"),
        ("order", "order_deliveries", "consignee_id"), ("order", "order_payments", "buyer_id"),
    ):  # fmt: skip
        left = await number(stack, system, f"SELECT count(*) FROM {table} WHERE {column} IN ({ids})")
        assert not left, f"{left} rows of {table} outlived the erasure"
    loot = await raid(stack)
    opened = [who for who in erased if who.email in loot.values]
    assert not opened, f"an attacker still opens the e-mail addresses of {len(opened)} erased people"


def _p99(values: Sequence[float]) -> float:
    return values[min(len(values) - 1, int(len(values) * 0.99))]


def _unfinished(late: int, people: int) -> str:
    return f"; {late} of {people} had no certificate {BOUND:.0f} s after the one before" if late else ""
