"""`export_vs_copy`: 10,000 records of one person, from the request to the package that may be fetched; against Postgres COPY
of the same rows out of one database and into another table."""

from __future__ import annotations

import asyncio
import io
import json
import secrets
import statistics
import time
import zipfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import asyncpg

from deploy.local.http import open_http
from deploy.local.stack import Stack
from event_contracts.account import Browsing
from servicekit.vault.leases import KeyName
from tests.bench.figures import Figure
from tests.bench.population import client_of, copy_rows, token_of
from tests.support.end_states import number, rows
from tests.support.staff import Staff

RECORDS, MONTHS = 10_000, 24
CANARY = "benchmark-canary-"
COLUMNS = "subject_id browsing_id month_id kind seconds browsing at"


async def run(stack: Stack, rounds: int) -> AsyncIterator[Figure]:
    """A person for each round; the first round warms up and does not count. Product and COPY take turns at who is first."""
    ours: list[float] = []
    floor: list[float] = []
    size = 0
    for turn in range(rounds + 1):
        subject = await _browse(stack)
        if turn % 2:
            took, (copied, size) = await _export(stack, subject), await _copy(stack, subject)
        else:
            (copied, size), took = await _copy(stack, subject), await _export(stack, subject)
        if turn:
            ours.append(took)
            floor.append(copied)
    took, copied = statistics.median(ours), statistics.median(floor)
    why = f"{RECORDS} records of {size // RECORDS} bytes; each is opened, checked against its model, and sealed again"
    yield Figure("export_vs_copy", took / copied, "ratio", why)
    yield Figure("export_s", took, "s", f"{RECORDS} records, until the package is ready")
    yield Figure("copy_s", copied, "s", "COPY out of the table and into another one, binary")
    yield Figure("export_records_per_s", RECORDS / took, "records/s")


async def _browse(stack: Stack) -> UUID:
    """A person with so many looks at pages, in so many months, each month under a key of its own."""
    subject, months = uuid4(), [uuid4() for _ in range(MONTHS)]
    names = [KeyName(subject, "behaviour", month) for month in months]
    async with client_of(stack, "account") as client:
        keys = await client.ensure(names)
    now = datetime.now(UTC)
    await copy_rows(
        stack.owner_dsn("account"), "browsing", COLUMNS,
        [
            (subject, uuid4(), names[place % MONTHS].anchor, "page_viewed", 7,
             token_of(keys[place % MONTHS], names[place % MONTHS], Browsing(page=f"{CANARY}{secrets.token_hex(8)}")),
             now - timedelta(minutes=place))
            for place in range(RECORDS)
        ],
    )  # fmt: skip
    return subject


async def _export(stack: Stack, subject: UUID) -> float:
    """Seconds until the package is ready; it is fetched and counted afterwards."""
    async with Staff(stack) as staff:
        started = time.time()
        request = await staff.open("access", subject)
        ready = "SELECT extract(epoch FROM ready_at)::float FROM rights_exports WHERE request_id = $1"
        async with asyncio.timeout(120):
            while not (found := await rows(stack, "privacy", ready, request)) or found[0][0] is None:
                await asyncio.sleep(0.02)
        link = await staff._ask("POST", f"/v1/requests/{request}/link", staff._support)
    async with open_http(stack.url("privacy")) as http:
        package = (await http.get(link["url_path"])).raise_for_status().content
    with zipfile.ZipFile(io.BytesIO(package)) as files:
        texts = [files.read(name).decode() for name in files.namelist() if name.endswith(".json")]
    seen = {look for text in texts for look in text.split('"') if look.startswith(CANARY)}
    assert len(seen) == RECORDS, f"{len(seen)} of {RECORDS} records are in the package"
    assert json.loads(texts[0]) is not None
    clear = f"SELECT count(*) FROM rights_export_parts WHERE position('{CANARY}'::bytea IN content) > 0"
    assert await number(stack, "privacy", clear) == 0, "a part of an export holds a value in clear"
    return float(found[0][0]) - started


async def _copy(stack: Stack, subject: UUID) -> tuple[float, int]:
    """Seconds and bytes: the person's rows by COPY out of the account's database and into a table of the privacy service's."""
    source = await asyncpg.connect(stack.owner_dsn("account"))
    target = await asyncpg.connect(stack.owner_dsn("privacy"))
    table = f"bench_copy_{uuid4().hex[:8]}"
    try:
        await target.execute(
            f"""CREATE TABLE {table} (subject_id uuid, browsing_id uuid, month_id uuid, kind text, seconds integer,
                browsing bytea, at timestamptz)"""
        )
        started, content = time.monotonic(), io.BytesIO()
        query = f"SELECT {COLUMNS.replace(' ', ', ')} FROM browsing WHERE subject_id = $1"
        await source.copy_from_query(query, subject, output=content, format="binary")
        content.seek(0)
        await target.copy_to_table(table, source=content, format="binary")
        took = time.monotonic() - started
        assert await target.fetchval(f"SELECT count(*) FROM {table}") == RECORDS
        await target.execute(f"DROP TABLE {table}")
        return took, content.getbuffer().nbytes
    finally:
        await source.close()
        await target.close()
