"""`make faults-long`: all tests of faults with longer faults, then those that hang on the seed, seed after seed, for an hour.

Each round is a pytest of its own with its own seed and report; at the end one report of all rounds is written. FAULTS_SEED is the
first round's seed (the others follow from it), FAULTS_MINUTES the bound on the whole. pytest's arguments are those of the command.
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

from tests.faults.plugin import DEFAULT_REPORT, OVER
from tests.faults.report import Entry, merge, read, summary, write
from tests.faults.rows import ROWS

ROOT = Path(__file__).resolve().parents[2]
MINUTES = 60
# The last test that begins has this long to end, with its servers: twice what the longest takes.
LAST_TEST_SECONDS = 420
# A round that is interrupted has this long to stop its servers and to write what it saw.
CLOSING_SECONDS = 60
SHORTEST_ROUND = 60


def main() -> int:
    """1 when a fault was not survived, a round did not come to its end, or the first one had no time for all faults."""
    ends_at = time.monotonic() + 60 * float(os.environ.get("FAULTS_MINUTES", MINUTES))
    seed = os.environ.get("FAULTS_SEED") or str(secrets.randbits(32))
    following, seeds, reports, whole = random.Random(seed), [], list[list[Entry]](), True
    with tempfile.TemporaryDirectory(prefix="faults-long-") as folder:
        while (left := ends_at - LAST_TEST_SECONDS - CLOSING_SECONDS - time.monotonic()) > SHORTEST_ROUND and whole:
            chosen = "fault and seeded" if reports else "fault"
            print(f"\nround {len(seeds) + 1}, seed {seed}, {left / 60:.0f} minutes left: -m '{chosen}'", flush=True)
            report = Path(folder) / f"{len(seeds)}.json"
            whole = run_round(chosen, seed, report, left) in (0, 1)
            seeds.append(seed)
            reports.append(read(report) if report.exists() else [])
            seed = str(following.getrandbits(32))
    entries = merge(reports)
    write(entries, ROOT / DEFAULT_REPORT, f"{len(seeds)} rounds, seeds {', '.join(seeds)}.", ROWS)
    print(f"\n{len(seeds)} rounds: {summary(entries)}: {DEFAULT_REPORT}")
    for entry in entries:
        if entry.verdict == "broken":
            print(f"row {entry.row}: {entry.fault}: {entry.reason}")
    late = [f"row {entry.row}: {entry.fault}" for entry in (reports or [[]])[0] if OVER in entry.reason]
    for each in late:
        print(f"{each}: {OVER}")
    held = reports and all(reports) and whole and not any(entry.verdict == "broken" for entry in entries)
    return 0 if held and not late else 1


def run_round(chosen: str, seed: str, report: Path, seconds: float) -> int:
    """pytest's exit code. After `seconds` no test begins; a round that even then does not end is interrupted as by Ctrl-C."""
    command = [sys.executable, "-m", "pytest", *sys.argv[1:], "-m", chosen, f"--faults-report={report}"]
    environment = {**os.environ, "FAULTS_SEED": seed, "FAULTS_LONG": "1", "FAULTS_UNTIL": str(time.time() + seconds)}
    environment.setdefault("KILLS", "3")
    environment.setdefault("SAGA_HITS", "2")
    process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)
    try:
        return process.wait(seconds + LAST_TEST_SECONDS)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        process.send_signal(signal.SIGINT)
    try:
        return process.wait(CLOSING_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait()


if __name__ == "__main__":
    sys.exit(main())
