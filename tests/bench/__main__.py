"""`make bench`: every benchmark in one run, on one machine; `.local/bench.json`, two plots and a table.

ROUNDS, RECORDS, PEOPLE, SUBJECTS and OLD_ROWS set the size, the arguments name the benchmarks to run. Exit code 1 when a
benchmark failed, not when a goal is missed.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import uvloop
from rich.console import Console

from deploy.local.postgres import SETTINGS
from deploy.local.services import ROOT
from deploy.local.stack import Stack
from servicekit.core import gc_settings
from tests.bench import (
    disturbed,
    erasures,
    exports,
    gateway,
    growth,
    inventory,
    orders,
    raw,
    revocation_lock,
    roles,
    sealing,
)
from tests.bench.figures import Figure, print_table, write_growth_svg, write_json, write_svg
from tests.bench.hall import without


def size(name: str, default: int) -> int:
    return int(os.environ.get(name, default))


ROUNDS, RECORDS, PEOPLE = size("ROUNDS", 3), size("RECORDS", 12_000), size("PEOPLE", 400)
SUBJECTS, OLD_ROWS = size("SUBJECTS", 1_000_000), size("OLD_ROWS", 10_000_000)
CONSOLE = Console(highlight=False, width=None if sys.stdout.isatty() else 150)


@dataclass(frozen=True)
class Benchmark:
    """`names`: the figures with a goal that it owes, also when it fails. `alone`: of which systems the stack's
    processes are stopped meanwhile: it starts its own, or they would take in the same orders beside it."""

    run: Callable[[Stack], AsyncIterator[Figure]]
    names: tuple[str, ...]
    alone: tuple[str, ...] = ()


ON_THE_STACK = {
    "orders": Benchmark(lambda stack: orders.run(stack, ROUNDS, min(RECORDS, 500)), ("order_vs_plain",)),
    "exports": Benchmark(lambda stack: exports.run(stack, ROUNDS), ("export_vs_copy",)),
    "erasures": Benchmark(
        lambda stack: erasures.run(stack, ROUNDS, PEOPLE),
        ("erasure_p50_ms", "erasure_p99_ms", "erasure_per_s", "erasure_vs_floor"),
    ),
    "disturbed": Benchmark(lambda stack: disturbed.run(stack), ("erasure_disturbed",)),
    "gateway": Benchmark(
        lambda stack: gateway.run(stack, ROUNDS, RECORDS),
        ("gateway_vs_raw", "gateway_vs_faststream_single"),
        ("logistics-gateway", "privacy"),
    ),
    "inventory": Benchmark(
        lambda stack: inventory.run(stack, ROUNDS, RECORDS),
        ("inventory_vs_upsert",),
        ("logistics-gateway", "privacy"),
    ),
}
# These need no stack, or have their own.
BY_THEMSELVES: dict[str, tuple[Callable[[], AsyncIterator[Figure]], tuple[str, ...]]] = {
    "roles": (roles.run, ("start_s", "rss_mb", "idle_cpu_percent", "privacyctl_help_ms")),
    "sealing": (lambda: sealing.run(ROUNDS), ("seal_vs_aws_esdk",)),
    "revocation_lock": (revocation_lock.run, tuple(revocation_lock.WRITERS)),
    "growth": (
        lambda: growth.run(ROUNDS, SUBJECTS, OLD_ROWS, CONSOLE.print),
        ("growth_erasure", "growth_lookup", "growth_lease", "growth_relay", "growth_inbox", "bytes_per_subject"),
    ),
}


async def main(wanted: list[str]) -> int:
    names = wanted or [*ON_THE_STACK, *BY_THEMSELVES]
    unknown = [name for name in names if name not in ON_THE_STACK and name not in BY_THEMSELVES]
    if unknown:
        CONSOLE.print(
            f"There is no benchmark {', '.join(unknown)}; there are {', '.join([*ON_THE_STACK, *BY_THEMSELVES])}."
        )
        return 2
    os.environ["KAFKA_JIT"] = "full"
    # All of a benchmark's people come from one address and are served by few staff.
    os.environ.setdefault("LIMITS_FACTOR", "1000")
    _print_settings()
    figures: list[Figure] = []
    failed = 0
    on_stack = [name for name in names if name in ON_THE_STACK]
    if on_stack:
        stack = Stack(progress=CONSOLE.print)
        # As by default: looks at the holds of those who were erased would be measured with all that comes after.
        stack.overrides["privacy"]["HOLD_CHECK_SECONDS"] = "3600"
        with stack:
            for name in on_stack:
                benchmark = ON_THE_STACK[name]
                failed += await _measure(name, _alone(stack, benchmark), benchmark.names, figures)
    for name in names:
        if name in BY_THEMSELVES:
            run, owed = BY_THEMSELVES[name]
            failed += await _measure(name, run(), owed, figures)
    folder = ROOT / ".local"
    folder.mkdir(exist_ok=True)
    write_json(figures, folder / "bench.json")
    write_svg(figures, folder / "bench.svg")
    write_growth_svg(figures, folder / "bench-growth.svg")
    print_table(figures, CONSOLE)
    CONSOLE.print("Written: .local/bench.json, .local/bench.svg, .local/bench-growth.svg")
    return int(failed > 0)


async def _alone(stack: Stack, benchmark: Benchmark) -> AsyncIterator[Figure]:
    async with without(stack, benchmark.alone):
        async for figure in benchmark.run(stack):
            yield figure


async def _measure(name: str, run: AsyncIterator[Figure], owed: tuple[str, ...], figures: list[Figure]) -> int:
    """1 if it failed: then the figures that it still owes have no value, and say why."""
    CONSOLE.print(f"[bold]{name}[/bold]")
    started, known = time.monotonic(), len(figures)
    try:
        async for figure in run:
            figures.append(figure)
            CONSOLE.print(f"  {figure.name}: {figure.value:,.2f} {figure.unit}")
    except Exception as problem:  # noqa: BLE001 - whatever fails, the others are still measured
        traceback.print_exc()
        reason = f"failed: {type(problem).__name__}: {problem}"[:200]
        # A check fails after its figures: they would say nothing.
        figures[known:] = [Figure(each, None, "", reason) for each in owed]
        return 1
    finally:
        CONSOLE.print(f"  ({time.monotonic() - started:.0f} s)")
    return 0


def _print_settings() -> None:
    CONSOLE.print(
        f"Both sides: producers {raw.PRODUCER}, consumers {raw.CONSUMER}, batches of {raw.BATCH}, "
        f"Postgres fsync {SETTINGS['fsync']}, full commits; {os.cpu_count()} cores; {ROUNDS} rounds, medians. "
        f"Sizes: {RECORDS:,} events, {PEOPLE:,} erasures, {growth.SMALL:,} → {SUBJECTS:,} people, {OLD_ROWS:,} old rows.",
        markup=False,
    )


if __name__ == "__main__":
    gc_settings.settle()  # as the services: the baselines that run in this process have what these have
    sys.exit(uvloop.run(main(sys.argv[1:])))
