"""Participant: a system that holds personal data answers the privacy service's commands. A service with holdings is one.

Each answer is made in the transaction that read the rows. An export is only noted here: `exports.py` hands it over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from event_contracts import Event
from event_contracts.privacy import (
    PRIVACY_COMMANDS,
    CountHoldings,
    DescribeHoldings,
    EraseHoldings,
    ExpiredFound,
    ExpiredItem,
    ExportHoldings,
    FindExpired,
    HeldItem,
    HoldingsCounted,
    HoldingsDescribed,
    HoldingsErased,
    HoldingsExported,
    KeyReleased,
    PositionDecided,
    QuarantineDecided,
)
from servicekit.core.errors import Unavailable
from servicekit.core.faults import declare, faultpoint
from servicekit.db.postgres import Tx
from servicekit.db.writers import wait_out
from servicekit.kafka.batches import Consumes
from servicekit.kafka.cloudevents import Received, RecordId
from servicekit.kit import Kit
from servicekit.participant.exports import EXPORT
from servicekit.participant.holdings import Erasure, Holding
from servicekit.participant.revocations import read_position, sweep

ANSWERS: Final = (
    HoldingsCounted,
    HoldingsDescribed,
    HoldingsErased,
    HoldingsExported,
    ExpiredFound,
    KeyReleased,
    QuarantineDecided,
    PositionDecided,
)
COMMANDS: Final = (CountHoldings, DescribeHoldings, EraseHoldings, ExportHoldings, FindExpired)
ITEMS_A_PART: Final = 1000
# A command often overtakes the entries that it is about: so often, and with such pauses, it looks for them.
LOOKS = 100
LOOK_SECONDS: Final = 0.01

declare("participant.waited", "participant.swept")


def participant(holdings: Sequence[Holding]) -> Consumes:
    """Reads `privacy.commands` and answers on the system's own replies topic, in the transaction that read the rows."""
    tables = [holding.table for holding in holdings]

    async def prepare(kit: Kit, events: Sequence[Received[Any]]) -> dict[RecordId, None]:
        await _wait_out(kit, events, tables)
        return {}

    async def answer(kit: Kit, tx: Tx, events: Sequence[Received[Any]], _: Mapping[RecordId, None]) -> None:
        commands = [received.event for received in events]
        erase = [command for command in commands if isinstance(command, EraseHoldings)]
        describe = [command for command in commands if isinstance(command, DescribeHoldings)]
        if erase:
            await tx.emit(*await _erased(tx, kit.name, holdings, erase))
        if describe:
            await tx.emit(*await _described(tx, kit.name, holdings, describe))
        for command in commands:
            if isinstance(command, ExportHoldings):
                await _note_export(tx, command, kit)
            elif not isinstance(command, EraseHoldings | DescribeHoldings):
                await tx.emit(await _answer(tx, kit.name, holdings, command))

    return Consumes(
        (PRIVACY_COMMANDS,),
        contracts=COMMANDS,
        prepare=prepare,
        apply=answer,
        reader="participant",
        inbox=True,
        repeats=True,
    )


async def _answer(tx: Tx, system: str, holdings: Sequence[Holding], command: Event) -> Event:
    """To a command that only reads."""
    match command:
        case CountHoldings(request_id=request_id, subject_id=subject_id):
            counts = [await holding.count(tx, subject_id) for holding in holdings]
            return HoldingsCounted(request_id=request_id, subject_id=subject_id, system=system, row_count=sum(counts))
        case FindExpired():
            return await _expired(tx, system, holdings, command)
    raise AssertionError("unreachable")


async def _described(
    tx: Tx, system: str, holdings: Sequence[Holding], commands: Sequence[DescribeHoldings]
) -> list[HoldingsDescribed]:
    """What there is of each person, with a statement per table for all of them."""
    subjects = list({command.subject_id for command in commands})
    tables = [await holding.describe(tx, subjects) for holding in holdings]
    return [
        part
        for command in commands
        for part in described(
            command.request_id,
            command.subject_id,
            system,
            merge_items(item for table in tables for item in table.get(command.subject_id, ())),
        )
    ]


def merge_items(items: Iterable[HeldItem]) -> list[HeldItem]:
    """One of each class and anchor, though several tables hold them: open if one of them is, closed when the last one did."""
    merged: dict[tuple[str, UUID], HeldItem] = {}
    for item in items:
        name = item.data_class, item.anchor
        known = merged.get(name)
        if known is not None:
            is_open = known.is_open or item.is_open
            times = [at for at in (known.closed_at, item.closed_at) if at is not None]
            item = HeldItem(
                data_class=item.data_class,
                anchor=item.anchor,
                row_count=known.row_count + item.row_count,
                is_open=is_open,
                closed_at=None if is_open else max(times, default=None),
            )
        merged[name] = item
    return [merged[name] for name in sorted(merged)]


