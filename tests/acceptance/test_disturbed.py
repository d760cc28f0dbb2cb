"""Nobody stops everybody (law L13): with everything at once that strangers and broken parts can do, orders and erasures go on.

How long that takes is measured by `make bench ARGS=disturbed`.
"""

from collections.abc import Callable
from uuid import UUID

import pytest

from deploy.local.stack import Stack
from tests.bench.population import settle
from tests.support.disturbances import disturbed
from tests.support.staff import Staff


@pytest.mark.attack(
    "garbage, poisoned people, a silent holder, a forgotten transaction and silent sockets, all at once",
    expected="another person's erasure ends with a certificate",
)
async def test_an_erasure_ends_while_everything_disturbs_it(stack: Stack, seen: Callable[[object], None]) -> None:
    poisoned = [who.subject_id for who in await settle(stack, 3)]
    (healthy,) = await settle(stack, 1)
    async with Staff(stack) as staff, disturbed(stack, poisoned):
        begun: list[UUID] = [await staff.open("erasure", subject) for subject in poisoned]
        (state,) = await staff.erase([healthy.subject_id])
        seen(state["status"])
        assert state["certificate"] == "ready"
        for request in begun:
            await staff.cancel(request)
