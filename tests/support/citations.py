"""What documents say of the code and the code does not have: one function for each kind of citation, each gives what is wrong."""

import ast
import importlib
import importlib.util
import re
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import prometheus_client
import typer.main

from deploy.check.findings import ROOT
from privacy_service.clauses import CLAUSES
from privacyctl.commands import app as privacyctl
from servicekit.core import metrics
from tests.support.routes import all_rules

# A third party's example runs with tests/support as its path.
THIRD_PARTIES = frozenset({"reviews"})
FENCED = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
_TOPS = ("services", "shared", "deploy", "tests", "docs", ".ci")
_PACKAGES = (
    *(
        "event_contracts",
        "country_data",
        "servicekit",
        "lanes",
        "account_service",
        "order_service",
        "logistics_gateway",
    ),
    *("privacy_service", "vault_service", "evidence_log", "privacyctl"),
)
# Names of others' software.
_FOREIGN = frozenset(
    (
        *("StandardAuthorizer", "ScheduleKeyDeletion", "CreateAlias", "TagResource", "DescribeKey", "ListAliases"),
        *(
            "GenerateDataKeyWithoutPlaintext",
            "CreateKey",
            "DisableKey",
            "ParcelDelivery",
            "SSL_CERT_FILE",
            "huge_pages",
        ),
    )
)
_LAWS = range(1, 15)
_STACK = re.compile(r"(?:[A-Z_]+)_(?:URL|DSN|KEY_FILE|USER|PASSWORD)")


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


def code_of(text: str) -> Iterator[str]:
    """What stands in a document as code: fenced blocks, and spans outside of them."""
    yield from (match[2] for match in FENCED.finditer(text))
    yield from spans(text)


def spans(text: str) -> list[str]:
    return SPAN.findall(FENCED.sub("", text))


