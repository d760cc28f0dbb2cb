"""What README and docs name exists (docs/proofs.md, 16), and what code and tests cite of them."""

import ast
import importlib
import importlib.util
import re
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from account_service.settings import AccountSettings
from deploy.check.contracts import import_file
from deploy.check.findings import ROOT
from event_contracts.carrier import RefusalReason, ReplyKind
from logistics_gateway.settings import GatewaySettings
from privacy_service.clauses import CLAUSES
from privacy_service.cli.client import Exit
from privacy_service.inventory import http as inventory
from privacy_service.settings import PrivacySettings
from privacy_service.vault.settings import VaultSettings
from tests.defects.run import read_all
from tests.faults.rows import ROWS

README = ROOT / "README.md"
DOCUMENTS = [README, *sorted((ROOT / "docs").glob("*.md"))]
OPERATOR, SUPPORT, STOREFRONT = (ROOT / "docs" / f"{name}.md" for name in ("operator", "support", "storefront"))
THREATS, CARRIER = ROOT / "docs" / "threats.md", ROOT / "docs" / "carrier.md"
LAWS, POLICY, FAULTS = (ROOT / "docs" / f"{name}.md" for name in ("laws", "policy", "faults"))
SETTINGS = (AccountSettings, GatewaySettings, PrivacySettings, VaultSettings)
# A third party's example runs with tests/support as its path.
THIRD_PARTIES = {"reviews"}

_STEP = re.compile(r"^(\d+)\. `([^`]+)` `(\w+)`", re.MULTILINE)
_FENCED = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_FILE = re.compile(r"(?:[\w.-]+/)+[\w.-]+\.(?:py|md|yaml|json|txt|toml|sql|lock)")
_TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
_QUOTED_FILE = re.compile(r"^`([^`\n]+)`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def names(path: Path) -> dict[str, ast.AST]:
    """The functions, methods, classes and constants that a file defines."""
    found: dict[str, ast.AST] = {}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id: node for target in targets if isinstance(target, ast.Name)}
    return found


def code_of(document: Path) -> Iterator[str]:
    """What stands in a document as code: fenced blocks, and spans outside of them."""
    text = document.read_text()
    yield from (match[2] for match in _FENCED.finditer(text))
    yield from _SPAN.findall(_FENCED.sub("", text))


def section(document: Path, title: str) -> str:
    """The text below a heading, up to the next one of the same level."""
    return document.read_text().split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def cells(table: str) -> list[list[str]]:
    """The rows of a section's only table, without its head."""
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def cells_of_all(document: Path) -> list[list[str]]:
    """The rows of all tables of a document, their heads among them."""
    lines = [line for line in document.read_text().splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.removeprefix("|").removesuffix("|").split("|")] for line in lines]
    return [row for row in rows if not row[0].startswith("-")]


def threats() -> list[list[str]]:
    """The lines of all tables of the threats: what is tried, what stops it, the test."""
    return [row for row in cells_of_all(THREATS) if row[0] != "tries to"]


def carried(path: Path, name: str) -> set[int]:
    """The rows of faults that a test's own markers name."""
    test = names(path)[name]
    assert isinstance(test, ast.FunctionDef | ast.AsyncFunctionDef)
    marks = [mark for mark in test.decorator_list if isinstance(mark, ast.Call)]
    found = [mark.args[0] for mark in marks if ast.unparse(mark.func) == "pytest.mark.fault"]
    return {row.value for row in found if isinstance(row, ast.Constant) and isinstance(row.value, int)}


def is_document(path: Path) -> str:
    return path.name


def test_the_life_of_an_order_has_nine_steps_in_nine_files() -> None:
    steps = _STEP.findall(section(README, "The life of an order"))
    assert [int(number) for number, _, _ in steps] == list(range(1, 10))
    assert len({path for _, path, _ in steps}) == 9


@pytest.mark.parametrize(("path", "name"), [step[1:] for step in _STEP.findall(README.read_text())])
def test_every_function_of_a_step_stands_in_its_file(path: str, name: str) -> None:
    assert isinstance(names(ROOT / path).get(name), ast.FunctionDef | ast.AsyncFunctionDef)


