"""`privacyctl` and its commands for a look. What talks HTTP or draws tables is imported when it is needed, so that --help is
fast. Exit codes: `common.EXIT_CODES`.
"""

import json
import re
from enum import StrEnum
from typing import Annotated, Any, Final

import typer

from privacyctl import operator_commands, order_commands, request_commands
from privacyctl.common import EXIT_CODES, Json, SubjectId, failures, read_term

# A plus before the first digit.
_INTERNATIONAL: Final = re.compile(r"[^0-9]*[+\uff0b]")
_EPILOG = (
    "Set PRIVACY_URL to the privacy service and PRIVACY_TOKEN to your staff token (SUPPORT_TOKEN works too); for `order`"
    " also ORDER_URL and GATEWAY_URL.  " + EXIT_CODES
)
app = typer.Typer(
    help="Who holds what about a person, and what people ask about their data. Every look is recorded.",
    epilog=_EPILOG,
    add_completion=False,
    rich_markup_mode=None,  # plain help, which needs no rich
    no_args_is_help=True,
    # A traceback with local variables would show the search term.
    pretty_exceptions_enable=False,
)


class By(StrEnum):
    EMAIL = "email"
    PHONE = "phone"
    ORDER_NUMBER = "order-number"


def _parse_by(text: str) -> By:
    try:
        return By(text)
    except ValueError:
        raise typer.BadParameter(f"choose one of {', '.join(By)}.") from None


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
    country: Annotated[
        str | None, typer.Option(metavar="CODE", help="Whose phone it is, as in ISO 3166-1; not needed with +.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Find people by e-mail address, phone or order number."""
    with failures():
        from privacyctl.client import Client, Exit, Failed

        if context.args:
            raise Failed(
                Exit.WRONG_CALL, "The search term is no argument, because those are kept. Leave it away; you are asked."
            )
        client = Client.from_environment()
        term = read_term(by.replace("-", " "))
        country = country and country.upper()
        if by is By.PHONE and country is None and not _INTERNATIONAL.match(term):
            raise Failed(
                Exit.WRONG_CALL,
                "Say whose number it is, such as --country DE, or write it with + and the country's code.",
            )
        items = client.find(by.replace("-", "_"), term, country)
    if as_json:
        _print_json(items)
    elif items:
        from privacyctl.tables import show_found

        show_found(items)
    _finish(items, "Nobody was found.")


@app.command()
def inventory(
    subject: SubjectId,
    as_json: Json = False,
) -> None:
    """Show which system holds what about a person, and who received it."""
    with failures():
        from privacyctl.client import Client

        items = list(Client.from_environment().inventory(subject))
    if as_json:
        _print_json(items)
    elif items:
        from privacyctl.tables import show_inventory

        show_inventory(items)
    _finish(items, "Nothing is held about this subject id.")


@app.command()
def probe(
    subject: SubjectId,
    patience: Annotated[float, typer.Option(min=0, max=600, help="Seconds to wait for answers.")] = 10,
    as_json: Json = False,
) -> None:
    """Ask every participant how many rows it really holds about a person. A silent one is named."""
    with failures():
        from privacyctl.client import Client, Exit

        items = Client.from_environment().probe(subject, patience)
    if as_json:
        _print_json(items)
    else:
        from privacyctl.tables import show_probe

        show_probe(items)
    if any(item["row_count"] is None for item in items):
        typer.echo("Not all participants have answered, so this is not all there is.", err=True)
        raise typer.Exit(Exit.INCOMPLETE)
    _finish([item for item in items if item["row_count"]], "No participant holds anything about this subject id.")


def _print_json(items: list[dict[str, Any]]) -> None:
    typer.echo(json.dumps({"items": items}, indent=2))


def _finish(items: list[dict[str, Any]], nothing: str) -> None:
    from privacyctl.client import Exit

    if not items:
        typer.echo(nothing, err=True)
        raise typer.Exit(Exit.NOTHING_FOUND)


app.add_typer(request_commands.commands)
app.add_typer(operator_commands.commands)
app.add_typer(order_commands.order, name="order")


def main() -> None:
    """The console script."""
    app(prog_name="privacyctl")
