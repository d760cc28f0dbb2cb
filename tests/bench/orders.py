"""`order_vs_plain`: placing an order over HTTP, against the same request put into plain columns."""

from __future__ import annotations

import asyncio
import os
import secrets
import statistics
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import asyncpg

from deploy.local.http import open_http
from deploy.local.keys import customer_token
from deploy.local.people import Crowd
from deploy.local.processes import Port, spawn
from deploy.local.scan import Scanner
from deploy.local.services import read_health
from deploy.local.stack import Stack
from tests.bench.figures import Figure
from tests.bench.hall import ORDERS, ends, values_since
from tests.support.end_states import number, rows, unpublished

AT_ONCE = 16
NO_CHANCE = 10  # characters that do not stand in sealed bytes by chance


async def run(stack: Stack, rounds: int, records: int) -> AsyncIterator[Figure]:
    """Each buyer is new, so that every key is, too. The relay publishes meanwhile, as it does in life. The first round warms up."""
    speeds: dict[str, list[float]] = {"ours": [], "plain": []}
    crowd = Crowd(secrets.randbits(32))
    with plain_shop(stack) as plain:
        for turn in range(rounds + 1):
            requests = [(uuid4(), crowd.order(crowd.person(), gift=True)) for _ in range(records)]
            begin = await ends(stack, ORDERS)
            for name, url in sorted({"ours": stack.url("order"), "plain": plain}.items(), reverse=bool(turn % 2)):
                before = await _placed(stack, name)
                speeds[name].append(await _place_all(stack, url, requests))
                placed = await _placed(stack, name) - before
                assert placed == records, f"{placed} of {records} orders were placed ({name})"
            await _check(stack, begin, [body["consignee"]["name"] for _, body in requests])
    ours, theirs = (statistics.median(speeds[name][1:]) for name in ("ours", "plain"))
    yield Figure("order_vs_plain", ours / theirs, "ratio")
    yield Figure("orders_per_s", ours, "orders/s", f"{AT_ONCE} at once")
    yield Figure("plain_orders_per_s", theirs, "orders/s")


async def _check(stack: Stack, begin: dict[int, int], names: Sequence[str]) -> None:
    """Each order is published once, and nothing that is kept or published of it is in clear."""
    async with asyncio.timeout(60):
        while await unpublished(stack, "order"):
            await asyncio.sleep(0.1)
    published = await values_since(stack, ORDERS, begin)
    assert len(published) == len(names), f"{len(published)} events of {len(names)} orders"
    long = [name for name in names if len(name) >= NO_CHANCE]
    scanner = Scanner(long)
    scanner.scan_bytes("control", long[0].encode())
    scanner.scan_bytes("published", b"\n".join(published))
    for table, column in (("order_deliveries", "delivery"), ("order_records", "record"), ("kit.outbox", "body")):
        kept = await rows(stack, "order", f"SELECT {column} FROM {table}")
        scanner.scan_bytes(table, b"\n".join(bytes(row[0]) for row in kept))
    assert set(scanner.findings.hits) == {"control"}, f"names in clear: {sorted(scanner.findings.hits)}"


@contextmanager
def plain_shop(stack: Stack) -> Iterator[str]:
    """Its URL. It stores in the order service's own database, as its owner."""
    port = Port()
    environment = {**os.environ, **stack.env_of("order"), "DATABASE_DSN": stack.owner_dsn("order")}
    command = [sys.executable, "-m", "tests.bench.plain_shop", str(port.number)]
    process = spawn("plain shop", command, log=stack.folder / "plain_shop.log", env=environment)
    url = f"http://127.0.0.1:{port.number}"
    try:
        deadline = time.monotonic() + 30
        while not read_health(url).get("ok"):
            assert time.monotonic() < deadline, f"the plain shop does not start:\n{process.log_tail()}"
            time.sleep(0.1)
        yield url
    finally:
        process.stop(10)
        port.release()


async def _place_all(stack: Stack, url: str, requests: list[tuple[Any, dict[str, Any]]]) -> float:
    waiting = [(uuid4(), order_id, body) for order_id, body in requests]
    tokens = {buyer: customer_token(stack.keys, buyer) for buyer, _, _ in waiting}
    async with open_http(url) as http:

        async def place() -> None:
            while waiting:
                buyer, order_id, body = waiting.pop()
                headers = {"Authorization": f"Bearer {tokens[buyer]}", "Idempotency-Key": str(order_id)}
                (await http.post("/v1/orders", json=body, headers=headers)).raise_for_status()

        started = time.monotonic()
        await asyncio.gather(*(place() for _ in range(AT_ONCE)))
        return len(requests) / (time.monotonic() - started)


async def _placed(stack: Stack, name: str) -> int:
    if name == "ours":
        return await number(stack, "order", "SELECT count(*) FROM orders")
    connection = await asyncpg.connect(stack.owner_dsn("order"))
    try:
        return int(await connection.fetchval("SELECT count(*) FROM plain_orders"))
    finally:
        await connection.close()
