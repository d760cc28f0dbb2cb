"""Lists of operations that Hypothesis makes up, and those that once failed, on the whole product in one process.

`FAULTS_SEED` plays the same lists again; `FAULTS_LONG=1` makes more and longer ones.
"""

import os
import secrets
from collections.abc import Sequence

import pytest
import uvloop
from hypothesis import HealthCheck, Phase, given, note, seed, settings
from hypothesis import strategies as st

from tests.faults.reproductions import MARKED, REPRODUCTIONS, Reproduction
from tests.faults.simulation import CHOICES, Op, simulation
from tests.faults.simulation_broker import Broker
from tests.faults.simulation_checks import Safety, ended
from tests.faults.simulation_ground import Ground, ground
from tests.support.faults import long_run, seeded
from tests.support.infra import postgres_server

__all__ = ["ground", "postgres_server"]

IS_LONG = long_run()
# A long run has many rounds, each with lists of its own.
EXAMPLES = int(os.environ.get("SIMULATION_EXAMPLES", "60" if IS_LONG else "12"))
LONGEST = 60 if IS_LONG else 30
SEED = int(os.environ.setdefault("FAULTS_SEED", str(secrets.randbits(32))))
REPEATED = (
    "order_and_erasure",
    "erased_while_the_parcel_is_under_way",
    "an_erased_class_is_not_a_forbidden_class",
    "two_erasures_of_one_person",
    "corrected_while_it_is_erased",
)
PEOPLE_DO = ("place", "again", "edit", "cancel", "erase", "approve", "forget", "hold", "lift")
HAPPENS = ("tick", "follow", "relay", "consume", "jobs", "carry", "reply", "flow", "flow", "flow")
BREAKS = (
    "kill",
    "kill",
    "crash",
    "lose_call",
    "lose_request",
    "lose_produce",
    "repeat",
    "replay",
    "rebalance",
    "wake",
    "jump",
)
RESTORES = ("back_up", "restore")

NUMBERS = st.integers(0, 59)
OPS = st.sampled_from(PEOPLE_DO + HAPPENS + BREAKS + RESTORES).flatmap(
    lambda name: st.builds(Op, st.just(name), st.sampled_from(CHOICES[name]) if name in CHOICES else NUMBERS, NUMBERS)
)
LISTS = st.lists(OPS, min_size=5, max_size=LONGEST)


def play(ground: Ground, ops: Sequence[Op]) -> None:
    """Runs the list in a new world, heals it, and checks all the while. Raises `AssertionError`."""

    async def run() -> None:
        safety = Safety()
        async with simulation(ground) as world:
            await world.play(ops, safety)
            await world.heal()
            await safety(world)
            await ended(world)

    uvloop.run(run())


@pytest.mark.timeout(3600)
@pytest.mark.seeded
@pytest.mark.fault(1, "processes die at fault points, in lists of operations that are made up")
@pytest.mark.fault(6, "records come again and out of turn, in lists of operations that are made up")
@pytest.mark.fault(12, "databases are restored, in lists of operations that are made up")
@pytest.mark.fault(21, "the clock jumps, in lists of operations that are made up")
@pytest.mark.fault(7, "a stopped process wakes up after another took over, in lists of operations that are made up")
def test_whatever_happens_nothing_erased_opens_and_all_comes_to_its_end(ground: Ground) -> None:
    print(f"FAULTS_SEED={SEED}")

    @seed(SEED)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @given(LISTS)
    def lists(ops: list[Op]) -> None:
        note(f"FAULTS_SEED={SEED}")
        play(ground, ops)

    lists()


@pytest.mark.parametrize("case", MARKED)
def test_a_list_that_once_failed(ground: Ground, case: Reproduction) -> None:
    play(ground, case.ops)


@pytest.mark.seeded
@pytest.mark.fault(6, "records come again and again, out of turn, in named lists of operations")
@pytest.mark.parametrize("case", [c for c in REPRODUCTIONS if c.name in REPEATED], ids=lambda case: case.name)
def test_a_list_holds_when_every_record_comes_up_to_five_times(ground: Ground, case: Reproduction) -> None:
    chance = seeded(f"repeats {case.name}")
    ground.make_broker = lambda: Broker(chance)
    try:
        play(ground, case.ops)
    finally:
        ground.make_broker = Broker
