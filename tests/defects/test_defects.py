"""docs/proofs.md, 11: for every law a planted defect, which the test that it names must see. And the judge itself can say no."""

from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path

import pytest

from tests.defects.run import CAUGHT, ROOT, Defect, apply, copy_tree, judging, read_all, read_defect

DEFECTS = read_all()
LAWS = {"L1", "L2", "L3", "L4", "L5", "L6", "L7", "L8", "L9", "L10", "L11", "L12", "L13"}
TOKEN = "shared/servicekit/src/servicekit/vault/token.py"
TWO_KEYS = "tests/contract/test_token_vectors.py::test_a_ciphertext_that_opens_under_two_keys_is_refused"
REFUSED = "tests/unit/test_token.py::test_a_token_under_another_key_is_refused"


@pytest.fixture(scope="module")
def verdicts(request: pytest.FixtureRequest) -> Iterator[Mapping[Defect, "Future[str]"]]:
    """On the defects that were selected. What this session runs itself need not pass on the tree as it is once more."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    marks = (item.callspec.params.get("defect") for item in items if hasattr(item, "callspec"))
    chosen = [defect for defect in marks if isinstance(defect, Defect)]
    ids = {item.nodeid for item in items}
    with judging(chosen, frozenset(ids | {each.partition("[")[0] for each in ids})) as verdicts:
        yield verdicts


def one_per_law() -> Iterator[object]:
    """All defects; `make test` tries the first of each law, `make test-long` and `make defects` the others too."""
    known = set[str]()
    for defect in DEFECTS:
        marks = [pytest.mark.long] if defect.law in known else []
        known.add(defect.law)
        yield pytest.param(defect, marks=marks, id=defect.name)


@pytest.mark.parametrize("defect", list(one_per_law()))
def test_the_named_test_sees_the_defect(verdicts: Mapping[Defect, "Future[str]"], defect: Defect) -> None:
    assert verdicts[defect].result() == CAUGHT, defect.what


def test_every_law_that_stands_has_a_defect() -> None:
    assert {defect.law for defect in DEFECTS} == LAWS


def test_every_patch_applies_and_names_a_test_that_exists(tmp_path: Path) -> None:
    tree = copy_tree(tmp_path / "tree")
    refused = {defect.name: reason for defect in DEFECTS if (reason := apply(tree, defect, check=True))}
    assert refused == {}
    named = {defect.name: defect.test.partition("[")[0].split("::") for defect in DEFECTS}
    assert [name for name, (path, test) in named.items() if f"def {test}(" not in (ROOT / path).read_text()] == []


def planted(folder: Path, name: str, old: str, new: str, test: str = REFUSED) -> Defect:
    """A patch of one line of token.py, wherever that line is, whose assertion is said to speak of a carrot."""
    lines = (ROOT / TOKEN).read_text().splitlines()
    place = lines.index(old) + 1
    before, after = lines[place - 2], lines[place]
    head = f"Law: L7\nDefect: {name}\nTest: {test}\nSays: a carrot\n\n--- a/{TOKEN}\n+++ b/{TOKEN}\n"
    patch = folder / f"{name}.patch"
    patch.write_text(f"{head}@@ -{place - 1},3 +{place - 1},3 @@\n {before}\n-{old}\n+{new}\n {after}\n")
    return read_defect(patch)


def test_what_proves_nothing_is_not_called_caught(tmp_path: Path) -> None:
    line, check = "KEY_BYTES: Final = 32", "    if not hmac.compare_digest(token[_COMMITMENT], key.commitment):"
    cases = {
        planted(tmp_path, "harmless", line, f"{line}  # bytes"): "the test passes",
        planted(tmp_path, "breaks-the-import", line, "KEY_BYTES: Final = thirty_two"): "the test could not run",
        planted(
            tmp_path, "crashes", check, "    if key.carrot:"
        ): "the test fails by something else than its assertion",
        planted(tmp_path, "other-words", check, "    if not token:", TWO_KEYS): "the assertion says something else",
        (stale := planted(tmp_path, "stale", line, "KEY_BYTES: Final = 16")): "the patch does not apply",
    }
    stale.patch.write_text(stale.patch.read_text().replace(f"-{line}", "-KEY_BYTES: Final = 64"))
    with judging(list(cases)) as verdicts:
        found = {defect.name: verdict.result() for defect, verdict in verdicts.items()}
    for defect, expected in cases.items():
        assert found[defect.name].startswith(expected), (defect.name, found[defect.name])
