"""Rules about source files that no linter knows: where SQL may stand, what contracts and third parties import, length, indexes."""

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import servicekit
from deploy.check.findings import ROOT, Finding, files

MAX_LINES = 400
# Each of these owns its tables of the schema `kit`, or makes the statements from declarations.
SQL_IN_KIT = frozenset(
    (
        *("outbox", "inbox", "quarantine", "holdings", "postgres", "revocations", "participant", "exports", "writers"),
        *("limits", "migrate"),
    )
)
CONTRACTS_IMPORT = frozenset(
    ("event_contracts", "msgspec", "pybase64", "pydantic", "pydantic_core", *sys.stdlib_module_names)
)
# Each folder there with an app.py is a service of somebody else.
THIRD_PARTIES = "tests/support"
BUILD_FILES = (
    "Makefile",
    "requirements.in",
    "requirements.lock",
    "pyproject.toml",
    "*/*/pyproject.toml",
    ".ci/run",
    "deploy/*.sh",
)

_SQL = re.compile(
    r"\s*(--[^\n]*\n\s*)*(SELECT\s|INSERT\s+INTO\s|UPDATE\s+\S+\s+SET\s|DELETE\s+FROM\s|WITH\s+\w+\s.*\bAS\s*\(|TRUNCATE\s|LOCK\s+TABLE"
    r"|(CREATE|ALTER|DROP)\s+(TABLE|INDEX|ROLE|SCHEMA|TYPE|FUNCTION|SEQUENCE|VIEW|DATABASE)|GRANT\s|REVOKE\s|COPY\s+\S+\s+FROM)",
    re.DOTALL,
)
_SQL_CALLS = frozenset(
    ("execute", "executemany", "fetch", "fetchrow", "fetchval", "cursor", "prepare", "copy_records_to_table")
)
_INDEX = re.compile(r"https?://|(?<!emit-)(--index-url|--extra-index-url|--find-links|--trusted-host)")
_LONG = re.compile(r"^# long: \S", re.MULTILINE)


def find() -> Iterator[Finding]:
    """All breaches in the product's modules, the length rule also in tools and tests."""
    for path in files("*.py", below=("shared", "services", "deploy", "tests")):
        yield from _length(path)
    for path in files("*.py"):
        tree = ast.parse(path.read_text())
        yield from _sql(path, tree)
        yield from _foreign_imports(path, tree)
    for folder in {path.parent for path in ROOT.glob(f"{THIRD_PARTIES}/*/app.py")}:
        for path in files("*.py", below=(str(folder.relative_to(ROOT)),)):
            yield from _private_names(path, ast.parse(path.read_text()))
    for path in (path for pattern in BUILD_FILES for path in ROOT.glob(pattern)):
        yield from _indexes(path)


def _length(path: Path) -> Iterator[Finding]:
    text = path.read_text()
    lines = text.count("\n")
    if lines > MAX_LINES and not _LONG.search(text):
        why = f"A module past {MAX_LINES} lines does more than one thing."
        yield Finding(path, lines, f"It has {lines} lines.", why, "Split it, or give the reason in a line `# long: …`.")


def _sql(path: Path, tree: ast.Module) -> Iterator[Finding]:
    if (
        path.name == "store.py"
        or path.name.endswith("_store.py")
        or ("servicekit" in path.parts and path.stem in SQL_IN_KIT)
    ):
        return
    why = "SQL stands in store.py and *_store.py alone, so that every statement about a table is found in one place."
    do = "Move it to a function of store.py or *_store.py."
    for node in _outermost(tree):
        if isinstance(node, ast.Call) and _is_sql_call(node):
            yield Finding(path, node.lineno, "It calls the database with a statement of its own.", why, do)
        elif isinstance(node, ast.Constant | ast.JoinedStr) and _SQL.match(_text(node)):
            yield Finding(path, node.lineno, "It holds SQL.", why, do)


def _outermost(tree: ast.Module) -> Iterator[ast.AST]:
    """Every node but docstrings and the pieces of f-strings."""
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        yield node
        if isinstance(node, ast.JoinedStr):
            continue
        body = getattr(node, "body", None)
        is_documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        docstring = body[0] if is_documented and body and isinstance(body[0], ast.Expr) else None
        children = [child for child in ast.iter_child_nodes(node) if child is not docstring]
        if docstring is not None and not isinstance(docstring.value, ast.Constant):
            children.append(docstring)
        stack.extend(children)


def _is_sql_call(node: ast.Call) -> bool:
    is_named = isinstance(node.func, ast.Attribute) and node.func.attr in _SQL_CALLS
    return (
        is_named
        and bool(node.args)
        and isinstance(node.args[0], ast.Constant | ast.JoinedStr)
        and _is_text(node.args[0])
    )


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _text(node: ast.Constant | ast.JoinedStr) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in node.values)
    return node.value if isinstance(node.value, str) else ""


def _foreign_imports(path: Path, tree: ast.Module) -> Iterator[Finding]:
    if "event_contracts" not in path.parts:
        return
    for node in ast.walk(tree):
        for name in _imported(node):
            if name.split(".")[0] not in CONTRACTS_IMPORT:
                why = "The published language has types only, so that every system can use it."
                do = "Keep I/O and crypto in servicekit or the service."
                yield Finding(path, getattr(node, "lineno", 1), f"event_contracts imports {name}.", why, do)


def _imported(node: ast.AST) -> Iterable[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module else []


def _private_names(path: Path, tree: ast.Module) -> Iterator[Finding]:
    why = "A third party builds on the public names alone, so that what is below them can change."
    do = "Take it from the names of `servicekit` (docs/storefront.md), or have one added there."
    for node in ast.walk(tree):
        for name in _imported(node):
            package, _, rest = name.partition(".")
            if package != "servicekit":
                continue
            if rest or isinstance(node, ast.Import):
                yield Finding(path, getattr(node, "lineno", 1), f"A third party imports {name}.", why, do)
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if alias.name not in servicekit.__all__:
                        yield Finding(path, node.lineno, f"A third party imports servicekit.{alias.name}.", why, do)


def _indexes(path: Path) -> Iterator[Finding]:
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if _INDEX.search(line):
            why = "The lock's hashes say what is installed; where it comes from is the machine's own setting."
            yield Finding(path, number, "It names a package index.", why, "Take the address or the option out.")
