"""Rows that a participant handed over, and what of them stands in a package. Pure."""

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal

from servicekit.core.errors import Poison

Kind = Literal["access", "portability"]
Row = Mapping[str, Any]

_TABLE: Final = re.compile(r"[^A-Za-z0-9_]")
# A spreadsheet takes a cell that begins so for a formula (OWASP, CSV Injection), also after blanks and quotes and in full width.
# Whatever separates cells for one of them begins a cell: where a semicolon does, our quotes do not hold the text together.
_CELL: Final = re.compile("(^|[;,|\t\r\n])(?=(?:[^\\S\t\r\n]|[\"'\ufeff])*[=+\\-@\uff1d\uff0b\uff0d\uff20])")
# Portability is what the person gave us or what their use of the shop left behind (article 20 GDPR; WP 242 rev. 01, p. 9):
# identity, contact, addresses, deliveries, orders, favourites, browsing. That is what stands sealed in our tables, and
# what a third party seals, but not a payment provider's token, and not copies of what is sent.
NOT_PROVIDED: Final = frozenset(
    (("order", "order_payments"), ("logistics-gateway", "disclosures"), ("account", "mails"))
)


def read_part(text: str) -> tuple[str, list[Row]]:
    """The table and the rows of one part: `{"table": …, "rows": [{column: value}]}`. Raises `Poison` for anything else.

    The table's name becomes part of a path, so it keeps letters, digits and underscores only.
    """
    try:
        part = json.loads(text)
        table, rows = part["table"], part["rows"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Poison("bad_export_part") from None
    if not isinstance(table, str) or not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise Poison("bad_export_part")
    return _TABLE.sub("_", table)[:63] or "table", rows


def kept(kind: Kind, system: str, table: str, rows: Sequence[Row]) -> list[Row]:
    """What of the rows a package of this kind has: all of it, or for portability only what the person provided.

    A value that was sealed is an object; ids, times and codes are none. So a row without one says nothing they provided.
    """
    if kind == "access":
        return list(rows)
    if (system, table) in NOT_PROVIDED:
        return []
    provided = ({name: value for name, value in row.items() if isinstance(value, dict)} for row in rows)
    return [row for row in provided if row]


def flatten(row: Row, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(column, text) of each value; `delivery.consignee.name` for what stands inside of something."""
    for name, value in row.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _text(value)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list) and not any(isinstance(item, dict | list) for item in value):
        return "; ".join(map(_text, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def csv_lines(columns: Sequence[str], rows: Sequence[Row]) -> str:
    """The rows as CSV (RFC 4180), all cells in quotes. What a spreadsheet would take for a formula begins with an apostrophe."""
    lines = io.StringIO(newline="")
    writer = csv.writer(lines, quoting=csv.QUOTE_ALL)
    for row in rows:
        cells = dict(flatten(row))
        writer.writerow([_safe(cells.get(column, "")) for column in columns])
    return lines.getvalue()


def csv_head(columns: Sequence[str]) -> str:
    """The first line, behind the mark by which spreadsheets know UTF-8."""
    head = io.StringIO(newline="")
    csv.writer(head, quoting=csv.QUOTE_ALL).writerow(map(_safe, columns))
    return "\ufeff" + head.getvalue()


def _safe(text: str) -> str:
    if _is_number(text):
        return text
    guarded = _CELL.sub(r"\1'", text)
    return f"'{guarded}" if guarded[:1] in ("\t", "\r", "\n") else guarded


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-[0-9]+(\.[0-9]+)?", text) is not None
