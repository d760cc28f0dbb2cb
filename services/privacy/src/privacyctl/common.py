"""What all commands share: parsers that repeat nothing that was typed, output, and the end of a failed command."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from getpass import getpass
from typing import Annotated, Any
from uuid import UUID

import typer

EXIT_CODES = (
    "Exit codes: 0 done or found, 1 nothing found, 2 wrong call, 3 refused, 4 service away, 5 a participant is silent "
    "or it is not over yet, 6 it contradicts what is stored, 7 not proven."
)
Json = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]


# The usual messages repeat what was typed, and that may be a search term in the wrong place.
def parse_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise typer.BadParameter("it is no id (a UUID).") from None


def parse_day(text: str) -> datetime:
    """Its first moment, UTC."""
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise typer.BadParameter("it is no day such as 2027-03-31.") from None


def one_of(*choices: str) -> Any:
    """An argument or option that takes one of these words, and its help's placeholder."""

    def parse(text: str) -> str:
        if text not in choices:
            raise typer.BadParameter(f"choose one of {', '.join(choices)}.")
        return text

    return {"parser": parse, "metavar": "|".join(choices)}


RequestId = Annotated[UUID, typer.Argument(parser=parse_id, metavar="REQUEST", help="The id that `open` gave.")]
SubjectId = Annotated[
    UUID, typer.Argument(parser=parse_id, metavar="SUBJECT", help="The person's subject id, as `find` gives it.")
]


def read_term(what: str) -> str:
    """The term, hidden while it is typed. It is never an argument: those show in the process list and in histories.

    Raises `Failed`.
    """
    from privacyctl.client import Exit, Failed

    try:
        # One line, bounded: a file piped in by mistake is not read to its end.
        term = (getpass(f"{what}: ") if sys.stdin.isatty() else sys.stdin.readline(4096)).strip()
    except (EOFError, UnicodeDecodeError):
        term = ""
    if not term:
        raise Failed(Exit.WRONG_CALL, "No search term was given: type it at the prompt, or pipe one line in.")
    return term


@contextmanager
def failures() -> Iterator[None]:
    """Ends the command with message and exit code of a `Failed`."""
    from privacyctl.client import Failed

    try:
        yield
    except Failed as failed:
        typer.echo(failed, err=True)
        raise typer.Exit(failed.exit_code) from None


def show(content: Any, as_json: bool, draw: Callable[[Any], None]) -> None:
    """The answer as JSON, or drawn for people."""
    if as_json:
        typer.echo(json.dumps(content, indent=2))
    else:
        draw(content)
