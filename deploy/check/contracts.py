"""Law L10 for contracts: `event_contracts.rules` over every module that declares an event or personal data."""

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Set
from pathlib import Path
from types import ModuleType

from fideslang.default_taxonomy import DEFAULT_TAXONOMY
from pydantic import BaseModel

from deploy.check.findings import ROOT, Finding, files
from event_contracts import Event, PersonalData
from event_contracts.rules import models_of, violations
from servicekit.core.policy import Policy, PolicyError

WHY = "Outside of sealed, classified data no personal value may travel or lie (law L10)."
# Contracts that are never written but as a whole JWE to one carrier.
ENCRYPTED_WHOLE = {"event_contracts.carrier.CarrierMessage"}
_DECLARES = re.compile(r"^class \w+\(.*\b(Event|PersonalData)\b", re.MULTILINE)
POLICY = ROOT / "shared" / "policy"


def find() -> Iterator[Finding]:
    """All breaches, in our contracts and in those of third parties under tests/support."""
    base = sorted(POLICY.glob("*.yaml"))
    for path in _declaring(files("*.py")):
        yield from find_in(import_file(path), base)
    for path in _declaring(files("*.py", below=("tests/support",))):
        yield from find_in(import_file(path), [*base, *sorted(path.parent.glob("*polic*.yaml"))])


def find_in(module: ModuleType, policy_files: Iterable[Path]) -> Iterator[Finding]:
    """All breaches of the models that one module defines, under the policy of these files."""
    paths = list(policy_files)
    try:
        classes = _classes(tuple(paths))
    except PolicyError as error:
        yield from _invalid_policy(str(error), paths)
        return
    # Elsewhere than in the published language there are other models too, such as the bodies of requests.
    kinds = BaseModel if module.__name__.startswith("event_contracts.") else (Event, PersonalData)
    models = [
        model for model in models_of(module) if issubclass(model, kinds) and _full_name(model) not in ENCRYPTED_WHOLE
    ]
    for breach in violations(models, _known_categories(), classes):
        place = ".".join(filter(None, (breach.model.__name__, breach.field)))
        yield Finding(*locate(breach.model, breach.field), f"{place}: {breach.what}.", WHY, f"Do: {breach.do}.")


def _invalid_policy(error: str, paths: list[Path]) -> Iterator[Finding]:
    """A finding for every sentence of the error, at the entry that it names: `policy.yaml: classes.gossip.keep: is missing`."""
    for sentence in error.split("; "):
        path = next((path for path in paths if sentence.startswith(f"{path.name}:")), paths[0])
        entry = re.search(r": \w+\.([\w.-]+?)[.:]", sentence)
        lines = path.read_text().splitlines()
        line = next((n for n, text in enumerate(lines, 1) if entry and text.startswith(f"  {entry[1]}:")), 1)
        yield Finding(path, line, f"The policy is not valid: {sentence}.", WHY, "Correct the policy document.")


def import_file(path: Path) -> ModuleType:
    """The module of a source file: below a folder src by its package, elsewhere by its path from the top."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    names = parts[parts.index("src") + 1 :] if "src" in parts else parts
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    return importlib.import_module(".".join(names[:-1] if names[-1] == "__init__" else names))


def locate(model: type[BaseModel], field: str | None) -> tuple[Path, int]:
    """The file and line where a model, or one of its fields, is declared."""
    path = Path(inspect.getfile(model))
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef) and node.name == model.__name__:
            names = {
                item.target.id: item.lineno
                for item in node.body
                if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
            }
            return path, names.get(field or "", node.lineno)
    return path, 1


def _full_name(model: type[BaseModel]) -> str:
    return f"{model.__module__}.{model.__name__}"


def _declaring(paths: Iterable[Path]) -> Iterator[Path]:
    return (path for path in paths if path.name != "personal.py" and _DECLARES.search(path.read_text()))


def _known_categories() -> frozenset[str]:
    return frozenset(str(entry.fides_key) for entry in DEFAULT_TAXONOMY.data_category or ())


def _classes(policy_files: tuple[Path, ...]) -> Mapping[str, Set[str]]:
    policy = Policy.load(policy_files)
    return {name: frozenset(rule.categories) for name, rule in policy.classes.items()}
