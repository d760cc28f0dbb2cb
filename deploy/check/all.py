"""`make check`: every check in turn, all of them even when one fails; the exit code is 1 if any did."""

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.check.findings import ROOT

BIN = Path(sys.executable).parent


@dataclass(frozen=True, slots=True)
class Step:
    """One check: a program of the virtual environment, and what to do when it fails."""

    name: str
    command: Sequence[str]
    do: str = ""


STEPS = (
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
    Step("types", (f"{BIN}/mypy", "--no-error-summary")),
)


def main() -> int:
    """Run all steps; prints the output of those that fail."""
    failed = [step for step in STEPS if not run(step)]
    return 1 if failed else 0


def run(step: Step) -> bool:
    """Run one step; returns whether it passed."""
    print(f"check: {step.name} ", end="", flush=True)
    begin = time.monotonic()
    done = subprocess.run(step.command, cwd=ROOT, capture_output=True, text=True, check=False)
    print(f"{'failed' if done.returncode else 'ok'} ({time.monotonic() - begin:.1f} s)", flush=True)
    if done.returncode:
        print((done.stdout + done.stderr).strip())
        print(f"What to do: {step.do}" if step.do else "", flush=True)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
