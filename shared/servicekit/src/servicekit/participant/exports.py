"""Handing over what a person is entitled to: a system's rows, opened, as sealed parts of bounded size (clause R2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

import msgspec

from event_contracts import Erased, PersonalData
from event_contracts.privacy import ExportPart, HoldingsExported
from servicekit.core.errors import Fenced
from servicekit.core.faults import declare, faultpoint
from servicekit.core.logs import get_log
from servicekit.db.postgres import Record, Tx
from servicekit.kit import Kit
from servicekit.participant.holdings import Holding

log = get_log("exports")
PURPOSE: Final = "rights_request"
EXPORT: Final = "export"
EXPORT_EVERY: Final = timedelta(milliseconds=200)
ROWS_A_PAGE: Final = 1000
# Of JSON within JSON; sealed it is a third longer, and an event may have 512 KiB. A page of usual rows is one part.
MAX_PART_BYTES: Final = 360 * 1024
LEASE: Final = timedelta(seconds=60)
_ANY: Final = """-- claim_export: any
    SELECT EXISTS (SELECT FROM kit.exports WHERE leased_until IS NULL OR leased_until < $1)"""
_encode: Final = msgspec.json.Encoder().encode

declare("export.claimed", "export.part")


@dataclass
class Export:
    """An export that this process has claimed; `part` is the number of the last part that is committed."""

    request_id: UUID
    subject_id: UUID
    attempt: int
    part: int = 0


class Lost(Exception):
    """Another attempt has begun: this one must add nothing more."""


async def export_next(kit: Kit, holdings: Sequence[Holding]) -> None:
    """Job: hands over all exports that wait. One that fails is begun again, as the next attempt, when its lease is over."""
    while (export := await _claim(kit)) is not None:
        faultpoint("export.claimed")
        try:
            await _hand_over(kit, holdings, export)
        except Lost:
            log.warning("export_lost", attempt=export.attempt)
        except Fenced:
            # Erased meanwhile: nothing can be sealed for the person, and nothing is left to hand over.
            await _emit(kit, export, None, 0, is_last=True)


async def _claim(kit: Kit) -> Export | None:
    now = kit.clock.now()
    if not await kit.db.fetchval(_ANY, now):
        return None

    async def work(tx: Tx) -> Record | None:
        return await tx.fetchrow(
            """-- claim_export
            UPDATE kit.exports e SET attempt = attempt + 1, leased_until = $2
            FROM (SELECT request_id, subject_id FROM kit.exports WHERE leased_until IS NULL OR leased_until < $1
                  ORDER BY asked_at LIMIT 1 FOR UPDATE SKIP LOCKED) next
            WHERE e.request_id = next.request_id AND e.subject_id = next.subject_id
            RETURNING e.request_id, e.subject_id, e.attempt""",
            now,
            now + LEASE,
        )

    row = await kit.run_tx("claim_export", work)
    return None if row is None else Export(row["request_id"], row["subject_id"], row["attempt"])


async def _hand_over(kit: Kit, holdings: Sequence[Holding], export: Export) -> None:
    """All parts, then an empty one that is the last. The rows are those of one moment, and a page of them in memory."""
    async with kit.db.snapshot() as snapshot:
        for holding in holdings:
            columns = ", ".join(f"t.{column}" for column in holding.columns)
            sql = f"-- export\nSELECT {columns} FROM {holding.table} t WHERE t.{holding.subject} = $1"
            async for rows in snapshot.pages(sql, export.subject_id, size=ROWS_A_PAGE):
                # Each page is a unit of work: an erasure waits for one of them, not for the whole export.
                async with kit.work():
                    for text, count in _parts(holding.table, await _opened(kit, holding, rows)):
                        await _emit(kit, export, ExportPart(rows=text), count, is_last=False)
    await _emit(kit, export, None, 0, is_last=True)


async def _opened(kit: Kit, holding: Holding, rows: Sequence[Record]) -> list[bytes]:
    """The rows as JSON objects; what is erased is null, and what may not be opened for this purpose is left out."""
    granted = {
        column
        for column, model in holding.sealed.items()
        if kit.policy.may_open(kit.name, str(model.data_class), PURPOSE)
    }
    wanted = [
        (place, column, opening)
        for place, row in enumerate(rows)
        for column, opening in holding.openings(row).items()
        if column in granted
    ]
    values = await kit.open_many([opening for _, _, opening in wanted], purpose=PURPOSE) if wanted else []
    found = {(place, column): _clear(value) for (place, column, _), value in zip(wanted, values, strict=True)}
    plain = [column for column in holding.columns if column not in holding.sealed]
    sealed = [column for column in holding.sealed if column in granted]
    return [
        _encode(
            {column: row[column] for column in plain if not isinstance(row[column], bytes)}
            | {column: found.get((place, column)) for column in sealed}
        )
        for place, row in enumerate(rows)
    ]


def _clear(value: PersonalData | Erased) -> msgspec.Raw | None:
    return None if isinstance(value, Erased) else msgspec.Raw(value.model_dump_json(exclude_none=True).encode())


def _parts(table: str, rows: Sequence[bytes]) -> Iterator[tuple[str, int]]:
    """JSON texts that each have room in one part, with their number of rows."""
    part: list[bytes] = []
    size = 0
    for row in rows:
        # Each quote and backslash is escaped once more.
        length = len(row) + row.count(b'"') + row.count(b"\\") + 1
        if part and size + length > MAX_PART_BYTES:
            yield _document(table, part), len(part)
            part, size = [], 0
        part.append(row)
        size += length
    if part:
        yield _document(table, part), len(part)


def _document(table: str, rows: Sequence[bytes]) -> str:
    return (b'{"table":%b,"rows":[%b]}' % (_encode(table), b",".join(rows))).decode()


async def _emit(kit: Kit, export: Export, content: ExportPart | None, row_count: int, *, is_last: bool) -> None:
    """One part in a transaction of its own, which renews the lease. Raises `Lost` when another attempt has begun."""
    sealed = None
    if content is not None:
        sealed = await kit.seal(content, subject=export.subject_id, anchor=export.request_id)
    until = kit.clock.now() + LEASE
    event = HoldingsExported(
        request_id=export.request_id,
        subject_id=export.subject_id,
        system=kit.name,
        attempt=export.attempt,
        part=export.part + 1,
        is_last=is_last,
        row_count=row_count,
        content=sealed,
    )

    async def work(tx: Tx) -> None:
        mine = await tx.fetchval(
            """-- export_part
            UPDATE kit.exports SET leased_until = $4 WHERE request_id = $1 AND subject_id = $2 AND attempt = $3
            RETURNING true""",
            export.request_id,
            export.subject_id,
            export.attempt,
            until,
        )
        if mine is None:
            raise Lost
        if is_last:
            await tx.execute(
                "-- export_part: last\nDELETE FROM kit.exports WHERE request_id = $1 AND subject_id = $2",
                export.request_id,
                export.subject_id,
            )
        await tx.emit(event)

    await kit.run_tx("export_part", work)
    export.part += 1
    faultpoint("export.part")
