"""`erasure_disturbed`: how much longer a healthy person's erasure takes while everything disturbs it (law L13).

People are erased one after the other, first undisturbed, then with all of `tests/support/disturbances.py` at once. What is
left of leases that were granted before the entry is waited for in both; the first erasures of each half are not counted.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncIterator, Sequence

from deploy.local.stack import Stack
from tests.bench.figures import Figure
from tests.bench.population import Settled, settle
from tests.support.disturbances import disturbed
from tests.support.staff import Staff

POISONED = 3
WARM = 2
PEOPLE = 10


async def run(stack: Stack, rounds: int) -> AsyncIterator[Figure]:
    ratios, calm_seconds, longest = list[float](), list[float](), 0.0
    async with Staff(stack) as staff:
        for _ in range(rounds):
            calm = await _erase(staff, await settle(stack, WARM + PEOPLE))
            poisoned = [who.subject_id for who in await settle(stack, POISONED)]
            async with disturbed(stack, poisoned):
                for subject in poisoned:
                    await staff.open("erasure", subject)
                loud = await _erase(staff, await settle(stack, WARM + PEOPLE))
            ratios.append(statistics.median(loud[WARM:]) / statistics.median(calm[WARM:]))
            calm_seconds += calm[WARM:]
            longest = max(longest, *loud)
    note = f"{PEOPLE} people one by one, {rounds} rounds; undisturbed {statistics.median(calm_seconds):.2f} s"
    yield Figure("erasure_disturbed", statistics.median(ratios), "ratio", note)
    yield Figure("erasure_disturbed_longest_s", longest, "s", "with what was left of earlier leases")


async def _erase(staff: Staff, people: Sequence[Settled]) -> list[float]:
    """Seconds from opening to certificate, of each."""
    took = []
    for who in people:
        started = time.monotonic()
        await staff.erase([who.subject_id])
        took.append(time.monotonic() - started)
    return took
