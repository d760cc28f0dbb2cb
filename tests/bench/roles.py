"""`start_s`, `rss_mb`, `idle_cpu_percent` of each role, and how long `privacyctl --help` takes."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

from deploy.local.stack import Stack
from tests.bench.figures import Figure

WATCHED = 10.0
TICKS = os.sysconf("SC_CLK_TCK")


async def run() -> AsyncIterator[Figure]:
    """A system with a process for each role of each service: every one restarted by itself, then watched while nothing happens."""
    with Stack(split=True, progress=lambda line: None) as stack:
        async for figure in _measure(stack):
            yield figure
    times = [_help() for _ in range(5)]
    yield Figure("privacyctl_help_ms", statistics.median(times) * 1000, "ms")


async def _measure(stack: Stack) -> AsyncIterator[Figure]:
    starts: dict[str, float] = {}
    for process in stack.processes:
        await asyncio.to_thread(process.stop)
        started = time.monotonic()
        await asyncio.to_thread(process.start)
        starts[process.name] = time.monotonic() - started
    pids = {process.name: process.pid for process in stack.processes}
    before = {name: _ticks(pid) for name, pid in pids.items()}
    await asyncio.sleep(WATCHED)
    idle = {name: 100 * (_ticks(pid) - before[name]) / TICKS / WATCHED for name, pid in pids.items()}
    for name, pid in pids.items():
        yield Figure(f"start_s.{name}", starts[name], "s")
        yield Figure(f"rss_mb.{name}", _rss_mb(pid), "MB")
        yield Figure(f"idle_cpu_percent.{name}", idle[name], "%")
    yield Figure("start_s", max(starts.values()), "s", "the slowest process")
    yield Figure("rss_mb", sum(_rss_mb(pid) for pid in pids.values()), "MB", "all processes of the system")
    yield Figure("idle_cpu_percent", sum(idle.values()), "%", "all processes of the system, of one core")


def _help() -> float:
    started = time.monotonic()
    subprocess.run([Path(sys.executable).parent / "privacyctl", "--help"], check=True, capture_output=True)
    return time.monotonic() - started


def _ticks(pid: int | None) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _rss_mb(pid: int | None) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
