"""Room in quarantine: what of the rejected records is kept, and when a reader stops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

from servicekit.core.errors import Unavailable
from servicekit.core.logs import code, get_log
from servicekit.core.metrics import NOT_KEPT, QUARANTINE_FULL
from servicekit.kafka import quarantine
from servicekit.kafka.quarantine import PARKED, Aggregate, Kept, Rejected, seal_rejected
from servicekit.kit import Kit

log = get_log("quarantine")
DAY = timedelta(days=1)


class QuarantineFull(Unavailable):
    """Records of very many aggregates have failed within a day, as with a bad release, so this reader stops. Repair the
    cause, then run `quarantine replay` or `quarantine discard`; the reader goes on by itself."""

    code = "quarantine_full"


async def admit(kit: Kit, reader: str, rejected: Sequence[Rejected]) -> list[Kept]:
    """Seals what is kept of the records. Raises `QuarantineFull` when our own failures are in too many aggregates."""
    if not rejected:
        return []
    if any(each.blocks and each.reason != PARKED for each in rejected):
        await _stop_if_full(kit, reader)
    kept = await _within_room(kit, reader, _last_of_repeats(rejected))
    aggregates = _aggregates(kept)
    full = await quarantine.full_aggregates(kit.db, reader, aggregates) if aggregates else frozenset()
    if full:
        log.error("quarantine_full", reader=code(reader), aggregates=len(full), do=code("quarantine_list"))
    return await seal_rejected(kit, kept, full)


async def _stop_if_full(kit: Kit, reader: str) -> None:
    failing = await quarantine.count_failing(kit.db, reader, kit.clock.now() - DAY)
    is_full = failing >= quarantine.MAX_AGGREGATES
    QUARANTINE_FULL.labels(reader).set(is_full)
    if is_full:
        log.error("quarantine_full", reader=code(reader), failing=failing, do=code("quarantine_replay_or_discard"))
        raise QuarantineFull


def _last_of_repeats(rejected: Sequence[Rejected]) -> list[Rejected]:
    last = {(each.record.topic, each.name): each.record.id for each in rejected}
    return [each for each in rejected if each.name is None or last[each.record.topic, each.name] == each.record.id]


async def _within_room(kit: Kit, reader: str, rejected: Sequence[Rejected]) -> list[Rejected]:
    """Without those from outside for which there is no room: they are counted, and Kafka has them for a while."""
    if all(each.blocks for each in rejected):
        return list(rejected)
    counts = Counter(await quarantine.count_outside(kit.db, reader))
    kept: list[Rejected] = []
    dropped: Counter[tuple[str, str]] = Counter()
    for each in rejected:
        name = each.record.topic, each.reason
        if not each.blocks and counts[name] >= quarantine.MAX_OUTSIDE:
            dropped[name] += 1
        else:
            counts[name] += not each.blocks
            kept.append(each)
    for (topic, reason), count in dropped.items():
        NOT_KEPT.labels(topic, reason).inc(count)
        where = {"topic": code(topic), "reason": code(reason)}
        log.error("quarantine_full", reader=code(reader), not_kept=count, do=code("quarantine_discard"), **where)
    return kept


def _aggregates(kept: Sequence[Rejected]) -> set[Aggregate]:
    return {(each.record.topic, key) for each in kept if each.blocks and (key := each.record.aggregate) is not None}
