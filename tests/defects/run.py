"""docs/proofs.md, 11: a check that cannot fail proves nothing. Each patch here breaks one law in a copy of the tree.

The test that the patch names must then fail, by an assertion of its own; without the patch it must pass. The lines before
the diff say what is broken:

    Law: L4
    Defect: what goes wrong, in a sentence
    Test: tests/…/test_….py::test_…          (a pytest node id)
    Says: a part of what the assertion prints

    python -m tests.defects.run [word …]     all defects, or those with one of the words in their file's name
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.infra import new_postgres

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
CAUGHT = "caught"
# A test that hangs ends by itself; a process is given what its tests take on a busy machine, many times over.
TEST_SECONDS, START_SECONDS, BUSY_TEST_SECONDS = 60, 120, 10
AT_ONCE = 2
# What a test's own assertion raises; of pytest's `Failed` only what `pytest.raises` says, not a time-out or `pytest.fail`.
DID_NOT_RAISE = "Failed: DID NOT RAISE"


@dataclass(frozen=True, slots=True)
class Defect:
    """A patch, the law that it breaks, and the test that must notice, with a part of its words."""

    patch: Path
    law: str
    what: str
    test: str
    says: str

    @property
    def name(self) -> str:
        return self.patch.stem


@dataclass(frozen=True, slots=True)
class Run:
    """What one pytest process reported: how each test ended, modules that were not the copy's own, its output."""

    endings: Mapping[str, Mapping[str, Any]]
    foreign: Sequence[str]
    output: str

    def of(self, test: str) -> list[Mapping[str, Any]]:
        """How the test ended, for each of its parameters if the node id names none."""
        return [ending for node, ending in self.endings.items() if node == test or node.startswith(f"{test}[")]


def read_defect(patch: Path) -> Defect:
    """Raises `ValueError` when a line of the head is missing."""
    head = patch.read_text().partition("\n--- ")[0].splitlines()
    said = {key: value.strip() for key, _, value in (line.partition(":") for line in head)}
    try:
        return Defect(patch, said["Law"], said["Defect"], said["Test"], said["Says"])
    except KeyError as error:
        raise ValueError(f"{patch.name}: the head lacks the line {error}: see tests/defects/run.py") from None


def read_all(words: Sequence[str] = ()) -> list[Defect]:
    """All defects, or those with one of the words in their name, in the order of the laws."""
    defects = [read_defect(patch) for patch in HERE.glob("*.patch")]
    wanted = [each for each in defects if not words or any(word in each.name for word in words)]
    return sorted(wanted, key=lambda each: (int(each.law[1:]), each.name))


class Bench:
    """An unharmed copy of the tree in `folder / "tree"`, how all named tests end there, and a PostgreSQL for them."""

    def __init__(self, folder: Path, postgres_dsn: str, defects: Sequence[Defect], seen: frozenset[str]) -> None:
        """Runs the named tests on the unharmed copy, all in one process, but for those whose end is `seen` elsewhere.

        Raises `ValueError` if one does not exist.
        """
        self._folder = folder
        self._dsn = postgres_dsn
        self._seen = seen
        self.tree = copy_tree(folder / "tree")
        unseen = sorted({defect.test for defect in defects} - seen)
        self.unharmed = self._run(self.tree, unseen) if unseen else Run({}, (), "")
        if unseen and not self.unharmed.endings:
            raise ValueError(f"The named tests cannot run on the tree as it is:\n{self.unharmed.output}")

    def verdict(self, defect: Defect) -> str:
        """`CAUGHT`, or in a sentence why not."""
        if defect.test not in self._seen and (reason := self._fails_unharmed(defect)):
            return reason
        harmed = self._folder / defect.name
        shutil.copytree(self.tree, harmed)
        try:
            return apply(harmed, defect) or judge(defect, self._run(harmed, [defect.test]))
        finally:
            shutil.rmtree(harmed)

    def _fails_unharmed(self, defect: Defect) -> str | None:
        """Why the test says nothing about the defect, or None."""
        before = self.unharmed.of(defect.test)
        if not before:
            return f"the test did not run on the tree as it is:\n{self.unharmed.output}"
        if self.unharmed.foreign:
            return f"not the copy's own code was tested: {', '.join(self.unharmed.foreign)}"
        if any(ending["outcome"] != "passed" for ending in before):
            return f"the test fails without the defect: {before}"
        return None

    def _run(self, tree: Path, tests: Sequence[str]) -> Run:
        """One pytest process for these tests, in which the copy's own sources come before the installed ones."""
        report = self._folder / f"{tree.name}.json"
        sources = [str(path) for path in (*tree.glob("*/*/src"), tree)]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sources),
            "POSTGRES_DSN": self._dsn,
            "TEST_INFRA": "embedded",
            "DEFECT_REPORT": str(report),
            # Those of the environment that no test needs cost a second each time.
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        }
        named = ("tests.defects.witness", "pytest_asyncio.plugin", "pytest_timeout", "no:cacheprovider")
        plugins = [word for name in named for word in ("-p", name)]
        options = ["-q", f"--timeout={TEST_SECONDS}", f"--basetemp={self._folder / tree.name}.tmp"]
        command = [sys.executable, "-m", "pytest", *plugins, *options, *tests]
        output = run_group(command, tree, environment, START_SECONDS + BUSY_TEST_SECONDS * len(tests))
        if not report.exists():
            return Run({}, (), output)
        return Run(**json.loads(report.read_text()), output=output)


