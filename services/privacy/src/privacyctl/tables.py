"""Tables for people. They fit 80 columns, and ids stay in one piece, so that they can be copied."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text


def show_found(items: Iterable[dict[str, Any]]) -> None:
    """Each person, with those of their data that the term names."""
    table = new_table("Subject", "Named by")
    for item in items:
        held = (
            each["data_class"] if each["anchor"] == item["subject_id"] else f"{each['data_class']} {each['anchor']}"
            for each in item["held"]
        )
        add_row(table, item["subject_id"], "\n".join(held))
    print_table(table)


def show_inventory(items: list[dict[str, Any]]) -> None:
    """Who holds what since when, and what its classes mean."""
    held = new_table("Anchor", "Held by, class, seen", "Received by")
    held.columns[1].no_wrap = True
    classes = new_table("Class", "What it is", "What for", "Kept")
    for item in items:
        received = "\n".join(line for each in item["recipients"] for line in (f"{each['recipient']}:", *each["fields"]))
        days = dict.fromkeys((day(item["first_seen"]), day(item["last_seen"])))
        add_row(held, item["anchor"], "\n".join((item["system"], item["data_class"], *days)), received)
    for item in {item["data_class"]: item for item in items}.values():
        rule = item["retention"]
        kept = f"{rule['keep']} after {rule['after']}" if rule else ""
        add_row(classes, item["data_class"], ", ".join(item["categories"]), ", ".join(item["purposes"]), kept)
    print_table(held)
    print_table(classes)


def show_probe(items: Iterable[dict[str, Any]]) -> None:
    """How many rows each participant says that it holds."""
    table = new_table("Participant", "Rows", "Answered")
    for item in items:
        silent = item["row_count"] is None
        answered = "no answer yet" if silent else f"{datetime.fromisoformat(item['answered_at']):%Y-%m-%d %H:%M:%S}"
        add_row(table, item["system"], "?" if silent else str(item["row_count"]), answered)
    print_table(table)


def new_table(first: str, *others: str) -> Table:
    table = Table(box=SIMPLE_HEAD, show_lines=True, padding=(0, 1, 0, 0))
    table.add_column(first, no_wrap=True)
    for title in others:
        table.add_column(title, overflow="fold")
    return table


def add_row(table: Table, *cells: str) -> None:
    table.add_row(*map(Text, cells))  # Text: nothing in a cell is read as markup


def day(text: str) -> str:
    return f"{datetime.fromisoformat(text):%Y-%m-%d}"


def print_table(table: Table) -> None:
    console = Console()
    # Into a pipe or a file: no terminal, so no width to fit.
    Console(width=console.width if console.is_terminal else 240).print(table)
