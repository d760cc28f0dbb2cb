"""The commands of `privacyctl`. What talks HTTP or draws tables is imported when it is needed, so that --help is fast.

Exit codes: 0 found, 1 nothing found, 2 wrong call, 3 refused, 4 service away, 5 a participant is silent.
"""

import json
import sys
from enum import StrEnum
from getpass import getpass
from typing import TYPE_CHECKING, Annotated, Any, NoReturn
from uuid import UUID

import typer

if TYPE_CHECKING:
    from privacy_service.cli.client import Failed

_EPILOG = (
    "Set PRIVACY_URL to the privacy service and PRIVACY_TOKEN to your staff token (SUPPORT_TOKEN works too).  "
    "Exit codes: 0 found, 1 nothing found, 2 wrong call, 3 refused, 4 service away, 5 a participant is silent."
)
app = typer.Typer(
    help="Who holds what about a person. Every look is recorded.",
    epilog=_EPILOG,
    add_completion=False,
    rich_markup_mode=None,  # plain help, which needs no rich
    no_args_is_help=True,
    # A traceback with local variables would show the search term.
    pretty_exceptions_enable=False,
)
_Json = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]


class By(StrEnum):
    EMAIL = "email"
    PHONE = "phone"
    ORDER_NUMBER = "order-number"


# Parsers of our own: the usual messages repeat what was typed, and that may be a search term in the wrong place.
def _parse_by(text: str) -> By:
    try:
        return By(text)
    except ValueError:
        raise typer.BadParameter(f"choose one of {', '.join(By)}.") from None


def _parse_subject(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise typer.BadParameter("it is no id (a UUID), as `find` gives it.") from None


@app.command(context_settings={"allow_extra_args": True})
def find(
    context: typer.Context,
    by: Annotated[
        By,
        typer.Option(
            parser=_parse_by,
            metavar="|".join(By),
            help="What you search by. The term itself is asked for, or read from a pipe.",
        ),
    ],
    as_json: _Json = False,
) -> None:
    """Find people by e-mail address, phone or order number."""
    from privacy_service.cli.client import Client, Exit, Failed

    try:
        if context.args:
            raise Failed(
                Exit.WRONG_CALL, "The search term is no argument, because those are kept. Leave it away; you are asked."
            )
        client = Client.from_environment()
        items = client.find(by.replace("-", "_"), _read_term(by))
    except Failed as failed:
        _fail(failed)
    if as_json:
        _print_json(items)
    elif items:
        from privacy_service.cli.tables import show_found

        show_found(items)
    _finish(items, "Nobody was found.")


@app.command()
def inventory(
    subject: Annotated[
        UUID, typer.Argument(parser=_parse_subject, help="The person's subject id, as `find` gives it.")
    ],
    as_json: _Json = False,
) -> None:
    """Show which system holds what about a person, and who received it."""
    from privacy_service.cli.client import Client, Failed

    try:
        items = list(Client.from_environment().inventory(subject))
    except Failed as failed:
        _fail(failed)
    if as_json:
        _print_json(items)
    elif items:
        from privacy_service.cli.tables import show_inventory

        show_inventory(items)
    _finish(items, "Nothing is held about this subject id.")


@app.command()
def probe(
    subject: Annotated[
        UUID, typer.Argument(parser=_parse_subject, help="The person's subject id, as `find` gives it.")
    ],
    patience: Annotated[float, typer.Option(min=0, max=600, help="Seconds to wait for answers.")] = 10,
    as_json: _Json = False,
) -> None:
    """Ask every participant how many rows it really holds about a person. A silent one is named."""
    from privacy_service.cli.client import Client, Exit, Failed

    try:
        items = Client.from_environment().probe(subject, patience)
    except Failed as failed:
        _fail(failed)
    if as_json:
        _print_json(items)
    else:
        from privacy_service.cli.tables import show_probe

        show_probe(items)
    if any(item["row_count"] is None for item in items):
        typer.echo("Not all participants have answered, so this is not all there is.", err=True)
        raise typer.Exit(Exit.INCOMPLETE)
    _finish([item for item in items if item["row_count"]], "No participant holds anything about this subject id.")


def _read_term(by: By) -> str:
    """The term, hidden while it is typed. It is never an argument: those show in the process list and in histories."""
    from privacy_service.cli.client import Exit, Failed

    try:
        # One line, bounded: a file piped in by mistake is not read to its end.
        term = (getpass(f"{by.replace('-', ' ')}: ") if sys.stdin.isatty() else sys.stdin.readline(4096)).strip()
    except (EOFError, UnicodeDecodeError):
        term = ""
    if not term:
        raise Failed(Exit.WRONG_CALL, "No search term was given: type it at the prompt, or pipe one line in.")
    return term


def _print_json(items: list[dict[str, Any]]) -> None:
    typer.echo(json.dumps({"items": items}, indent=2))


def _finish(items: list[dict[str, Any]], nothing: str) -> None:
    from privacy_service.cli.client import Exit

    if not items:
        typer.echo(nothing, err=True)
        raise typer.Exit(Exit.NOTHING_FOUND)


def _fail(failed: "Failed") -> NoReturn:
    typer.echo(failed, err=True)
    raise typer.Exit(failed.exit_code)


def main() -> None:
    """The console script."""
    app(prog_name="privacyctl")
