"""`python -m deploy.local.cli up|status|down|customer-token`: the stack in the background."""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from rich.console import Console
from rich.table import Table

from deploy.local import keys
from deploy.local.processes import end_all
from deploy.local.services import ROOT, load_specification, read_health
from deploy.local.state import Child, env_file, read_state, remove_state

NOT_RUNNING = 3  # the exit code of `status` for a program that is not running (LSB)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploy.local.cli", description=__doc__)
    parser.add_argument("--local", type=Path, default=ROOT / ".local", help="folder of the state (default: .local)")
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("up", help="start the stack in the background and write stack.env")
    start.add_argument("--split", action="store_true", help="one process per role instead of one per service")
    start.add_argument("--with", action="append", default=[], dest="extra", metavar="MODULE:NAME", type=_specification,
                       help="a third party's service as well: where its ServiceSpec stands")  # fmt: skip
    commands.add_parser("status", help="every role: up or down, version, lag, outbox depth")
    commands.add_parser("down", help="stop everything and remove its data")
    token = commands.add_parser("customer-token", help="a token for one customer, valid for an hour")
    token.add_argument("subject", type=UUID)
    options = parser.parse_args(arguments)
    match options.command:
        case "up":
            return up(options.local, options.split, options.extra)
        case "status":
            return status(options.local)
        case "down":
            return down(options.local)
        case _:
            return customer_token(options.local, options.subject)


def up(local: Path, split: bool = False, extra: Sequence[str] = ()) -> int:
    """Start the supervisor and show its progress until the stack is ready; `extra` are third parties' `MODULE:NAME`."""
    state = read_state(local)
    if state is not None and state.is_running:
        return _fail("The stack is up already. `make status` shows it, `make down` stops it.")
    if state is not None:
        print("A stack that was not taken down left its state behind: cleaning up first.")
        down(local)
    command = [sys.executable, "-m", "deploy.local.supervisor", str(local), *extra, *(["--split"] if split else [])]
    supervisor = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True,
    )  # fmt: skip
    assert supervisor.stdout is not None
    try:
        for line in supervisor.stdout:
            print(line, end="", flush=True)
    except KeyboardInterrupt:
        supervisor.terminate()
        supervisor.wait()
        return _fail("Interrupted: everything that had been started is stopped again.")
    state = read_state(local)
    if state is None or not state.ready:
        return _fail("The stack did not come up; the lines above say why. Nothing is left running.")
    print(f"The stack is up. For your shell: set -a; . {_short(env_file(local))}; set +a")
    print(f"Every mail that the shop sends is a file: {state.mailbox}/<address>/<number>.eml")
    return 0


def status(local: Path) -> int:
    """Print a table of all roles. 0: all are up and healthy; 1: some are not; 3: there is no stack."""
    state = read_state(local)
    if state is None or not state.is_running:
        _fail("The stack is not up." + (" It left its state behind; `make down` cleans up." if state else ""))
        return NOT_RUNNING
    table = Table("system", "role", "state", "pid", "version", "lag", "outbox")
    all_well = state.ready
    for child in state.children:
        condition, row = _row(child)
        all_well = all_well and condition == "up"
        table.add_row(child.system, child.role, condition, *row)
    Console().print(table)
    return 0 if all_well else 1


def down(local: Path) -> int:
    """Stop all processes and remove all data and the state; harmless when nothing is up."""
    state = read_state(local)
    if state is None:
        print("The stack is not up: nothing to do.")
        return 0
    # The supervisor stops its children in order, which may take each the 10 s of a clean stop; what it leaves ends
    # after it.
    end_all([(state.supervisor, state.created)], timeout=60)
    end_all([(child.pid, child.created) for child in state.children])
    for folder in state.folders:
        shutil.rmtree(folder, ignore_errors=True)
    remove_state(local)
    print("The stack is down; no process and no data of it are left.")
    return 0


def customer_token(local: Path, subject: UUID) -> int:
    """Print a token for this customer."""
    state = read_state(local)
    if state is None or not state.ready:
        return _fail("The stack is not up: `make up` first.")
    print(keys.customer_token(state.keys, subject))
    return 0


def _row(child: Child) -> tuple[str, list[str]]:
    """up | down | silent | what is wrong; and pid, version, lag, outbox depth as the process tells them."""
    pid = str(child.pid)
    if not child.is_running:
        return "down", ["", "", "", ""]
    if not child.health_url:
        return "up", [pid, "", "", ""]
    health = read_health(child.health_url)
    told = [str(health.get("version", "")), _lag(health.get("lag")), str(health.get("outbox_depth", ""))]
    return _condition(health), [pid, *told]


def _condition(health: dict[str, Any]) -> str:
    if health.get("ok"):
        return "up"
    if not health:
        return "silent"
    return ", ".join(f"{name}: {problem}" for name, problem in health.get("problems", {}).items()) or "sick"


def _lag(lag: dict[str, int] | None) -> str:
    """The loops that are behind with their lag, or 0; empty for a process without loops."""
    if not lag:
        return ""
    return ", ".join(f"{name} {behind}" for name, behind in lag.items() if behind) or "0"


def _specification(text: str) -> str:
    """Checked here already, so that a wrong name starts nothing."""
    try:
        load_specification(text)
    except (ImportError, AttributeError, TypeError, ValueError):
        raise argparse.ArgumentTypeError(
            "it names no ServiceSpec; such as tests.support.reviews_spec:REVIEWS"
        ) from None
    return text


def _fail(message: str) -> int:
    print(message, file=sys.stderr)
    return 1


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


if __name__ == "__main__":
    sys.exit(main())