def headings(document: Path) -> set[str]:
    """The anchors of a document, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", FENCED.sub("", document.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def tracked(*kinds: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", *kinds], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


@cache
def _sources() -> str:
    """All code, settings and data, without the documents and without what this module allows."""
    kinds = ("*.py", "*.sql", "*.yaml", "*.toml", "*.json", "*.sh", "Makefile", ".importlinter")
    files = [path for path in tracked(*kinds) if not path.is_relative_to(ROOT / "docs")]
    own = {Path(__file__), ROOT / "tests/contract/test_documents.py"}
    return "\n".join(path.read_text() for path in files if path not in own)


@cache
def _words() -> frozenset[str]:
    text = _sources()
    found = set(re.findall(r"[A-Za-z_][A-Za-z0-9_]*", text))
    # Settings are read from variables with their names in capitals.
    return frozenset(found | {word.upper() for word in found if "_" in word} | _FOREIGN)


@cache
def _modules() -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in tracked("*.py"):
        found.setdefault(path.stem, []).append(path)
    return found


@cache
def _routes() -> frozenset[tuple[str, str]]:
    with TemporaryDirectory() as folder:
        rules = [rule for each in all_rules(Path(folder)).values() for rule in each]
    probes = {("GET", path) for path in ("/livez", "/readyz", "/metrics")}
    # The third party's, and what the witness offers.
    others = {("POST", "/v1/reviews"), ("POST", "/v1/cosign")}
    return frozenset({(rule.method, _template(rule.path)) for rule in rules} | probes | others)


def _template(path: str) -> str:
    return re.sub(r"\{\w+\}|<[^>/]+>", "{}", path.partition("?")[0])


def links(text: str, folder: Path = ROOT) -> Iterator[str]:
    for link in LINK.findall(text):
        name, _, anchor = link.partition("#")
        target = folder / name
        if (not link.startswith("https://") and name and not target.exists()) or (
            anchor and name.endswith(".md") and anchor not in headings(target)
        ):
            yield link


@cache
def _paths() -> frozenset[str]:
    """All files under version control and their folders, from the top and from any folder above them."""
    found = set[str]()
    for path in tracked():
        parts = path.relative_to(ROOT).parts
        found |= {"/".join(parts[start:end]) for end in range(1, len(parts) + 1) for start in range(end)}
    return frozenset(found)


def files(text: str) -> Iterator[str]:
    """Paths from the top, in spans and blocks; ends of paths such as `requests/http.py`; names of modules and folders."""
    tops = rf"(?:{'|'.join(map(re.escape, _TOPS))})/[\w./-]*\w/?"
    blocks = " ".join(match[2] for match in FENCED.finditer(text))
    named = [*spans(text), *re.findall(rf"(?<![\w./<>-]){tops}(?![\w/<…*])", blocks)]
    for name in named:
        if re.fullmatch(rf"{tops}|[\w/-]+\.py|[a-z]\w+/", name) and name.rstrip("/") not in _paths():
            yield name


def functions(text: str) -> Iterator[str]:
    """`path.py` `name`, `module.py: name`, and dotted names whose first part is a package or a module of ours."""
    for path, name in re.findall(r"`([\w./-]+/\w+\.py)` `(\w+)`", text):
        if (ROOT / path).exists() and name not in names(ROOT / path):
            yield f"{path} {name}"
    for span in spans(text):
        if match := re.fullmatch(r"(\w+)\.py: (\w+)", span):
            if not any(match[2] in names(path) for path in _modules().get(match[1], ())):
                yield span
        elif re.fullmatch(r"[a-z]\w*(?:\.\w+)+", span):
            first, *rest = span.split(".")
            if (first in _PACKAGES and not _is_there(span)) or (
                first not in _PACKAGES and len(rest) == 1 and _is_wrong_member(first, rest[0])
            ):
                yield span


def _is_wrong_member(module: str, name: str) -> bool:
    """Of a module that only our sources have; `limits.lease_seconds` and the like are keys of a document."""
    paths = _modules().get(module, [])
    return bool(paths) and name not in _words() and not any(name in names(path) for path in paths)


def _is_there(dotted: str) -> bool:
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:end]))
        except ImportError:
            continue
        for name in parts[end:]:
            if not hasattr(found, name):
                return False
            found = getattr(found, name)
        return True
    return False


def tests(text: str) -> Iterator[str]:
    for path, name in TEST.findall(text):
        if not (ROOT / path).exists() or (name and name not in names(ROOT / path)):
            yield f"{path}::{name}"


def targets(text: str) -> Iterator[str]:
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    code = "\n".join(code_of(text))
    yield from sorted(set(re.findall(r"(?:^|\$\()make (?:-s )?([a-z-]+)", code, re.MULTILINE)) - known)


def commands(text: str) -> Iterator[str]:
    """`python -m …` with its first word, and `privacyctl …`."""
    code = "\n".join(code_of(text))
    for module, word in re.findall(r"python3? -m ([\w.]+)(?: ([a-z][a-z-]+)\b)?", code):
        if module not in THIRD_PARTIES and importlib.util.find_spec(module) is None:
            yield module
        elif word and module.startswith(_PACKAGES) and f'"{word}"' not in _sources():
            yield f"{module} {word}"
    known = typer.main.get_command(privacyctl)
    for line in re.findall(r"\bprivacyctl((?: [a-z-]+)+)", code):
        place = known
        for word in line.split():
            group = getattr(place, "commands", None)
            if group is None:
                break
            if word not in group:
                yield f"privacyctl{line}"
                break
            place = group[word]


def settings(text: str) -> Iterator[str]:
    """Variables and constants: in spans, and where a block of a shell uses them."""
    blocks = [match[2] for match in FENCED.finditer(text)]
    used = {name for block in blocks for name in re.findall(r"\$\{?([A-Z][A-Z0-9_]*_[A-Z0-9_]+)", block)}
    used |= {span for span in spans(text) if re.fullmatch(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+", span)}
    yield from sorted(name for name in used - _words() if not _STACK.fullmatch(name))


def metric_names(text: str) -> Iterator[str]:
    assert metrics.render()  # all of them are registered by now
    known = {sample.name for family in prometheus_client.REGISTRY.collect() for sample in family.samples}
    families = {f"{family.name}_total" for family in prometheus_client.REGISTRY.collect() if family.type == "counter"}
    yield from (span for span in spans(text) if re.fullmatch(r"\w+_total", span) and span not in known | families)


def words(text: str) -> Iterator[str]:
    """Names of fields, codes, tables and types."""
    for span in spans(text):
        name = re.sub(r"\.v\d+$", "", span)
        if re.fullmatch(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)+", name) and not name.endswith("_total"):
            if name not in _words():
                yield span
        elif re.fullmatch(r"(?:[A-Z][a-z0-9]+){2,}", name) and name not in _words():
            yield span


def routes(text: str) -> Iterator[str]:
    paths = {path for _, path in _routes()}
    for span in spans(text):
        if match := re.fullmatch(r"(GET|POST|PUT|PATCH|DELETE) ((?:<[^>]*>|\S)+)(?: .*)?", span):
            if (match[1], _template(match[2])) not in _routes():
                yield span
        elif (re.fullmatch(r"/v1/(?:<[^>]*>|\S)+", span) or re.fullmatch(r"/[a-z]+", span)) and _template(
            span
        ) not in paths:
            yield span


def laws(text: str) -> Iterator[str]:
    yield from (f"L{law}" for law in re.findall(r"\bL(\d{1,2})\b(?!-)", text) if int(law) not in _LAWS)
    planted = {patch.stem for patch in (ROOT / "tests/defects").glob("*.patch")}
    yield from (span for span in spans(text) if re.fullmatch(r"L\d+-[\w-]+", span) and span not in planted)


def clauses(text: str) -> Iterator[str]:
    named = re.findall(r"\b[Cc]lauses? ([A-Z]\d+)\b", text)
    named += re.findall(r"^\| ([A-Z]\d+) \|", text, re.MULTILINE)
    yield from (clause for clause in named if clause not in CLAUSES)


KINDS: dict[str, Callable[[str], Iterator[str]]] = {
    "link": links,
    "file": files,
    "function": functions,
    "test": tests,
    "make target": targets,
    "command": commands,
    "setting": settings,
    "metric": metric_names,
    "word": words,
    "route": routes,
    "law": laws,
    "clause": clauses,
}


def of_code(text: str) -> Iterator[str]:
    """What is wrong with the documents that a source of ours cites: one that is not there, or has no such part."""
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
    yield from (f"law L{law}" for law in re.findall(r"\blaws? L(\d+)", text) if int(law) not in _LAWS)
    yield from (clause for clause in re.findall(r"\bclause ([A-Z]\d)\b", text) if clause not in CLAUSES)
