"""What README and docs name exists (docs/proofs.md, 16), and what code and tests cite of them."""

import ast
import importlib
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

import servicekit
from account_service.settings import AccountSettings
from deploy.check.contracts import import_file
from deploy.check.findings import ROOT
from event_contracts.carrier import RefusalReason, ReplyKind
from logistics_gateway.settings import GatewaySettings
from privacy_service.clauses import CLAUSES
from privacy_service.inventory import http as inventory
from privacy_service.settings import PrivacySettings
from privacyctl.client import Exit
from tests.defects.run import read_all
from tests.faults.rows import ROWS
from tests.support.citations import FENCED, KINDS, SPAN, TEST, THIRD_PARTIES, links, names, of_code, tracked
from vault_service.settings import VaultSettings

DOCUMENTS = [path for folder in (".", "docs", "deploy/runbooks") for path in sorted((ROOT / folder).glob("*.md"))]
ARCHITECTURE, OPERATOR, SUPPORT, STOREFRONT = (
    ROOT / "docs" / f"{name}.md" for name in ("architecture", "operator", "support", "storefront")
)
THREATS, CARRIER = ROOT / "docs" / "threats.md", ROOT / "docs" / "carrier.md"
LAWS, POLICY, FAULTS = (ROOT / "docs" / f"{name}.md" for name in ("laws", "policy", "faults"))
SETTINGS = (AccountSettings, GatewaySettings, PrivacySettings, VaultSettings)

# One wrong citation of each kind, or several, as somebody would write it.
PLANTED = [
    ("link", "[a page](docs/no-page.md)"),
    ("link", "[a part](docs/vault.md#no-part)"),
    ("file", "`services/order/no_file.toml`"),
    ("file", "`no_such_module.py`"),
    ("file", "`no_folder/http.py`"),
    ("file", "`no_folder/`"),
    ("file", "this:\n\n```\nservices/no-service/    a service\n```\n"),
    ("function", "`deploy/check/all.py` `no_function`"),
    ("function", "`findings.py: no_function`"),
    ("function", "`event_contracts.no_function`"),
    ("test", "`tests/unit/test_ids.py::test_nothing`"),
    ("make target", "`make nothing`"),
    ("command", "`python -m no_module`"),
    ("command", "`python -m order_service nothing-at-all`"),
    ("command", "`privacyctl nothing`"),
    ("command", "`privacyctl hold nothing`"),
    ("setting", "`NO_SUCH_SETTING`"),
    ("setting", "this:\n\n```\ncurl $NO_SUCH_VARIABLE\n```\n"),
    ("metric", "`nothing_total`"),
    ("word", "`no_such_field`"),
    ("word", "`NoSuchEvent.v1`"),
    ("route", "`GET /v1/nothing`"),
    ("route", "`/healthz`"),
    ("law", "law L15"),
    ("law", "`L3-no-such-defect`"),
    ("clause", "clause V9"),
    ("clause", "this:\n| V9 | a clause |"),
]

