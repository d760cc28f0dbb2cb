"""Holds, keys, retention and proofs at the keyboard: what the privacy officer, the auditor and the operator do."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn
from uuid import UUID, uuid4

import typer

from privacyctl.common import Json, SubjectId, failures, one_of, parse_day, parse_id, show

if TYPE_CHECKING:
    from privacyctl.upkeep import Upkeep

commands = typer.Typer()
hold = typer.Typer(help="Keep data of a person from erasure, for a reason.", no_args_is_help=True)
retention = typer.Typer(help="Erase what is past its retention.", no_args_is_help=True)
commands.add_typer(hold, name="hold")
commands.add_typer(retention, name="retention")

_VERIFIER = Path("deploy", "verify", "verify_certificate.py")
_DRILL = Path("tests", "demo", "restore_drill.py")
_RunId = Annotated[UUID, typer.Argument(parser=parse_id, metavar="RUN", help="The id that `retention run` gave.")]


@contextmanager
def _upkeep() -> Iterator["Upkeep"]:
    with failures():
        from privacyctl.client import Client
        from privacyctl.upkeep import Upkeep

        yield Upkeep(Client.from_environment())


@hold.command("add")
def add_hold(
    subject: SubjectId,
    data_class: Annotated[str, typer.Argument(metavar="CLASS", help="The data class, as `inventory` shows it.")],
    basis: Annotated[str, typer.Option(help="Why it stays.", **one_of("litigation", "tax_audit", "dispute"))],
    anchor: Annotated[
        UUID | None,
        typer.Option(parser=parse_id, metavar="ANCHOR", help="One order, say; all of the class without it."),
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(parser=parse_day, metavar="DAY", help="Its end; without one it is to be lifted.")
    ] = None,
    key: Annotated[
        UUID | None, typer.Option(parser=parse_id, metavar="UUID", help="A random UUID; the same twice makes one hold.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Hold a class, or one anchor of it. Prints the hold's id, which lifts it."""
    with _upkeep() as upkeep:
        added = upkeep.add_hold(key or uuid4(), subject, data_class, anchor, basis, until)
        show(added, as_json, lambda made: typer.echo(made["hold_id"]))


@hold.command("lift")
def lift_hold(
    hold_id: Annotated[UUID, typer.Argument(parser=parse_id, metavar="HOLD", help="The id that `hold add` gave.")],
) -> None:
    """Lift a hold: what it alone kept is erased by itself."""
    with _upkeep() as upkeep:
        upkeep.lift_hold(hold_id)


@retention.command("run")
def run_retention(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would go.")] = False, as_json: Json = False
) -> None:
    """Start a retention run, which happens every day by itself. Prints its id."""
    with _upkeep() as upkeep:
        show(upkeep.run_retention(dry_run), as_json, lambda run: typer.echo(run["run_id"]))


@retention.command("show")
def show_retention_run(run: _RunId, as_json: Json = False) -> None:
    """Show what a retention run found, by class."""
    with _upkeep() as upkeep:
        from privacyctl.request_tables import show_retention

        show(upkeep.show_retention(run), as_json, show_retention)


@commands.command("kek")
def show_kek(as_json: Json = False) -> None:
    """Show the KEK epochs, how many living keys each wraps, and the horizon of what is erased today."""
    with _upkeep() as upkeep:
        from privacyctl.request_tables import show_epochs

        show(upkeep.kek(), as_json, show_epochs)


@commands.command("rotate-kek")
def rotate_kek(
    after: Annotated[int | None, typer.Option(min=1, help="Only if this epoch is the active one.")] = None,
    as_json: Json = False,
) -> None:
    """Open the next KEK epoch. Living keys are re-wrapped, and the epoch before is ended, in the background."""
    with _upkeep() as upkeep:
        from privacyctl.request_tables import show_epochs

        show(upkeep.rotate_kek(after), as_json, show_epochs)


@commands.command()
def verify(
    certificate: Annotated[Path, typer.Argument(help="The file that `certificate --out` wrote.")],
    log_key: Annotated[Path | None, typer.Option(help="The log's public key; or EVIDENCE_LOG_KEY_FILE.")] = None,
    witness_key: Annotated[
        Path | None, typer.Option(help="Its witness' public key; or EVIDENCE_WITNESS_KEY_FILE.")
    ] = None,
    pinned: Annotated[Path | None, typer.Option(help="A checkpoint that you kept.")] = None,
    consistency: Annotated[Path | None, typer.Option(help="The proof from one checkpoint to the other.")] = None,
) -> None:
    """Check a certificate offline, with the auditors' own program, which uses nothing of this one."""
    with failures():
        from privacyctl.client import Exit, Failed

        log_key = log_key or _path_in("EVIDENCE_LOG_KEY_FILE")
        witness_key = witness_key or _path_in("EVIDENCE_WITNESS_KEY_FILE")
        if log_key is None or witness_key is None:
            raise Failed(Exit.WRONG_CALL, "Name the public keys that you pinned: --log-key and --witness-key.")
        arguments = ["--log-key", str(log_key), "--witness-key", str(witness_key)]
        arguments += ["--pinned", str(pinned)] if pinned else []
        arguments += ["--consistency", str(consistency)] if consistency else []
        code = _run("-I", str(_find(_VERIFIER, "PRIVACY_VERIFIER")), str(certificate), *arguments)
        raise typer.Exit({0: Exit.FOUND, 1: Exit.NOT_PROVEN}.get(code, Exit.WRONG_CALL))


@commands.command("restore-drill")
def restore_drill(as_json: Json = False) -> None:
    """Restore a database from before an erasure, on a stack of its own, and show that the gate keeps it shut until it is healed."""
    with failures():
        from privacyctl.client import Exit

        script = _find(_DRILL, "PRIVACY_RESTORE_DRILL")
        code = _run(
            "-m", ".".join(_DRILL.with_suffix("").parts), *(["--json"] if as_json else []), folder=script.parents[2]
        )
        raise typer.Exit({0: Exit.FOUND, 1: Exit.NOT_PROVEN}.get(code, Exit.AWAY))


def _path_in(variable: str) -> Path | None:
    return Path(os.environ[variable]) if os.environ.get(variable) else None


def _find(program: Path, variable: str) -> Path:
    """The program in the checkout that this tool runs from, or where the variable says."""
    named = _path_in(variable)
    found = named or next((p / program for p in Path(__file__).resolve().parents if (p / program).is_file()), None)
    if found is None or not found.is_file():
        _missing(program, variable)
    return found


def _missing(program: Path, variable: str) -> NoReturn:
    from privacyctl.client import Exit, Failed

    raise Failed(Exit.WRONG_CALL, f"{program} is not here: run from a checkout, or set {variable} to it.")


def _run(*arguments: str, folder: Path | None = None) -> int:
    return subprocess.run([sys.executable, *arguments], check=False, cwd=folder).returncode  # noqa: S603 - our own program
