"""What tests of faults share: the seed of the run, and the record of what they did from outside."""

import os
import random

from servicekit.core.faults import record


def seeded(name: str) -> random.Random:
    """Chance that comes out the same for the same FAULTS_SEED and name; without a seed it is the seed 0."""
    return random.Random(f"{os.environ.get('FAULTS_SEED', '0')} {name}")


def long_run() -> bool:
    """Whether this is `make faults-long`: faults last longer then."""
    return os.environ.get("FAULTS_LONG") == "1"


def fired(fault: str, times: int = 1) -> None:
    """Notes in the run's record that a test made this fault happen (a killed server, an answer dropped)."""
    for _ in range(times):
        record(fault, "outside", 0)


def recording() -> dict[str, str]:
    """For the environment of a process that inherits none."""
    folder = os.environ.get("FAULTS_RECORD")
    return {"FAULTS_RECORD": folder} if folder else {}
