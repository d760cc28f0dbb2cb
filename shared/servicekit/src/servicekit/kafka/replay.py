"""Replay: records in quarantine are tried again, in the order they arrived in; and how else their wait ends."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import uuid4

from event_contracts.privacy import QuarantineAction, QuarantineDecided
from servicekit.core.errors import Doubtful
from servicekit.core.logs import code, get_log
from servicekit.core.metrics import QUARANTINE_ENDED, QUARANTINE_OLDEST, QUARANTINE_WAITING
from servicekit.db.postgres import Tx, is_up
from servicekit.kafka import quarantine
from servicekit.kafka.batches import UNHELPED, Applier, Batch, Consumes, reason_of
from servicekit.kafka.cloudevents import RawRecord
from servicekit.kafka.quarantine import FAILED, KEEP_ENDED, Aggregate, Outcome, Waiting, load_waiting, open_waiting
from servicekit.kit import Decided, Kit

log = get_log("replay")
# No content is left, neither here nor in Kafka.
GONE = "gone"


async def replay(kit: Kit, readers: Sequence[Consumes], by: str | None = None) -> tuple[int, int]:
    """Tries every waiting record again. A record that fails keeps its place, and those of its aggregate behind it.

    Returns how many were replayed and how many still wait.
    """
    done = left = 0
    for consumes in readers:
        stuck = set[Aggregate]()
        async for line, record in _lines(kit, consumes.reader, None):
            if await _replay_one(kit, consumes, line, record, stuck, by):
                done += 1
            else:
                left += 1
    log.info("replayed", done=done, left=left)
    return done, left


async def replay_aggregate(kit: Kit, consumes: Consumes, aggregate: Aggregate, by: str | None = None) -> int:
    """The same for the records of one aggregate. Returns how many were replayed."""
    done, stuck = 0, set[Aggregate]()
    async for line, record in _lines(kit, consumes.reader, aggregate):
        if not await _replay_one(kit, consumes, line, record, stuck, by):
            break
        done += 1
    return done


async def replay_alone(kit: Kit, consumes: Consumes, line: Waiting, by: str | None = None) -> bool:
    """The same for a record that belongs to no aggregate, or parks nothing."""
    (record,) = await open_waiting(kit, [line])
    return await _replay_one(kit, consumes, line, record, set(), by)


async def _lines(kit: Kit, reader: str, aggregate: Aggregate | None) -> Any:
    after = 0
    while page := await load_waiting(kit.db, reader, after=after, aggregate=aggregate):
        for line, record in zip(page, await open_waiting(kit, page), strict=True):
            yield line, record
        after = page[-1].number


async def _replay_one(
    kit: Kit, consumes: Consumes, line: Waiting, record: RawRecord | None, stuck: set[Aggregate], by: str | None
) -> bool:
    aggregate = None if line.aggregate is None else (line.topic, line.aggregate)
    if line.blocks and aggregate in stuck:
        return False
    try:
        async with kit.work():
            reason = GONE if record is None else await _try(kit, consumes, line, record, by)
    except UNHELPED as error:
        if not (isinstance(error, Doubtful) and await is_up(kit.db)):
            raise
        reason = FAILED
    except Exception as error:  # noqa: BLE001 - whatever the handler raises, the record keeps its place
        log.error("replay_failed", number=line.number, reason=code(line.reason), error=error)
        reason = reason_of(error)
    if reason is None:
        return True
    if reason != line.reason:
        await kit.run_tx("change_reason", lambda tx: quarantine.change_reason(tx, line.number, reason))
    if aggregate is not None:
        stuck.add(aggregate)
    return False


async def _try(kit: Kit, consumes: Consumes, line: Waiting, record: RawRecord, by: str | None) -> str | None:
    """None when the record has taken its effect, or somebody else was faster; else why it cannot."""
    applier, batch = Applier(kit, consumes), Batch([record])

    async def work(tx: Tx) -> tuple[bool, Any]:
        if not await end_wait(kit, tx, consumes.reader, [line.number], Outcome.REPLAYED, by):
            return False, None
        return True, await applier.handle(tx, batch)

    await applier.prepare(batch)
    if batch.rejected:
        return batch.rejected[0].reason
    is_mine, result = await kit.run_tx("replay", work)
    if is_mine:
        QUARANTINE_ENDED.labels(consumes.reader, Outcome.REPLAYED.value).inc()
        await _deliver(kit, consumes, result)
    return None


async def _deliver(kit: Kit, consumes: Consumes, result: Any) -> None:
    """After the commit: the record has taken its effect, whatever fails here. What is recorded as unsent is sent later."""
    if consumes.deliver is not None:
        try:
            await consumes.deliver(kit, result)
        except UNHELPED:
            raise
        except Exception as error:  # noqa: BLE001 - a hook may raise anything
            log.error("replay_not_delivered", reader=code(consumes.reader), error=error)


async def discard(kit: Kit, reader: str, numbers: Sequence[int], by: str, reason: str) -> int:
    """Puts records away without any effect, on record. Returns how many still waited. Those behind them are tried next."""

    async def work(tx: Tx) -> int:
        return await end_wait(kit, tx, reader, numbers, Outcome.DISCARDED, by, reason)

    count = await kit.run_tx("discard", work)
    QUARANTINE_ENDED.labels(reader, Outcome.DISCARDED.value).inc(count)
    return count


async def end_wait(
    kit: Kit,
    tx: Tx,
    reader: str,
    numbers: Sequence[int],
    outcome: Outcome,
    by: str | None,
    reason: str | None = None,
) -> int:
    """Ends the wait of the records; what an operator decided is on record with it."""
    count = await quarantine.end_wait(tx, numbers, outcome, kit.clock.now(), by, reason)
    if count and by is not None:
        number = numbers[0] if len(numbers) == 1 else None
        await _put_on_record(kit, tx, reader, QuarantineAction(outcome), count, number, reason, by)
    return count


async def _put_on_record(
    kit: Kit,
    tx: Tx,
    reader: str,
    action: QuarantineAction,
    count: int,
    number: int | None = None,
    reason: str | None = None,
    by: str | None = None,
) -> None:
    decided = QuarantineDecided(
        decision_id=uuid4(),
        system=kit.name,
        reader=reader,
        action=action,
        count=count,
        number=number,
        reason=reason,
        operator=by,
    )
    if kit.record_decision is not None:
        await kit.record_decision(kit, tx, decided)


async def tend(kit: Kit, readers: Sequence[Consumes]) -> None:
    """Job: ends the wait of what is past its days, tries what nothing is left in front of, and counts what waits."""
    now = kit.clock.now()
    days = timedelta(days=kit.policy.classes["quarantine"].retention.days + 1)

    async def expire(tx: Tx) -> dict[str, int]:
        expired = await quarantine.expire(tx, now, now - days)
        for reader, count in expired.items():
            await _put_on_record(kit, tx, reader, QuarantineAction.EXPIRED, count)
        await quarantine.forget_ended(tx, now - KEEP_ENDED)
        return expired

    for reader, count in (await kit.run_tx("expire_quarantine", expire)).items():
        log.error("quarantine_expired", reader=code(reader), count=count)
        QUARANTINE_ENDED.labels(reader, Outcome.EXPIRED.value).inc(count)
    by_name = {each.reader: each for each in readers}
    for _, reader, aggregate in await quarantine.heads(kit.db, released=True):
        if reader in by_name:
            done = await replay_aggregate(kit, by_name[reader], aggregate)
            log.warning("quarantine_released", reader=code(reader), done=done)
    counts = await quarantine.summary(kit.db)
    for each in readers:
        count, oldest = counts.get(each.reader, (0, now))
        QUARANTINE_WAITING.labels(each.reader).set(count)
        QUARANTINE_OLDEST.labels(each.reader).set(max(0.0, (now - oldest).total_seconds()))


async def emit_decision(kit: Kit, tx: Tx, decided: Decided) -> None:
    """How a participant puts a decision on record: the privacy service reads it and writes it into the evidence log."""
    await tx.emit(decided)
