"""Rights requests at the keyboard: open, decide, follow, fetch. A corrected value is asked for and never an argument."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from getpass import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID, uuid4

import typer

from privacyctl.common import Json, RequestId, failures, one_of, parse_day, parse_id, show

if TYPE_CHECKING:
    from privacyctl.requests import Requests

KINDS = ("access", "portability", "rectification", "erasure")
REASONS = (
    "suspected_fraud",
    "insuf_verification",
    "no_match",
    "claim_not_covered",
    "outside_jurisdiction",
    "too_many_requests",
    "other",
)
STATUSES = ("open", "awaiting_approval", "waiting", "running", "completed", "denied", "cancelled")
# What a rectification may correct, part by part; the service validates.
CORRECTABLE = (("identity", ("name", "birth_date")), ("contact", ("email", "phone")))
MAX_INPUT = 16 * 1024

commands = typer.Typer()


@contextmanager
def _requests() -> Iterator["Requests"]:
    with failures():
        from privacyctl.client import Client
        from privacyctl.requests import Requests

        yield Requests(Client.from_environment())


@commands.command("open")
def open_request(
    kind: Annotated[str, typer.Argument(help="What is asked for.", **one_of(*KINDS))],
    subjects: Annotated[
        list[UUID], typer.Argument(parser=parse_id, metavar="SUBJECT…", help="Subject ids, as `find` gives them.")
    ],
    data_class: Annotated[list[str] | None, typer.Option("--class", help="Only this class; may be repeated.")] = None,
    check: Annotated[
        str | None, typer.Option(help="How the identity was checked, if it was.", **one_of("document", "callback"))
    ] = None,
    regime: Annotated[
        str | None, typer.Option(help="Whose term counts; gdpr if not said.", **one_of("gdpr", "ccpa"))
    ] = None,
    key: Annotated[
        UUID | None, typer.Option(parser=parse_id, metavar="UUID", help="A random UUID; the same twice opens one.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Open a request. The corrections of a rectification are asked for, or piped in as one JSON object."""
    with _requests() as requests:
        from privacyctl.request_tables import show_opened
        from privacyctl.requests import scope_of

        corrections = _read_corrections() if kind == "rectification" else None
        body = scope_of(
            kind, subjects, data_class or (), identity_check=check, regime=regime, rectification=corrections
        )
        show(requests.open(key or uuid4(), body), as_json, show_opened)


@commands.command()
def identity(
    request: RequestId,
    check: Annotated[str, typer.Argument(help="How it was checked.", **one_of("document", "callback"))],
) -> None:
    """Record that the person's identity was checked."""
    with _requests() as requests:
        requests.decide(request, "identity", check=check)


@commands.command()
def preview(request: RequestId, as_json: Json = False) -> None:
    """Show what would go and what stays, why and until when."""
    with _requests() as requests:
        from privacyctl.client import Exit, Failed
        from privacyctl.request_tables import show_preview

        found = requests.preview(request)
        show(found, as_json, show_preview)
        if found.get("waiting_for"):
            names = ", ".join(dict.fromkeys(each["system"] for each in found["waiting_for"]))
            raise Failed(Exit.INCOMPLETE, f"This is not all there is: {names} has not answered yet. Ask again later.")


@commands.command()
def approve(request: RequestId) -> None:
    """Approve an erasure, as a second person of another role than who opened it."""
    with _requests() as requests:
        requests.decide(request, "approve")


@commands.command()
def deny(
    request: RequestId,
    reason: Annotated[str, typer.Argument(help="Why, in the words of the Data Rights Protocol.", **one_of(*REASONS))],
) -> None:
    """Deny a request that was not approved yet."""
    with _requests() as requests:
        requests.decide(request, "deny", reason=reason)


@commands.command()
def extend(
    request: RequestId,
    reason: Annotated[str, typer.Argument(help="Why it takes longer.", **one_of("complexity", "number_of_requests"))],
    until: Annotated[
        datetime | None, typer.Option(parser=parse_day, metavar="DAY", help="Its new end; else the latest allowed.")
    ] = None,
) -> None:
    """Extend a request's term, once, by two months (CCPA: 45 days) at the most. Tell the person, with the reason."""
    with _requests() as requests:
        requests.decide(request, "extend", reason=reason, **({"until": until.isoformat()} if until else {}))


