"""`make check`: every check, two at once, all of them even when one fails; the exit code is 1 if any did."""

import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from deploy.check.findings import ROOT

BIN = Path(sys.executable).parent
AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class Step:
    """One check: a program of the virtual environment, and what to do when it fails."""

    name: str
    command: Sequence[str]
    do: str = ""


# The one that takes longest begins first.
STEPS = (
    Step("types", (f"{BIN}/mypy", "--no-error-summary")),
    Step("format", (f"{BIN}/ruff", "format", "--check", "--quiet", "."), "make format"),
    Step(
        "lint", (f"{BIN}/ruff", "check", "--quiet", "--output-format=concise", "."), "ruff rule <code> explains a rule"
    ),
    Step(
        "imports",
        (f"{BIN}/lint-imports",),
        "turn the import round or publish an event; the contracts are in .importlinter",
    ),
    Step("our own rules", (sys.executable, "-m", "deploy.check")),
    Step("schemas", (sys.executable, "-m", "deploy.check.schemas")),
    Step("asyncapi", (sys.executable, "-m", "deploy.check.asyncapi")),
)


def main() -> int:
    """Run all steps; prints the output of those that fail."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        passed = list(pool.map(run, STEPS))
    return 0 if all(passed) else 1


def run(step: Step) -> bool:
    """Run one step; returns whether it passed."""
    begin = time.monotonic()
    done = subprocess.run(step.command, cwd=ROOT, capture_output=True, text=True, check=False)
    said = [f"check: {step.name} {'failed' if done.returncode else 'ok'} ({time.monotonic() - begin:.1f} s)"]
    if done.returncode:
        said += [(done.stdout + done.stderr).strip(), f"What to do: {step.do}" if step.do else ""]
    # In one piece, since another step ends at the same time.
    print("\n".join(said), flush=True)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
