"""docs/proofs.md, 9: between any two things that a process does to the world in a saga there is a fault point.

So the kills at all points (`test_saga_kills.py`) leave no place untried. What undisturbed sagas do is recorded in their
own processes, because points are seen nowhere else; a `send` of several records to Kafka counts as one.
"""

import asyncio
import os
import secrets
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.local.people import Crowd
from deploy.local.shop import Shop
from deploy.local.stack import Stack
from tests.acceptance.test_kills import POINTS, UNCOMMANDED
from tests.acceptance.test_saga_kills import FOLLOWING, SAGAS
from tests.acceptance.test_saga_kills import World as Saga
from tests.support.infra import new_kafka, new_postgres
from tests.support.stacks import FAST_PASSWORDS
from tests.support.staff import Staff

pytestmark = pytest.mark.timeout(900)
POINT = "point"
TRACING = Path(__file__).parents[1] / "support" / "tracing"


@dataclass(frozen=True)
class Line:
    """`process`: service and role; `kind`: commit, produce, post or point."""

    process: str
    moment: int
    task: str
    kind: str
    name: str


@dataclass
class World:
    stack: Stack
    staff: Staff
    shop: Shop
    folder: Path

    def trace(self, since: int) -> list[Line]:
        lines = []
        for file in self.folder.iterdir():
            (_, _, _, process), *rest = (line.split(" ", 3) for line in file.read_text().splitlines())
            lines += [Line(process, int(moment), *others) for moment, *others in rest if int(moment) >= since]
        return sorted(lines, key=lambda line: line.moment)


@pytest.fixture
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("saga-points")
    (traces := folder / "traces").mkdir()
    stack = Stack(split=True, kafka=new_kafka(folder / "kafka"), postgres=new_postgres(), progress=lambda _: None)
    for spec in stack.specs.values():
        path = os.pathsep.join(map(str, (TRACING, *spec.pythonpath)))
        stack.overrides[spec.system] |= {"PYTHONPATH": path, "TRACE_FOLDER": str(traces)}
    stack.overrides["account"] |= FAST_PASSWORDS
    async with AsyncExitStack() as running:
        running.push_async_callback(asyncio.to_thread, stack.close)
        await asyncio.to_thread(stack.start)
        staff = await running.enter_async_context(Staff(stack))
        shop = Shop(stack.url("account"), stack.url("order"), stack.mailbox)
        running.push_async_callback(shop.close)
        yield World(stack, staff, shop, traces)


def unguarded(lines: Iterable[Line]) -> list[tuple[Line, Line]]:
    """Neighbouring effects of one task without a point between them."""
    last: dict[tuple[str, str], Line] = {}
    found = []
    for line in lines:
        before = last.get((line.process, line.task))
        if before is not None and POINT not in (before.kind, line.kind):
            found.append((before, line))
        last[line.process, line.task] = line
    return found


def said(pairs: Sequence[tuple[Line, Line]]) -> list[str]:
    return sorted({f"{a.process}: {a.kind} {a.name} → {b.kind} {b.name}" for a, b in pairs})


def kinds(lines: Iterable[Line]) -> Mapping[str, set[str]]:
    found = defaultdict(set)
    for line in lines:
        found[line.process].add(line.kind)
    return found


async def test_between_any_two_effects_of_a_saga_there_is_a_fault_point(world: World) -> None:
    """A correction, a package that is fetched, and an erasure, one after the other."""
    (customer,) = Crowd(secrets.randbits(32)).customers(1)
    who = await world.shop.register(customer)
    await world.shop.save_address(who)
    await world.shop.add_favourite(who, "TEA-GREEN-100")
    since = time.monotonic_ns()
    right = {"identity": {"name": "Jane C. Corrected"}}
    await world.staff.completed(await world.staff.open("rectification", who.subject_id, rectification=right))
    await Saga(world.stack, world.staff, []).hand_over(who.subject_id)
    await world.staff.erase([who.subject_id])
    trace = world.trace(since)
    effects = [line for line in trace if line.kind != POINT]
    assert {line.kind for line in effects} == {"commit", "produce", "post"}
    for process in ("privacy_service jobs", "privacy_service consume", "account_service consume"):
        assert "commit" in kinds(effects)[process], process
    found = said(unguarded(trace))
    assert found == [], "\n".join(found)
    # And it is the points that make it so.
    assert len(unguarded(effects)) > 20
    points = {line.name for line in trace if line.kind == POINT}
    killed = {UNCOMMANDED, *FOLLOWING, *(point for of_one in (*SAGAS.values(), *POINTS.values()) for point in of_one)}
    assert points - killed == set()
    print(f"\n{len(effects)} effects, {len(points)} fault points of undisturbed sagas")