def described(request_id: UUID, subject_id: UUID, system: str, items: Sequence[HeldItem]) -> list[HoldingsDescribed]:
    """The answer in as many parts as it takes; one without items when nothing is held."""
    starts = range(0, len(items), ITEMS_A_PART) if items else range(1)
    return [
        HoldingsDescribed(
            request_id=request_id,
            subject_id=subject_id,
            system=system,
            part=part,
            parts=len(starts),
            items=tuple(items[start : start + ITEMS_A_PART]),
        )
        for part, start in enumerate(starts, start=1)
    ]


async def _expired(tx: Tx, system: str, holdings: Sequence[Holding], asked: FindExpired) -> ExpiredFound:
    """The oldest of all tables. One more than the limit is read of each, to know whether that is all."""
    found: dict[tuple[UUID, UUID], ExpiredItem] = {}
    for holding in holdings:
        for item in await holding.expired(tx, asked, asked.limit + 1):
            name = item.subject_id, item.anchor
            found[name] = max(item, found.get(name, item), key=lambda each: each.closed_at)
    items = sorted(found.values(), key=lambda item: (item.closed_at, item.anchor))
    return ExpiredFound(
        request_id=asked.request_id,
        system=system,
        data_class=asked.data_class,
        is_all=len(items) <= asked.limit,
        items=tuple(items[: asked.limit]),
    )


async def _note_export(tx: Tx, asked: ExportHoldings, kit: Kit) -> None:
    await tx.execute(
        """-- note_export
        INSERT INTO kit.exports (request_id, subject_id, asked_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING""",
        asked.request_id,
        asked.subject_id,
        kit.clock.now(),
    )
    tx.wake(kit.wakes[EXPORT])


async def _wait_out(kit: Kit, events: Sequence[Received[Any]], tables: Sequence[str]) -> None:
    """Before the transaction of a batch that erases: the list is applied as far as the commands say, and no writer is left
    that could have missed that. Raises `Unavailable` until then."""
    numbers = [received.event.number for received in events if isinstance(received.event, EraseHoldings)]
    if not numbers:
        return
    for _ in range(LOOKS):
        if (await read_position(kit.db)).number >= max(numbers):
            break
        await asyncio.sleep(LOOK_SECONDS)
    else:
        raise Unavailable("The list of revocations is not applied as far as a command asks. It is tried again.")
    await wait_out(kit.db, kit.clock, tables)
    faultpoint("participant.waited")


async def _erased(
    tx: Tx, system: str, holdings: Sequence[Holding], commands: Sequence[EraseHoldings]
) -> list[HoldingsErased]:
    """Sweeps again, for all commands at once, and says of each what went and what is left."""
    erasures = await _revoked_of(tx, {command.subject_id: command.request_id for command in commands})
    await sweep(tx, holdings, erasures)
    left: dict[UUID, int] = {}
    for holding in holdings:
        for subject, rows in (await holding.left(tx, erasures)).items():
            left[subject] = left.get(subject, 0) + rows
    faultpoint("participant.swept")
    went = await _erased_rows(tx, commands)
    return [
        HoldingsErased(
            request_id=command.request_id,
            subject_id=command.subject_id,
            system=system,
            number=command.number,
            erased=went.get((command.request_id, command.subject_id), 0),
            left=left.get(command.subject_id, 0),
        )
        for command in commands
    ]


async def _revoked_of(tx: Tx, requests: Mapping[UUID, UUID]) -> list[Erasure]:
    """Everything that the list has revoked of these people (subject → request), whatever request it was for."""
    subjects = list(requests)
    rows: list[Any] = await tx.fetch(
        """-- revoked_of
        SELECT u.subject_id, r.subject_id IS NOT NULL AS is_final,
               ARRAY(SELECT key_id FROM kit.revoked_keys k WHERE k.subject_id = u.subject_id) AS key_ids
        FROM unnest($1::uuid[]) AS u(subject_id) LEFT JOIN kit.revoked_subjects r USING (subject_id)""",
        subjects,
    )
    return [Erasure(requests[r["subject_id"]], r["subject_id"], r["key_ids"], r["is_final"]) for r in rows]


async def _erased_rows(tx: Tx, commands: Sequence[EraseHoldings]) -> dict[tuple[UUID, UUID], int]:
    rows = await tx.fetch(
        """-- erased_rows
        SELECT e.* FROM kit.erased_rows e JOIN unnest($1::uuid[], $2::uuid[]) AS u(request_id, subject_id)
        USING (request_id, subject_id)""",
        [command.request_id for command in commands],
        [command.subject_id for command in commands],
    )
    return {(row["request_id"], row["subject_id"]): row["rows"] for row in rows}