@pytest.mark.parametrize("document", DOCUMENTS, ids=is_document)
def test_every_link_and_every_file_that_is_named_exists(document: Path) -> None:
    text = document.read_text()
    links = [link.partition("#")[0] for link in _LINK.findall(text) if not link.startswith("https://")]
    missing = [link for link in links if not (document.parent / link).exists()]
    spans = [span for span in _SPAN.findall(_FENCED.sub("", text)) if _FILE.fullmatch(span)]
    missing += [span for span in spans if not span.startswith(".local/") and not (ROOT / span).exists()]
    assert missing == []


@pytest.mark.parametrize("row", threats(), ids=lambda row: row[0])
def test_every_threat_names_a_test(row: list[str]) -> None:
    assert _TEST.fullmatch(row[2])


@pytest.mark.parametrize("document", DOCUMENTS, ids=is_document)
def test_every_test_that_is_named_exists(document: Path) -> None:
    named = _TEST.findall(document.read_text())
    missing = [f"{path}::{name}" for path, name in named if not (ROOT / path).exists()]
    missing += [f"{path}::{name}" for path, name in named if name and name not in names(ROOT / path)]
    assert missing == []


def headings(document: Path) -> set[str]:
    """The anchors of a document, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", _FENCED.sub("", document.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def citations(text: str) -> Iterator[str]:
    """What is wrong with the documents that a text of ours cites: one that is not there, or has no such part."""
    for name, anchor, number in re.findall(r"\b(docs/[\w-]+\.md)(?:#([\w-]*\w)|(?:, | and )(\d+)\b)?", text):
        path = ROOT / name
        if not path.exists():
            yield name
        elif anchor and anchor not in headings(path):
            yield f"{name}#{anchor}"
        elif number and not any(heading.startswith(f"{number}-") for heading in headings(path)):
            yield f"{name}, {number}"
    # Pages in capitals stand at the top.
    yield from (name for name in re.findall(r"(?<![\w/])[A-Z][A-Z-]+\.md\b", text) if not (ROOT / name).exists())


def sources() -> list[Path]:
    kinds = ("*.py", "*.sql", "*.yaml", "*.toml", "*.patch", "*.sh", "Makefile", ".importlinter")
    tracked = subprocess.run(["git", "ls-files", *kinds], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in tracked.stdout.splitlines() if (ROOT / name).is_file()]


def test_every_document_that_the_code_cites_exists_and_has_that_part() -> None:
    wrong = {path.relative_to(ROOT): list(citations(path.read_text())) for path in sources() if path != Path(__file__)}
    assert {path: found for path, found in wrong.items() if found} == {}


@pytest.mark.parametrize("planted", ["docs/no-page.md", "docs/vault.md#no-part", "docs/proofs.md, 21", "PROTOCOLS.md"])
def test_a_citation_of_what_is_not_there_is_seen(planted: str) -> None:
    assert list(citations(f"a rule ({planted}).")) == [planted]


def test_every_law_has_its_tests_and_all_its_planted_defects() -> None:
    """A new patch needs its name in docs/laws.md; a law without one says so."""
    laws = re.findall(r"^## (L\d+) (.*?)(?=^## |\Z)", LAWS.read_text(), re.MULTILINE | re.DOTALL)
    assert [law for law, _ in laws] == [f"L{number}" for number in range(1, 15)]
    planted = {law: {defect.name for defect in read_all() if defect.law == law} for law, _ in laws}
    assert {law: set(re.findall(rf"`({law}-[\w-]+)`", text)) for law, text in laws} == planted
    assert [law for law, text in laws if ("Nothing yet" in text) == bool(planted[law])] == []
    assert [law for law, text in laws if not _TEST.search(text)] == []


def test_every_clause_says_what_enforces_it_and_by_which_test() -> None:
    rows = [row for row in cells_of_all(POLICY) if row[0] != "clause"]
    assert {row[0] for row in rows} == CLAUSES.keys()
    assert [row[0] for row in rows if not _TEST.search(row[3]) and "othing yet" not in row[2]] == []


def test_every_fault_has_its_row_and_names_tests_that_carry_it() -> None:
    """The tests of a row are those with its marker, or such as take the rows of what they are given."""
    rows = re.findall(r"^## (\d+)\. (.*?)\n(.*?)(?=^## |\Z)", FAULTS.read_text(), re.MULTILINE | re.DOTALL)
    assert {int(row) for row, _, _ in rows} == ROWS.keys() | {38}
    for row, _, text in rows:
        named = _TEST.findall(text)
        assert named or "No test carries this row" in text, row
        marks = {name: carried(ROOT / path, name) for path, name in named}
        assert [name for name, found in marks.items() if found and int(row) not in found] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=is_document)
def test_every_make_target_and_every_module_that_is_run_exists(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    code = "\n".join(code_of(document))
    asked = set(re.findall(r"(?:^|\$\()make (?:-s )?([a-z-]+)", code, re.MULTILINE))
    assert asked - targets == set()
    modules = set(re.findall(r"python3? -m ([\w.]+)", code)) - THIRD_PARTIES
    assert [module for module in modules if importlib.util.find_spec(module) is None] == []


@pytest.mark.parametrize(("path", "quoted"), _QUOTED_FILE.findall(STOREFRONT.read_text()))
def test_every_example_is_the_file_that_it_names(path: str, quoted: str) -> None:
    assert quoted.strip() == (ROOT / path).read_text().strip()


def test_the_whole_third_party_is_the_example() -> None:
    quoted = {path for path, _ in _QUOTED_FILE.findall(STOREFRONT.read_text())}
    assert {f"tests/support/reviews/{name}" for name in ("app.py", "topics.json", "policy.yaml")} <= quoted


@pytest.mark.parametrize("document", DOCUMENTS, ids=is_document)
def test_every_name_that_an_example_imports_exists(document: Path) -> None:
    blocks = [match[2] for match in _FENCED.finditer(document.read_text()) if match[1] == "python"]
    imports = [node for block in blocks for node in ast.walk(ast.parse(block)) if isinstance(node, ast.ImportFrom)]
    known = [node for node in imports if (node.module or "").partition(".")[0] not in THIRD_PARTIES]
    for node in known:
        module = importlib.import_module(node.module or "")
        assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


def test_the_environment_is_that_of_the_settings_with_its_defaults() -> None:
    fields = {name.upper(): field for settings in SETTINGS for name, field in settings.model_fields.items()}
    table = section(OPERATOR, "Environment of a process")
    told = {name: row[3] for row in cells(table) for name in _SPAN.findall(row[0])}
    assert told.keys() == fields.keys()
    defaults = {name: field.default for name, field in fields.items()}
    assert told == {name: "" if default in (None, "", ()) else str(default) for name, default in defaults.items()}


def test_every_other_variable_is_read_somewhere() -> None:
    read = "\n".join(
        path.read_text() for folder in ("shared", "deploy", "tests") for path in (ROOT / folder).rglob("*.py")
    )
    process = section(OPERATOR, "Environment of a process")
    tools = [row[0].strip("`") for row in cells(section(OPERATOR, "The local stack"))]
    for name in (*tools, *_SPAN.findall(process.splitlines()[-1])):
        assert re.search(rf'environ(\.get\(|\[)"{name}"', read), name


def test_exit_codes_and_search_limits_of_support_are_those_of_the_code() -> None:
    assert [int(row[0]) for row in cells(section(SUPPORT, "In scripts"))] == list(Exit)
    sentence = f"{inventory.FINDS_PER_MINUTE} times a minute"
    assert sentence in SUPPORT.read_text()


@pytest.mark.parametrize("row", cells(section(OPERATOR, "Limits")), ids=lambda row: row[0])
def test_every_limit_stands_where_the_table_says_with_its_value(row: list[str]) -> None:
    path, name = _SPAN.findall(row[2])
    if path.endswith(".yaml"):
        value: Any = yaml.safe_load((ROOT / path).read_text())
        for key in name.split("."):
            value = value[key]
    else:
        node = names(ROOT / path)[name]
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            numbers = re.findall(r"\d[\d_]*", ast.unparse(node))
            assert set(re.findall(r"\d+", row[1].replace(",", ""))) <= set(numbers)
            return
        value = getattr(import_file(ROOT / path), name)
    units = {"hours": timedelta(hours=1), "days": timedelta(days=1)}
    if isinstance(value, timedelta):
        value = value // units[row[1].split()[-1]]
    told = f"{value:,g}" if isinstance(value, float) else f"{value:,}"
    assert row[1].split()[0] == told


def test_carriers_are_told_every_kind_of_reply_and_every_reason() -> None:
    table = section(CARRIER, "A reply")
    told = [_SPAN.findall(row[0]) for row in cells(table)]
    assert {name for names in told for name in names} >= {kind.value for kind in ReplyKind}
    assert [reason for reason in RefusalReason if f"`{reason.value}`" not in table] == []
