"""`make faults-long`: all tests of faults with longer faults, then those that hang on the seed, seed after seed, for an hour.

Each round is a pytest of its own with its own seed and report; at the end one report of all rounds is written. FAULTS_SEED is the
first round's seed (the others follow from it), FAULTS_MINUTES the bound on the whole.
"""

import os
import random
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.plugin import DEFAULT_REPORT
from tests.faults.report import Entry, merge, read, summary, write
from tests.faults.rows import ROWS

ROOT = Path(__file__).resolve().parents[2]
MINUTES = 60
# A round that is told to end has this long to stop its servers and to write what it saw.
CLOSING_SECONDS = 120
SHORTEST_ROUND = 60


def main() -> int:
    """1 when a fault was not survived, or a round ended without a report."""
    ends_at = time.monotonic() + 60 * float(os.environ.get("FAULTS_MINUTES", MINUTES))
    seed = os.environ.get("FAULTS_SEED") or str(secrets.randbits(32))
    following, seeds, reports, whole = random.Random(seed), [], list[list[Entry]](), True
    with tempfile.TemporaryDirectory(prefix="faults-long-") as folder:
        while (left := ends_at - CLOSING_SECONDS - time.monotonic()) > SHORTEST_ROUND and whole:
            chosen = "fault and seeded" if reports else "fault"
            print(f"\nround {len(seeds) + 1}, seed {seed}, {left / 60:.0f} minutes left: -m '{chosen}'", flush=True)
            report = Path(folder) / f"{len(seeds)}.json"
            code = run_round(chosen, seed, report, left)
            whole = code in (0, 1)
            seeds.append(seed)
            reports.append(read(report) if report.exists() else [])
            seed = str(following.getrandbits(32))
    entries = merge(reports)
    write(entries, ROOT / DEFAULT_REPORT, f"{len(seeds)} rounds, seeds {', '.join(seeds)}.", ROWS)
    print(f"\n{len(seeds)} rounds: {summary(entries)}: {DEFAULT_REPORT}")
    for entry in entries:
        if entry.verdict == "broken":
            print(f"row {entry.row}: {entry.fault}: {entry.reason}")
    return 0 if all(reports) and not any(entry.verdict == "broken" for entry in entries) else 1


def run_round(chosen: str, seed: str, report: Path, seconds: float) -> int:
    """pytest's exit code. After `seconds` it is interrupted as by Ctrl-C, and killed if that does not end it."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", chosen, f"--faults-report={report}"]
    environment = {**os.environ, "FAULTS_SEED": seed, "FAULTS_LONG": "1"}
    environment.setdefault("KILLS", "3")
    environment.setdefault("SAGA_HITS", "2")
    process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
    try:
        return process.wait(CLOSING_SECONDS - 10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait()


if __name__ == "__main__":
    sys.exit(main())
