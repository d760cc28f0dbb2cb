"""`make bench`: every benchmark in one run, on one machine; `.local/bench.json`, `.local/bench.svg` and a table.

`ROUNDS` and `RECORDS` set the size, the arguments name the benchmarks to run. Exit code 1 when a benchmark failed, not when a
goal is missed.
"""

from __future__ import annotations

import asyncio
import os
import sys
import traceback
from collections.abc import AsyncIterator, Callable

from rich.console import Console

from deploy.local.services import ROOT
from deploy.local.stack import Stack
from tests.bench import erasures, gateway, inventory, orders, roles
from tests.bench.figures import Figure, print_table, write_json, write_svg

ROUNDS, RECORDS = int(os.environ.get("ROUNDS", "3")), int(os.environ.get("RECORDS", "6000"))
PEOPLE = int(os.environ.get("PEOPLE", "100"))

BENCHMARKS: dict[str, Callable[[Stack], AsyncIterator[Figure]]] = {
    "orders": lambda stack: orders.run(stack, ROUNDS, min(RECORDS, 500)),
    "erasures": lambda stack: erasures.run(stack, PEOPLE),
    "roles": lambda stack: roles.run(stack),
    "gateway": lambda stack: gateway.run(stack, ROUNDS, RECORDS),
    "inventory": lambda stack: inventory.run(stack, ROUNDS, RECORDS),
}
# These start and stop consumers of their own.
ALONE = {"gateway": "logistics-gateway", "inventory": "privacy"}
NOT_MEASURED = {
    "erasure_vs_floor": ("ratio", ">= 0.5"),
    "seal_vs_aws_esdk": ("ratio", ">= 10"),
    "export_vs_copy": ("ratio", "<= 8"),
    "growth_erasure": ("ratio", "<= 1.3"),
    "growth_lookup": ("ratio", "<= 1.3"),
    "growth_lease": ("ratio", "<= 1.3"),
}


async def main(names: list[str]) -> int:
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 150)
    figures: list[Figure] = []
    failed = False
    with Stack(progress=console.print) as stack:
        for name in names or BENCHMARKS:
            console.print(f"[bold]{name}[/bold]")
            if name in ALONE:
                await asyncio.to_thread(stack.process(ALONE[name]).stop)
            try:
                async for figure in BENCHMARKS[name](stack):
                    figures.append(figure)
                    console.print(f"  {figure.name}: {figure.value:,.2f} {figure.unit}")
            except Exception as problem:  # noqa: BLE001 - whatever fails, the others are still measured
                failed = True
                traceback.print_exc()
                figures.append(Figure(name, None, "", note=f"failed: {type(problem).__name__}: {problem}"[:200]))
    if not names:
        figures += [Figure(name, None, unit, goal, "not measured yet") for name, (unit, goal) in NOT_MEASURED.items()]
    folder = ROOT / ".local"
    folder.mkdir(exist_ok=True)
    write_json(figures, folder / "bench.json")
    write_svg(figures, folder / "bench.svg")
    print_table(figures, console)
    console.print(f"Written: {(folder / 'bench.json').relative_to(ROOT)}, {(folder / 'bench.svg').relative_to(ROOT)}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
