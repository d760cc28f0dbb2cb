"""Replay: records in quarantine are tried again, in the order they arrived in."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from uuid import UUID

from servicekit.batches import UNHELPED, Applier, Batch, Consumes
from servicekit.kit import Kit
from servicekit.logs import code, get_log
from servicekit.postgres import Tx
from servicekit.quarantine import Waiting, load_waiting, mark_replayed

log = get_log("replay")


async def list_waiting(kit: Kit, readers: Sequence[Consumes]) -> None:
    """Prints one line for each waiting record: where it came from and why it waits, nothing of what is in it."""
    for consumes in readers:
        after = 0
        while page := await load_waiting(kit, consumes.reader, after=after):
            for line in page:
                where = "gone" if line.record is None else repr(line.record)
                print(f"{line.number:>8}  {line.reason:<24}  {where}", file=sys.stdout)
            after = page[-1].number


async def replay(kit: Kit, readers: Sequence[Consumes]) -> tuple[int, int]:
    """Tries every waiting record again. A record that fails keeps its place, and those of its aggregate behind it.

    Returns how many were replayed and how many still wait.
    """
    done = left = 0
    for consumes in readers:
        after, stuck = 0, set[UUID]()
        while page := await load_waiting(kit, consumes.reader, after=after):
            for line in page:
                if await _replay_one(kit, consumes, line, stuck):
                    done += 1
                else:
                    left += 1
            after = page[-1].number
    log.info("replayed", done=done, left=left)
    return done, left


async def _replay_one(kit: Kit, consumes: Consumes, line: Waiting, stuck: set[UUID]) -> bool:
    record = line.record
    if record is None or record.aggregate in stuck:
        return False
    applier = Applier(kit, consumes)
    batch = Batch([record])

    async def work(tx: Tx) -> None:
        if await mark_replayed(tx, line.number, kit.clock.now()):
            await applier.handle(tx, batch)

    try:
        await applier.prepare(batch)
        if not batch.rejected:
            await kit.run_tx("replay", work)
            if consumes.deliver is not None:
                await consumes.deliver(kit, batch)
            return True
    except UNHELPED:
        raise
    except Exception as error:  # noqa: BLE001 - whatever the handler raises, the record keeps its place
        log.error("replay_failed", number=line.number, reason=code(line.reason), error=error)
    if record.aggregate is not None:
        stuck.add(record.aggregate)
    return False