@commands.command()
def cancel(request: RequestId) -> None:
    """Cancel a request; an erasure can be cancelled until its first key is fenced."""
    with _requests() as requests:
        requests.decide(request, "cancel")


@commands.command("list")
def list_requests(
    status: Annotated[str | None, typer.Option(help="Only those.", **one_of(*STATUSES))] = None, as_json: Json = False
) -> None:
    """List requests with their due dates."""
    with _requests() as requests:
        from privacyctl.client import Exit, Failed
        from privacyctl.request_tables import show_requests

        items = list(requests.list(status))
        show({"items": items}, as_json, show_requests)
        if not items:
            raise Failed(Exit.NOTHING_FOUND, "There are no such requests.")


@commands.command("show")
def show_request(request: RequestId, as_json: Json = False) -> None:
    """Show where a request stands, who is waited for, what is held, and its history."""
    with _requests() as requests:
        from privacyctl.request_tables import show_state

        show(requests.show(request), as_json, show_state)


@commands.command()
def follow(
    request: RequestId,
    patience: Annotated[float, typer.Option(min=0, max=86_400, help="Seconds to wait for its end.")] = 600,
    as_json: Json = False,
) -> None:
    """Show a request's progress until it is over. A silent participant is named. With --json a line for each change."""
    with _requests() as requests:
        from privacyctl.following import Progress, outcome

        progress = Progress()
        state: dict[str, Any] = {}
        for state in requests.follow(request, patience):
            for line in [json.dumps(state)] if as_json else progress.lines(state):
                typer.echo(line)
        exit_code, sentence = outcome(state)
        typer.echo(sentence, err=True)
        raise typer.Exit(exit_code)


@commands.command()
def download(
    request: RequestId,
    file: Annotated[Path, typer.Argument(help="Where the package goes: a new file, for you alone.")],
) -> None:
    """Fetch the package of an access or portability request. It works once: then its key is destroyed."""
    with _requests() as requests:
        typer.echo(f"{requests.download(request, file)} bytes in {file}", err=True)


@commands.command()
def certificate(
    request: RequestId,
    file: Annotated[Path | None, typer.Option("--out", help="Into this file instead of the terminal.")] = None,
    amendment: Annotated[int | None, typer.Option(min=0, help="An earlier one; 0 is the first.")] = None,
    patience: Annotated[float, typer.Option(min=0, max=600, help="Seconds to wait for its witness.")] = 60,
) -> None:
    """Get the certificate of a request, as signed JSON that `verify` checks offline."""
    with _requests() as requests:
        document = requests.certificate(request, amendment, patience)
        if file is None:
            sys.stdout.write(document.decode())
        else:
            file.write_bytes(document)


def _read_corrections() -> dict[str, dict[str, str]]:
    """From the prompts, hidden while they are typed, or from a pipe: `{"identity": {…}, "contact": {…}}`.

    To whom an order goes comes from a pipe only: `{"delivery": {"order_id": "…", "consignee": {…}}}`.
    """
    from privacyctl.client import Exit, Failed

    if sys.stdin.isatty():
        typer.echo("What is left empty stays as it is.", err=True)
        typed = {
            part: {name: getpass(f"{part} {name.replace('_', ' ')}: ").strip() for name in names}
            for part, names in CORRECTABLE
        }
        found = {part: {name: text for name, text in fields.items() if text} for part, fields in typed.items()}
        corrections = {part: fields for part, fields in found.items() if fields}
    else:
        corrections = _piped()
    if not corrections:
        raise Failed(Exit.WRONG_CALL, "No correction was given: answer the prompts, or pipe in one JSON object.")
    return corrections


def _piped() -> dict[str, dict[str, str]]:
    try:
        piped = json.loads(sys.stdin.read(MAX_INPUT))
    except ValueError:
        return {}
    return piped if isinstance(piped, dict) else {}