_STEP = re.compile(r"^(\d+)\. `([^`]+)` `(\w+)`", re.MULTILINE)
_QUOTED_FILE = re.compile(r"^`([^`\n]+)`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


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
    steps = _STEP.findall(section(ARCHITECTURE, "The life of an order"))
    assert [int(number) for number, _, _ in steps] == list(range(1, 10))
    assert len({path for _, path, _ in steps}) == 9


@pytest.mark.parametrize(("path", "name"), [step[1:] for step in _STEP.findall(ARCHITECTURE.read_text())])
def test_every_function_of_a_step_stands_in_its_file(path: str, name: str) -> None:
    assert isinstance(names(ROOT / path).get(name), ast.FunctionDef | ast.AsyncFunctionDef)


@pytest.mark.parametrize("row", threats(), ids=lambda row: row[0])
def test_every_threat_names_a_test(row: list[str]) -> None:
    assert TEST.fullmatch(row[2])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("document", DOCUMENTS, ids=is_document)
def test_whatever_a_document_names_exists(document: Path, kind: str) -> None:
    text = document.read_text()
    assert list(links(text, document.parent) if kind == "link" else KINDS[kind](text)) == []


@pytest.mark.parametrize(("kind", "planted"), PLANTED)
def test_what_does_not_exist_is_seen(kind: str, planted: str) -> None:
    assert list(KINDS[kind](f"A sentence with {planted} in it.\n")) != []


def test_the_readme_leads_to_every_page() -> None:
    text = (ROOT / "README.md").read_text()
    pages = [path.relative_to(ROOT).as_posix() for path in DOCUMENTS if path.parent.name in ("docs", ROOT.name)]
    assert [page for page in pages if page != "README.md" and f"]({page}" not in text] == []


def test_every_document_that_the_code_cites_exists_and_has_that_part() -> None:
    sources = tracked("*.py", "*.sql", "*.yaml", "*.toml", "*.patch", "*.sh", "Makefile", ".importlinter")
    wrong = {path.relative_to(ROOT): list(of_code(path.read_text())) for path in sources if path != Path(__file__)}
    assert {path: found for path, found in wrong.items() if found} == {}


@pytest.mark.parametrize(
    "planted", ["docs/no-page.md", "docs/vault.md#no-part", "docs/proofs.md, 21", "NO-PAGE.md", "law L15", "clause V9"]
)
def test_a_citation_of_what_is_not_there_is_seen(planted: str) -> None:
    assert list(of_code(f"a rule ({planted}).")) == [planted.removeprefix("clause ")]


def test_every_law_has_its_tests_and_all_its_planted_defects() -> None:
    """A new patch needs its name in docs/laws.md; a law without one says so."""
    laws = re.findall(r"^## (L\d+) (.*?)(?=^## |\Z)", LAWS.read_text(), re.MULTILINE | re.DOTALL)
    assert [law for law, _ in laws] == [f"L{number}" for number in range(1, 15)]
    planted = {law: {defect.name for defect in read_all() if defect.law == law} for law, _ in laws}
    assert {law: set(re.findall(rf"`({law}-[\w-]+)`", text)) for law, text in laws} == planted
    assert [law for law, text in laws if ("Nothing yet" in text) == bool(planted[law])] == []
    assert [law for law, text in laws if not TEST.search(text)] == []


def test_every_clause_says_what_enforces_it_and_by_which_test() -> None:
    rows = [row for row in cells_of_all(POLICY) if row[0] != "clause"]
    assert {row[0] for row in rows} == CLAUSES.keys()
    assert [row[0] for row in rows if not TEST.search(row[3]) and "othing yet" not in row[2]] == []


def test_every_fault_has_its_row_and_names_tests_that_carry_it() -> None:
    """The tests of a row are those with its marker, or such as take the rows of what they are given."""
    rows = re.findall(r"^## (\d+)\. (.*?)\n(.*?)(?=^## |\Z)", FAULTS.read_text(), re.MULTILINE | re.DOTALL)
    assert {int(row) for row, _, _ in rows} == ROWS.keys() | {38}
    for row, _, text in rows:
        named = TEST.findall(text)
        assert named or "No test carries this row" in text, row
        marks = {name: carried(ROOT / path, name) for path, name in named}
        assert [name for name, found in marks.items() if found and int(row) not in found] == []


@pytest.mark.parametrize(("path", "quoted"), _QUOTED_FILE.findall(STOREFRONT.read_text()))
def test_every_example_is_the_file_that_it_names(path: str, quoted: str) -> None:
    assert quoted.strip() == (ROOT / path).read_text().strip()


def test_every_public_name_of_the_toolkit_is_explained() -> None:
    told = [name for row in cells(section(STOREFRONT, "The toolkit's names")) for name in SPAN.findall(row[0])]
    assert sorted(told) == sorted(servicekit.__all__)


def test_the_whole_third_party_is_the_example() -> None:
    quoted = {path for path, _ in _QUOTED_FILE.findall(STOREFRONT.read_text())}
    assert {f"tests/support/reviews/{name}" for name in ("app.py", "topics.json", "policy.yaml")} <= quoted


@pytest.mark.parametrize("document", DOCUMENTS, ids=is_document)
def test_every_name_that_an_example_imports_exists(document: Path) -> None:
    blocks = [match[2] for match in FENCED.finditer(document.read_text()) if match[1] == "python"]
    imports = [node for block in blocks for node in ast.walk(ast.parse(block)) if isinstance(node, ast.ImportFrom)]
    known = [node for node in imports if not node.level and (node.module or "").partition(".")[0] not in THIRD_PARTIES]
    for node in known:
        module = importlib.import_module(node.module or "")
        assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


def test_the_environment_is_that_of_the_settings_with_its_defaults() -> None:
    fields = {name.upper(): field for settings in SETTINGS for name, field in settings.model_fields.items()}
    table = section(OPERATOR, "Environment of a process")
    told = {name: row[3] for row in cells(table) for name in SPAN.findall(row[0])}
    assert told.keys() == fields.keys()
    defaults = {name: field.default for name, field in fields.items()}
    assert told == {name: "" if default in (None, "", ()) else str(default) for name, default in defaults.items()}


def test_every_other_variable_is_read_somewhere() -> None:
    read = "\n".join(
        path.read_text() for folder in ("shared", "deploy", "tests") for path in (ROOT / folder).rglob("*.py")
    )
    process = section(OPERATOR, "Environment of a process")
    tools = [row[0].strip("`") for row in cells(section(OPERATOR, "The local stack"))]
    for name in (*tools, *SPAN.findall(process.splitlines()[-1])):
        assert re.search(rf'environ(\.get\(|\[)"{name}"', read), name


def test_exit_codes_and_search_limits_of_support_are_those_of_the_code() -> None:
    assert [int(row[0]) for row in cells(section(SUPPORT, "In scripts"))] == list(Exit)
    sentence = f"{inventory.FINDS_PER_MINUTE} times a minute"
    assert sentence in SUPPORT.read_text()


def told_and_real(row: list[str]) -> tuple[object, object]:
    """What a line of the table of limits says, and what the code has at the place that it names."""
    path, name = SPAN.findall(row[2])
    if path.endswith(".yaml"):
        value: Any = yaml.safe_load((ROOT / path).read_text())
        for key in name.split("."):
            value = value[key]
    else:
        node = names(ROOT / path)[name]
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            numbers = set(re.findall(r"\d[\d_]*", ast.unparse(node)))
            told = set(re.findall(r"\d+", row[1].replace(",", "")))
            return told, told & numbers
        value = getattr(import_file(ROOT / path), name)
    units = {"hours": timedelta(hours=1), "days": timedelta(days=1)}
    if isinstance(value, timedelta):
        value = value // units[row[1].split()[-1]]
    return row[1].split()[0], f"{value:,g}" if isinstance(value, float) else f"{value:,}"


@pytest.mark.parametrize("row", cells(section(OPERATOR, "Limits")), ids=lambda row: row[0])
def test_every_limit_stands_where_the_table_says_with_its_value(row: list[str]) -> None:
    told, real = told_and_real(row)
    assert told == real


@pytest.mark.parametrize("value", ["2,001", "501 s"])
def test_a_limit_that_is_another_is_seen(value: str) -> None:
    rows = cells(section(OPERATOR, "Limits"))
    place = next(row for row in rows if ("2,000" if "," in value else "30 s") in row[1])
    told, real = told_and_real([place[0], value, place[2]])
    assert told != real


def test_carriers_are_told_every_kind_of_reply_and_every_reason() -> None:
    table = section(CARRIER, "A reply")
    told = [SPAN.findall(row[0]) for row in cells(table)]
    assert {name for names in told for name in names} >= {kind.value for kind in ReplyKind}
    assert [reason for reason in RefusalReason if f"`{reason.value}`" not in table] == []
