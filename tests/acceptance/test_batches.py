"""Batches (docs/proofs.md, 7): one transaction, one vault call and one produce round trip for a whole batch, counted from outside.

Transactions are counted by Postgres, vault requests by a proxy before the vault, produce requests by a proxy before Kafka. How
fast that is, `make bench` says.
"""

import asyncio
import re
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from deploy.local.kafka import Kafka
from deploy.local.services import ServiceProcess
from deploy.local.stack import Stack
from tests.support.deliveries import make_delivery
from tests.support.traffic import produce_orders, seal_orders
from tests.support.wire import PRODUCE, HttpWire, KafkaWire

RECORDS = 500


@dataclass
class Bench:
    """A system whose gateway and inventory are stopped, with proxies before Kafka and the vault."""

    stack: Stack
    kafka_wire: KafkaWire
    vault_wire: HttpWire

    async def transactions(self, system: str) -> int:
        connection = await asyncpg.connect(self.stack.postgres.admin_dsn)
        database = self.stack.dsn(system).rpartition("/")[2]
        try:
            # The statistics of a session that has ended are complete; those of a live one come within a second.
            return int(
                await connection.fetchval("SELECT xact_commit FROM pg_stat_database WHERE datname = $1", database)
            )
        finally:
            await connection.close()


@asynccontextmanager
async def opened_bench(folder: Path) -> AsyncIterator[Bench]:
    kafka_wire, vault_wire = KafkaWire(), HttpWire()
    async with AsyncExitStack() as ending:
        await ending.enter_async_context(kafka_wire.serving())
        await ending.enter_async_context(vault_wire.serving())
        kafka = Kafka(folder / "kafka", advertise=kafka_wire.address)
        kafka_wire.target = kafka.bootstrap
        stack = Stack(kafka=kafka, progress=lambda _: None)
        await asyncio.to_thread(stack.start)
        ending.push_async_callback(asyncio.to_thread, stack.close)
        vault_wire.target = stack.url("vault").removeprefix("http://")
        stack.overrides["logistics-gateway"]["VAULT_URL"] = f"http://{vault_wire.address}"
        for system in ("logistics-gateway", "privacy"):
            await asyncio.to_thread(stack.process(system).stop)
        yield Bench(stack, kafka_wire, vault_wire)


def metric(process: ServiceProcess, name: str, topic: str) -> int:
    with urllib.request.urlopen(f"{process.health_url}/metrics") as answer:
        found = re.search(rf'^{name}{{topic="{re.escape(topic)}"}} (\S+)$', answer.read().decode(), re.MULTILINE)
    return int(float(found.group(1))) if found else 0


async def wait_for_rows(bench: Bench, system: str, sql: str, expected: int) -> None:
    connection = await asyncpg.connect(
        bench.stack.postgres.admin_dsn, database=bench.stack.dsn(system).rpartition("/")[2]
    )
    try:
        # One transaction of our own, however often we look: READ COMMITTED sees what is committed meanwhile.
        async with connection.transaction(), asyncio.timeout(120):
            while int(await connection.fetchval(sql)) < expected:
                await asyncio.sleep(0.02)
    finally:
        await connection.close()


async def run_consume_role(
    bench: Bench, system: str, done: Callable[[], Awaitable[None]]
) -> tuple[int, int, ServiceProcess]:
    """Starts the role, waits, stops it. Returns transactions over its whole life and batches of order events."""
    before = await bench.transactions(system)
    process = await asyncio.to_thread(bench.stack.start_another, system, "consume")
    await done()
    batches = metric(process, "consume_batches_total", "order.events")
    await asyncio.to_thread(process.stop)
    return await bench.transactions(system) - before, batches, process


async def nothing() -> None:
    """For a run without records: what a process does anyway."""


DELIVERY = make_delivery(country="DE", email=None).model_dump_json().encode()


@pytest.mark.timeout(400)
async def test_a_batch_costs_one_transaction_one_vault_call_and_one_produce_round_trip(tmp_path: Path) -> None:
    async with opened_bench(tmp_path) as bench:
        for system, table in (("logistics-gateway", "disclosures"), ("privacy", "inventory")):
            overhead, _, _ = await run_consume_role(bench, system, nothing)
            orders = await seal_orders(bench.stack, [DELIVERY] * RECORDS)
            # in a thread: the proxy that it goes through runs in this one's loop
            await asyncio.to_thread(produce_orders, bench.stack, orders)
            bench.kafka_wire.counts.clear()
            bench.vault_wire.counts.clear()
            rows_per_order = 1 if table == "disclosures" else 3
            known = await _count(bench, system, table)

            async def committed(
                system: str = system, table: str = table, goal: int = known + RECORDS * rows_per_order
            ) -> None:
                await wait_for_rows(bench, system, f"SELECT count(*) FROM {table}", goal)
                if table == "disclosures":
                    await wait_for_rows(bench, system, "SELECT count(*) FROM disclosures WHERE state = 'sent'", goal)

            transactions, batches, _ = await run_consume_role(bench, system, committed)
            # Beside these it follows the list of revocations, once in three seconds.
            vault_calls = sum(n for (_, path), n in bench.vault_wire.counts.items() if path.startswith("/v1/keys/"))
            produced = bench.kafka_wire.counts[system, PRODUCE]
            print(
                f"\n{system}: {RECORDS} records in {batches} batches: {transactions - overhead} transactions more than "
                f"idle, {vault_calls} vault calls, {produced} produce requests"
            )
            assert 1 <= batches <= 3
            # The gateway marks what it sent in the transaction of the following batch, the last one's when idle.
            marks = 1 if table == "disclosures" else 0
            assert transactions - overhead <= batches + marks + TOLERANCE
            assert vault_calls == (batches if table == "disclosures" else 0)
            assert produced == (batches if table == "disclosures" else 0)


# The two runs differ in length, so also in health checks and autovacuum; a transaction per record would be five hundred.
TOLERANCE = 20


async def _count(bench: Bench, system: str, table: str) -> int:
    connection = await asyncpg.connect(bench.stack.dsn(system))
    try:
        return int(await connection.fetchval(f"SELECT count(*) FROM {table}"))
    finally:
        await connection.close()
