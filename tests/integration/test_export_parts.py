"""What a participant hands over for an export, on real Postgres: pages, attempts, and bounded memory."""

import json
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest

from account_service.app import SERVICE
from account_service.holdings import FAVOURITES
from deploy.local.interfaces import PostgresServer
from event_contracts.account import Favourite
from event_contracts.privacy import ExportPart, HoldingsExported
from servicekit.core import faults
from servicekit.core.faults import Fault, InjectedFault
from servicekit.core.settings import Settings
from servicekit.db.postgres import Tx
from servicekit.kit import Kit, Opening
from servicekit.participant.exports import ROWS_A_PAGE, export_next
from tests.support.infra import postgres_server
from tests.support.kits import open_test_kit

__all__ = ["postgres_server"]


@pytest.fixture
async def kit(postgres_server: PostgresServer) -> AsyncIterator[Kit]:
    dsns = postgres_server.create_system_database(f"account{uuid4().hex[:8]}")
    async with open_test_kit("account", dsns, Settings(), SERVICE.publishes, [SERVICE.migrations]) as opened:
        yield opened


async def sql(kit: Kit, statement: str, *args: Any) -> None:
    async def work(tx: Tx) -> None:
        await tx.execute(statement, *args)

    await kit.run_tx("test", work)


async def fill(kit: Kit, subject: UUID, count: int) -> set[str]:
    """That many favourites of one person. Returns what they are."""
    skus = [f"SKU-{uuid4().hex[:12].upper()}" for _ in range(count)]
    ids = [uuid4() for _ in skus]
    values = [Favourite(sku=sku) for sku in skus]
    sealed = await kit.seal_many([(value, subject, each) for value, each in zip(values, ids, strict=True)])
    statement = """INSERT INTO favourites (subject_id, favourite_id, favourite, added_at)
                   SELECT $1, u.*, now() FROM unnest($2::uuid[], $3::bytea[]) AS u"""
    await sql(kit, statement, subject, ids, list(sealed))
    return set(skus)


async def ask(kit: Kit, subject: UUID) -> UUID:
    request_id = uuid4()
    statement = "INSERT INTO kit.exports (request_id, subject_id, asked_at) VALUES ($1, $2, now())"
    await sql(kit, statement, request_id, subject)
    return request_id


async def emitted(kit: Kit, request_id: UUID) -> list[HoldingsExported]:
    rows = await kit.db.fetch("SELECT body FROM kit.outbox WHERE key = $1 ORDER BY number", request_id)
    return [HoldingsExported.model_validate_json(row["body"]) for row in rows]


async def opened(kit: Kit, parts: list[HoldingsExported]) -> list[dict[str, Any]]:
    openings = [Opening(p.content, ExportPart, p.subject_id, p.request_id) for p in parts if p.content is not None]
    values = await kit.open_many(openings, purpose="rights_request")
    assert all(isinstance(value, ExportPart) for value in values)
    return [row for value in values for row in json.loads(value.rows)["rows"]]  # type: ignore[union-attr]


async def test_all_rows_come_in_pages_and_the_end_is_marked(kit: Kit) -> None:
    subject = uuid4()
    skus = await fill(kit, subject, 2 * ROWS_A_PAGE + 1)
    request_id = await ask(kit, subject)
    await export_next(kit, [FAVOURITES])
    parts = await emitted(kit, request_id)
    assert [part.row_count for part in parts] == [ROWS_A_PAGE, ROWS_A_PAGE, 1, 0]
    assert [(part.part, part.is_last) for part in parts] == [(1, False), (2, False), (3, False), (4, True)]
    assert {row["favourite"]["sku"] for row in await opened(kit, parts)} == skus
    assert await kit.db.fetchval("SELECT count(*) FROM kit.exports") == 0


@pytest.mark.fault(1, "an export is cut at any point")
@pytest.mark.parametrize("point", ["export.claimed", "export.part", "tx.commit", "tx.committed"])
async def test_an_export_that_is_cut_begins_again_as_the_next_attempt(kit: Kit, point: str) -> None:
    subject = uuid4()
    skus = await fill(kit, subject, ROWS_A_PAGE + 1)
    request_id = await ask(kit, subject)
    faults.arm({point: Fault("error", 0, 2 if point.startswith("tx") else 1)})
    try:
        with pytest.raises(InjectedFault):
            await export_next(kit, [FAVOURITES])
    finally:
        faults.arm({})
    await export_next(kit, [FAVOURITES])
    assert all(part.attempt == 1 for part in await emitted(kit, request_id))  # it is leased
    await sql(kit, "UPDATE kit.exports SET leased_until = now() - interval '1 second'")
    await export_next(kit, [FAVOURITES])
    second = [part for part in await emitted(kit, request_id) if part.attempt == 2]
    assert [part.part for part in second] == [1, 2, 3]
    assert {row["favourite"]["sku"] for row in await opened(kit, second)} == skus


async def test_ten_thousand_records_need_no_more_memory_than_a_page(kit: Kit) -> None:
    """L12: a page of rows is in memory, however many there are."""
    peaks = []
    for count in (ROWS_A_PAGE, 10_000):
        subject = uuid4()
        for _ in range(count // 500):
            await fill(kit, subject, 500)
        request_id = await ask(kit, subject)
        tracemalloc.start()
        try:
            await export_next(kit, [FAVOURITES])
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        assert sum(part.row_count for part in await emitted(kit, request_id)) == count
    assert peaks[1] < peaks[0] + 4 * 1024 * 1024