def apply(tree: Path, defect: Defect, *, check: bool = False) -> str | None:
    """Why the patch does not apply to the tree, or None; with `check` the tree stays as it is."""
    command = ["git", "apply", "--whitespace=nowarn", *(["--check"] if check else []), str(defect.patch)]
    # Outside of a repository, or git would look at the paths from the top of the one around.
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(tree.parent)}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    return f"the patch does not apply any more: {done.stderr.strip()}" if done.returncode else None


def run_group(command: Sequence[str], folder: Path, environment: Mapping[str, str], seconds: float) -> str:
    """The output of a process, whose whole group is killed when it takes longer or leaves somebody behind."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            output.write(f"\nended after {seconds:.0f} s")
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        return output.read()[-3000:]


def judge(defect: Defect, run: Run) -> str:
    """`CAUGHT` if the test failed by its own assertion with the words that the patch names, and by nothing else."""
    failed = [ending for ending in run.of(defect.test) if ending["outcome"] != "passed"]
    if not run.endings:
        return f"the test could not run:\n{run.output}"
    if run.foreign:
        return f"not the copy's own code was tested: {', '.join(run.foreign)}"
    if not failed:
        return "the test passes: it does not see the defect"
    for ending in failed:
        words = ending.get("words", "")
        if ending["phase"] != "call" or not (ending["kind"] == "AssertionError" or words.startswith(DID_NOT_RAISE)):
            return f"the test fails by something else than its assertion: {ending}"
        if not ending["in_test"]:
            return f"the assertion that fails is not the test's own: {words}"
    if not any(defect.says in ending["words"] for ending in failed):
        return f"the assertion says something else: {failed[0]['words']}"
    return CAUGHT


def copy_tree(copy: Path) -> Path:
    """What git tracks or would track, as it lies in the working tree now."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    return copy


@contextmanager
def judging(defects: Sequence[Defect], seen: frozenset[str] = frozenset()) -> Iterator[dict[Defect, "Future[str]"]]:
    """The verdicts on all defects, as they come; two are tried at once. Tests whose end on the tree as it is will be `seen`
    by others, by node id, are not run there first.
    """
    postgres = new_postgres()
    try:
        postgres.start()
        with tempfile.TemporaryDirectory(prefix="defects-") as folder:
            bench = Bench(Path(folder), postgres.admin_dsn, defects, seen)
            with ThreadPoolExecutor(AT_ONCE) as pool:
                yield {defect: pool.submit(bench.verdict, defect) for defect in defects}
                pool.shutdown(cancel_futures=True)
    finally:
        postgres.close()


def main(words: Sequence[str]) -> int:
    """Prints a line for each defect; 1 if one of them was not caught."""
    defects = read_all(words)
    caught = 0
    print(f"{len(defects)} defects; first their tests on the tree as it is …", flush=True)
    with judging(defects) as verdicts:
        for defect, verdict in verdicts.items():
            caught += verdict.result() == CAUGHT
            print(f"\n{defect.law:4}{defect.name.partition('-')[2]}: {defect.what}")
            print(f"    {defect.test}\n    {verdict.result()}", flush=True)
    print(f"\n{caught} of {len(defects)} defects were caught by the test that each names.")
    return 0 if caught == len(defects) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
