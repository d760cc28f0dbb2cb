"""Law L10 for tables: a column that can hold text, JSON or bytes stands in a `Holding`, or in columns.toml with a reason.

The migrations are parsed as PostgreSQL. Beside a system's .sql files, columns.toml lists the columns that need no `Holding`
because no person's data can be in them: `"kit.outbox.topic" = "a topic's name"`.
"""

import logging
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlglot
from sqlglot import exp

from deploy.check.contracts import import_file
from deploy.check.findings import Finding, files
from servicekit.app.service import Service
from servicekit.participant.holdings import Holding

WHY = "A text, JSON or bytes column outside a Holding would be missed by erasure and export (law L10)."
REASONS = "columns.toml"
# Types in which no name, address or number of a person fits; any other type, also one unknown here, needs a Holding.
HARMLESS = frozenset(
    (
        *(
            "UUID",
            "BOOLEAN",
            "SMALLINT",
            "INT",
            "BIGINT",
            "SMALLSERIAL",
            "SERIAL",
            "BIGSERIAL",
            "DECIMAL",
            "FLOAT",
            "DOUBLE",
        ),
        *("DATE", "TIME", "TIMETZ", "TIMESTAMP", "TIMESTAMPTZ", "INTERVAL", "INT4RANGE", "INT8RANGE", "NUMRANGE"),
        *("DATERANGE", "TSRANGE", "TSTZRANGE", "XID8", "PG_LSN"),
    )
)
# What makes columns in a way that cannot be read from the statement.
_HIDDEN = re.compile(
    r"\bCREATE\s+(\w+\s+)*TABLE\b(?![^;]*\bPARTITION\s+OF\b)|\bADD\s+COLUMN\b|\bSET\s+DATA\s+TYPE\b", re.IGNORECASE
)
_ALTERS = re.compile(r"\s*ALTER\s+TABLE\b.*\b(ADD\s+(?!CONSTRAINT\b)|TYPE\b)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a migration; `table` without the schema public, `type` as PostgreSQL names it."""

    file: Path
    line: int
    table: str
    name: str
    type: str

    @property
    def full_name(self) -> str:
        return f"{self.table}.{self.name}"


def find() -> Iterator[Finding]:
    """All breaches in the migrations of our systems and of third parties under tests/support."""
    migrations = files("*.sql", below=("shared", "services", "tests/support"))
    for folder in sorted({path.parent for path in migrations if path.parent.name == "migrations"}):
        yield from find_in(folder)


def find_in(folder: Path) -> Iterator[Finding]:
    """All breaches in one folder of migrations; the holdings are those that the package around it declares."""
    columns: dict[str, Column] = {}
    for path in sorted(folder.glob("*.sql")):
        found, problems = read_columns(path)
        yield from problems
        columns |= {column.full_name: column for column in found}
    held = holdings_of(folder.parent)
    reasons = _reasons(folder)
    enums = _enums(folder)
    covered = {f"{_bare(holding.table)}.{name}" for holding, _ in held for name in holding.columns}
    for name, column in columns.items():
        if _base_type(column.type) not in HARMLESS | enums and name not in covered and name not in reasons:
            do = f"Seal it and name it in a Holding, or say in {REASONS} why no personal data can be in it."
            yield Finding(column.file, column.line, f"{name} is {column.type} and stands in no Holding.", WHY, do)
    for name in reasons.keys() - columns.keys():
        yield Finding(folder / REASONS, 1, f"{name} is no column of these migrations.", WHY, "Take the entry out.")
    declared = _holdings_of_service(folder.parent)
    for holding, path in held:
        yield from _wrong_columns(holding, path, columns)
        if declared is not None and holding not in declared:
            what = f"The Holding of {holding.table} is not among the holdings of the Service."
            yield Finding(path, _line_of(holding, path), what, WHY, "Name it in Service(…, holdings=[…]) of app.py.")


def read_columns(path: Path) -> tuple[list[Column], list[Finding]]:
    """The columns that a migration makes, and the statements whose columns cannot be told."""
    logging.getLogger("sqlglot").setLevel(logging.ERROR)  # it warns of statements that only PostgreSQL knows
    text = path.read_text()
    try:
        statements = sqlglot.parse(text, dialect="postgres")
    except sqlglot.errors.ParseError as error:
        line = int(error.errors[0].get("line") or 1)
        return [], [
            Finding(path, line, "This SQL cannot be parsed.", WHY, "Write it in a form that sqlglot understands.")
        ]
    columns: list[Column] = []
    problems: list[Finding] = []
    for statement in filter(None, statements):
        if _hides_columns(statement):
            what = "This statement makes columns whose types cannot be read."
            do = "Write CREATE TABLE or ALTER TABLE … ADD COLUMN with a type for every column."
            problems.append(Finding(path, _line(statement, text), what, WHY, do))
        elif isinstance(statement, exp.Alter) or (isinstance(statement, exp.Create) and statement.kind == "TABLE"):
            columns += _columns(path, statement)
    return columns, problems


def holdings_of(package: Path) -> list[tuple[Holding, Path]]:
    """The holdings that a package declares, with the file that does; not those of a part with migrations of its own."""
    others = [path.parent for path in package.glob("*/**/migrations")]
    found: list[tuple[Holding, Path]] = []
    for path in sorted(package.rglob("*.py")):
        if any(path.is_relative_to(other) for other in others) or not re.search(r"\bHolding\(", path.read_text()):
            continue
        for value in vars(import_file(path)).values():
            values = value if isinstance(value, tuple | list) else [value]
            found += [(item, path) for item in values if isinstance(item, Holding) and (item, path) not in found]
    return found


def _wrong_columns(holding: Holding, path: Path, columns: dict[str, Column]) -> Iterator[Finding]:
    wanted = {holding.subject: "uuid", holding.anchor: "uuid", **dict.fromkeys(holding.sealed, "bytea")}
    for name in holding.columns:
        column = columns.get(f"{_bare(holding.table)}.{name}")
        if column is None:
            what, do = "is in no migration.", "Correct the name or add the column."
        elif name in wanted and column.type != wanted[name]:
            what, do = f"is {column.type}, not {wanted[name]}.", f"Make it {wanted[name]}."
        else:
            continue
        yield Finding(path, _line_of(holding, path), f"Column {holding.table}.{name} of the Holding {what}", WHY, do)


def _line_of(holding: Holding, path: Path) -> int:
    """Where a Holding is declared; its table's name may stand on the line below."""
    text = path.read_text()
    match = re.search(rf"\bHolding\(\s*\"{re.escape(holding.table)}\"", text)
    return text.count("\n", 0, match.start()) + 1 if match else 1


def _holdings_of_service(package: Path) -> Sequence[Holding] | None:
    """What the SERVICE of the package's app.py answers for; None if it has none."""
    path = package / "app.py"
    service = getattr(import_file(path), "SERVICE", None) if path.exists() else None
    return service.holdings if isinstance(service, Service) else None


def _columns(path: Path, statement: exp.Expr) -> Iterator[Column]:
    table = statement.find(exp.Table)
    assert table is not None
    name = _bare(".".join(part.name for part in table.parts))
    for node in statement.find_all(exp.ColumnDef, exp.AlterColumn):
        kind = node.args.get("kind") if isinstance(node, exp.ColumnDef) else node.args.get("dtype")
        if kind is not None:
            yield Column(path, _line(node), name, node.this.name, kind.sql("postgres").lower())


def _hides_columns(statement: exp.Expr) -> bool:
    text = statement.sql("postgres", comments=False)
    if isinstance(statement, exp.Create):
        if statement.kind in ("TABLE", "VIEW"):
            like = statement.find(exp.LikeProperty)
            materialized = statement.find(exp.MaterializedProperty)
            return like is not None or (
                statement.expression is not None and (statement.kind == "TABLE" or materialized is not None)
            )
        return statement.kind in ("FUNCTION", "PROCEDURE") and _HIDDEN.search(text) is not None
    if isinstance(statement, exp.Select):
        return statement.args.get("into") is not None
    return isinstance(statement, exp.Command) and bool(_ALTERS.match(text) or _HIDDEN.search(text))


def _line(node: exp.Expr, text: str = "") -> int:
    """Where it stands. A statement that was not parsed has no position: it is looked for by its first words."""
    lines = [int(part.meta["line"]) for part in node.find_all(exp.Identifier) if "line" in part.meta]
    if lines or not text:
        return min(lines, default=1)
    start = text.find(" ".join(node.sql("postgres", comments=False).split()[:2]))
    return text.count("\n", 0, max(start, 0)) + 1


def _enums(folder: Path) -> frozenset[str]:
    made = (
        match
        for path in folder.glob("*.sql")
        for match in re.findall(r"CREATE TYPE ([\w.]+) AS ENUM", path.read_text())
    )
    return frozenset(_bare(name).upper() for name in made)


def _base_type(type_: str) -> str:
    """`numeric(10, 2)` → DECIMAL-like upper-case name without length; an array is what its items are."""
    name = re.sub(r"\(.*?\)|\[\d*\]", "", type_).strip().upper()
    return {"DOUBLE PRECISION": "DOUBLE", "REAL": "FLOAT", "NUMERIC": "DECIMAL"}.get(name, _bare(name))


def _bare(name: str) -> str:
    return name.removeprefix("public.").removeprefix("PUBLIC.")


def _reasons(folder: Path) -> dict[str, str]:
    path = folder / REASONS
    entries = tomllib.loads(path.read_text()) if path.exists() else {}
    return {name: str(reason) for name, reason in entries.items() if str(reason).strip()}
