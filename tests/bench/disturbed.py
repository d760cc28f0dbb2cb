"""`erasure_disturbed`: how much longer a healthy person's erasure takes while everything disturbs it (law L13).

People are erased one after the other, first undisturbed, then with all of `tests/support/disturbances.py` at once. What is
left of leases that were granted before the entry is waited for in both; the first erasures of each half are not counted. The
silent holder gets leases for some lease times, in which each erasure waits for them; people are erased until it gets none.
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
PEOPLE = 30
# The vault refuses the silent holder after three lease times; an erasure then takes less than half a lease time.
MOST_WAITS = 6
A_WAIT_SECONDS = 30


async def run(stack: Stack) -> AsyncIterator[Figure]:
    async with Staff(stack) as staff:
        calm = (await _erase(staff, await settle(stack, WARM + PEOPLE)))[WARM:]
        poisoned = [who.subject_id for who in await settle(stack, POISONED)]
        async with disturbed(stack, poisoned):
            for subject in poisoned:
                await staff.open("erasure", subject)
            waits = list[float]()
            for who in await settle(stack, MOST_WAITS):
                waits += await _erase(staff, [who])
                if waits[-1] < A_WAIT_SECONDS:
                    break
            loud = await _erase(staff, await settle(stack, PEOPLE))
    undisturbed = statistics.median(calm)
    note = f"{PEOPLE} people one by one, undisturbed {undisturbed:.2f} s; before, {len(waits) - 1} waited for a silent holder"
    yield Figure("erasure_disturbed", statistics.median(loud) / undisturbed, "ratio", note)
    yield Figure("erasure_disturbed_longest_s", max(waits + loud), "s", "with what was left of earlier leases")


async def _erase(staff: Staff, people: Sequence[Settled]) -> list[float]:
    """Seconds from opening to certificate, of each."""
    took = []
    for who in people:
        started = time.monotonic()
        await staff.erase([who.subject_id])
        took.append(time.monotonic() - started)
    return took
