"""Fault points: named places where a test can kill, delay or fail a running process. Usually they do nothing.

A module declares its points when it is imported (`declare("relay.published")`) and marks the place with
`faultpoint("relay.published")`. `FAULTPOINTS=relay.published=kill@2,order.commit=delay:0.5,vault.ensure=error@3` arms
three: kill at the second hit, delay each hit by half a second (it stalls the whole process), raise at the third hit.

`FAULTS_RECORD=folder` keeps a record of each fault in the folder's file `fired`, written before it strikes: a process that
dies leaves its line there all the same.
"""

import os
import signal
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from servicekit.core.errors import KitError, Misconfigured
from servicekit.core.logs import code, get_log
from servicekit.core.metrics import FAULT_HITS

log = get_log("faults")

# The declared points, and how often each armed one was reached.
POINTS: set[str] = set()
HITS: Counter[str] = Counter()
RECORD = "fired"


class InjectedFault(KitError):
    """A fault point that a test armed failed here."""

    code = "injected_fault"


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens at a point: `action` is kill, delay or error; only at the hit number `at`, or at each (0)."""

    action: str
    seconds: float = 0.0
    at: int = 0


def declare(*names: str) -> None:
    """Make the points known at import, so that a list of all is there before the first hit."""
    POINTS.update(names)


def faultpoint(name: str) -> None:
    """Does nothing unless `name` is armed. Then it kills the process (SIGKILL), sleeps, or raises `InjectedFault`."""
    fault = _ARMED.get(name)
    if fault is None:
        return
    HITS[name] += 1
    FAULT_HITS.labels(name).inc()
    if fault.at not in (0, HITS[name]):
        return
    log.warning("fault", point=code(name), action=code(fault.action), hit=HITS[name])
    record(name, fault.action, HITS[name])
    if fault.action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault.action == "delay":
        time.sleep(fault.seconds)
    if fault.action == "error":
        raise InjectedFault


def record(name: str, action: str, hit: int) -> None:
    """A line `name action hit` in the record, if one is kept. One write each: several processes share the file."""
    folder = os.environ.get("FAULTS_RECORD")
    if folder:
        with (Path(folder) / RECORD).open("ab", buffering=0) as file:
            file.write(f"{name} {action} {hit}\n".encode())


def check_armed() -> None:
    """To be called once all modules are imported. Raises `Misconfigured` when an armed point does not exist."""
    unknown = sorted(set(_ARMED) - POINTS)
    if unknown:
        raise Misconfigured(f"FAULTPOINTS arms {', '.join(unknown)}, which no module declares: correct the names.")


def parse(text: str) -> dict[str, Fault]:
    """`name=action[:seconds][@hit]`, separated by commas. Raises `Misconfigured`."""
    return dict(_parse_one(part.strip()) for part in text.split(",") if part.strip())


def _parse_one(part: str) -> tuple[str, Fault]:
    name, _, rest = part.partition("=")
    what, _, at = rest.partition("@")
    action, _, seconds = what.partition(":")
    if not name or action not in ("kill", "delay", "error") or not (at or "0").isdecimal():
        raise Misconfigured("FAULTPOINTS is not a list of name=kill|error|delay:seconds, each with @hit or without.")
    return name, Fault(action, float(seconds or 0), int(at or 0))


def arm(faults: Mapping[str, Fault]) -> None:
    """Replace what the environment armed, and count from zero: for tests inside one process."""
    _ARMED.clear()
    _ARMED.update(faults)
    HITS.clear()


_ARMED: dict[str, Fault] = parse(os.environ.get("FAULTPOINTS", ""))
