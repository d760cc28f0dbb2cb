"""A plant per build rule on a copy of the tree (docs/proofs.md, 14): the check names file and line, says what to do, and fails."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.check.findings import ROOT
from tests.support.plants import IMPORT_RULES, IMPORTS, LINT, LINT_RULES, OWN, OWN_RULES, POLICY_RULE, Plant

FOLDERS = ("shared", "services", "deploy", "docs/asyncapi", "tests/support")
FILES = (".importlinter", "Makefile", "pyproject.toml", "requirements.in", "requirements.lock")


def copy_tree(copy: Path) -> Path:
    """What the checks look at."""
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for file in FILES:
        shutil.copy2(ROOT / file, copy / file)
    return copy


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy without plants."""
    return copy_tree(tmp_path_factory.mktemp("tree"))


def run(tree: Path, command: Sequence[str]) -> tuple[int, str]:
    """Exit code and output of a check in the copy, whose own sources come first."""
    sources = [str(path) for path in (*tree.glob("shared/*/src"), *tree.glob("services/*/src"), tree)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sources),
        "PYTHONDONTWRITEBYTECODE": "1",
        "COLUMNS": "200",
    }
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, done.stdout + done.stderr


@dataclass(frozen=True)
class Planted:
    """What a check says about a copy with plants."""

    tree: Path
    code: int
    output: str

    def line_of(self, plant: Plant) -> int:
        """Where the plant stands in its file."""
        lines = (self.tree / plant.file).read_text().splitlines()
        return max(number for number, line in enumerate(lines, 1) if plant.at in line)


def run_planted(tree: Path, plants: Sequence[Plant]) -> Planted:
    """Plant all, and run their command once: every plant has to be named."""
    for plant in plants:
        with (tree / plant.file).open("a") as file:
            file.write(plant.text)
    return Planted(tree, *run(tree, plants[0].command))


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return run_planted(copy_tree(tmp_path_factory.mktemp("own")), OWN_RULES)


@pytest.fixture(scope="module")
def lint(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return run_planted(copy_tree(tmp_path_factory.mktemp("lint")), LINT_RULES)


@pytest.fixture(scope="module")
def imports(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return run_planted(copy_tree(tmp_path_factory.mktemp("imports")), IMPORT_RULES)


def assert_found(planted: Planted, plant: Plant) -> None:
    """The exit code is 1, and one finding names file and line, what is wrong and what to do."""
    assert planted.code == 1, planted.output
    place = f"{plant.file}:{planted.line_of(plant)}:"
    found = [text for text in planted.output.splitlines() if text.startswith(place) and plant.tells[0] in text]
    assert len(found) == 1, planted.output
    assert all(what in found[0] for what in plant.tells), found


@pytest.mark.parametrize("command", [OWN, LINT, IMPORTS], ids=["own", "lint", "imports"])
def test_the_tree_as_it_is_breaks_no_rule(tree: Path, command: Sequence[str]) -> None:
    code, output = run(tree, command)
    assert code == 0, output


@pytest.mark.parametrize("plant", OWN_RULES, ids=lambda plant: plant.rule)
def test_our_own_rules_find_a_plant_at_its_line(own: Planted, plant: Plant) -> None:
    assert_found(own, plant)


@pytest.mark.parametrize("plant", LINT_RULES, ids=lambda plant: plant.rule)
def test_the_linter_finds_a_plant_at_its_line(lint: Planted, plant: Plant) -> None:
    assert_found(lint, plant)


@pytest.mark.parametrize("plant", IMPORT_RULES, ids=lambda plant: plant.rule)
def test_import_rules_find_a_plant_at_its_line(imports: Planted, plant: Plant) -> None:
    text = " ".join(imports.output.split())
    contract, chain = plant.tells
    assert imports.code == 1, imports.output
    assert f"{contract} BROKEN" in text, imports.output
    assert f"{chain} (l.{imports.line_of(plant)}" in text, imports.output


def test_a_class_without_purpose_retention_and_recipients_is_found(tmp_path: Path) -> None:
    planted = run_planted(copy_tree(tmp_path), [POLICY_RULE])
    assert_found(planted, POLICY_RULE)
    for part in ("retention", "recipients"):
        assert f"classes.gossip.{part}: is missing" in planted.output


def test_one_more_third_party_passes_every_check_without_a_change_of_ours(tmp_path: Path) -> None:
    """It is what docs/storefront.md says: four files. The first one needed an exception in pyproject.toml."""
    tree = copy_tree(tmp_path)
    for folder in ("tests/bench", "tests/demo", ".mypy_cache"):
        if (ROOT / folder).exists():
            shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(tree / "tests/support/reviews", tree / "tests/support/ratings")
    for file in (tree / "tests/support/ratings").rglob("*.*"):
        text = file.read_text()
        for old, new in (("review", "rating"), ("Review", "Rating"), ("REVIEW", "RATING")):
            text = text.replace(old, new)
        file.write_text(text)
    code, output = run(tree, ["make", "--old-file=.venv/ready", f"PY={sys.executable}", "check"])
    assert code == 0, output


def test_make_check_runs_every_check_and_fails_if_one_does(tmp_path: Path) -> None:
    tree = copy_tree(tmp_path)
    (tree / OWN_RULES[0].file).write_text(OWN_RULES[0].text)
    if (ROOT / ".mypy_cache").exists():  # only to be quick
        shutil.copytree(ROOT / ".mypy_cache", tree / ".mypy_cache")
    # The environment at hand instead of one more for the copy.
    code, output = run(tree, ["make", "--old-file=.venv/ready", f"PY={sys.executable}", "check"])
    assert code != 0
    for step in ("format", "lint", "imports", "our own rules", "schemas", "asyncapi", "types"):
        assert f"check: {step} " in output
    assert f"{OWN_RULES[0].file}:5: Planted.note" in output
    assert "check: our own rules failed" in output
    assert "Planted: the schema is not current" in output
    assert "What to do: make format" in output
