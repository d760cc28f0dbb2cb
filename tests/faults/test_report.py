"""The harness itself can say no: what is missing, has failed or never fired turns a whole run red."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from servicekit.core import faults
from tests.faults.plugin import OVER
from tests.faults.report import NEVER_FIRED, NO_TEST, NOT_SELECTED, Case, Entry, judge, merge, page
from tests.faults.rows import ABSENT, ROWS
from tests.faults.selftest import ATTACKS, INVARIANTS

ROOT = Path(__file__).resolve().parents[2]


def case(
    outcome: str, fault: str = "it dies", fired: tuple[str, ...] = (), row: int = 1, test: str = "t.py::a"
) -> Case:
    return Case(row, fault, test, outcome, "some words", 1.0, Counter(fired))


def verdicts(*cases: Case, whole: bool = True, points: tuple[str, ...] = ()) -> dict[str, str]:
    return {entry.fault: entry.verdict for entry in judge(cases, [1], {}, points, whole=whole)}


def test_a_fault_holds_when_its_tests_pass_and_breaks_when_one_fails() -> None:
    assert verdicts(case("passed"), case("passed")) == {"it dies": "held"}
    assert verdicts(case("passed"), case("failed"), case("skipped")) == {"it dies": "broken"}
    assert verdicts(case("passed"), case("skipped")) == {"it dies": "held"}


def test_what_did_not_run_is_absent_with_its_reason() -> None:
    entries = judge([case("skipped"), case("unselected", "else")], [1], {}, (), whole=False)
    by_fault = {entry.fault: entry for entry in entries}
    assert by_fault["it dies"] == Entry(1, "it dies", 0, "absent", "some words", 1.0)
    assert (by_fault["else"].verdict, by_fault["else"].reason) == ("absent", NOT_SELECTED)


def test_a_row_without_a_test_and_without_a_reason_is_broken() -> None:
    (shown,) = judge([case("passed")], [1], {}, (), whole=True)
    assert shown.verdict == "held"
    (missing,) = judge([], [2], {}, (), whole=True)
    assert (missing.row, missing.verdict, missing.reason) == (2, "broken", NO_TEST)
    (unselected,) = judge([], [2], {}, (), whole=False)
    assert (unselected.verdict, unselected.reason) == ("absent", NOT_SELECTED)
    (reasoned,) = judge([], [2], {(2, "webhooks"): "there are none"}, (), whole=True)
    assert (reasoned.verdict, reasoned.reason) == ("absent", "there are none")


def test_a_point_that_never_fired_breaks_a_whole_run_and_no_part_of_one() -> None:
    fired = case("passed", fired=("a.b", "a.b"))
    whole = {entry.fault: entry for entry in judge([fired], [1], {}, ("a.b", "c.d"), whole=True)}
    assert (whole["point a.b"].verdict, whole["point a.b"].times_fired) == ("held", 2)
    assert (whole["point c.d"].verdict, whole["point c.d"].reason) == ("broken", NEVER_FIRED)
    assert verdicts(fired, whole=False, points=("c.d",))["point c.d"] == "absent"


def test_times_fired_are_those_of_the_record_and_each_test_counts_once_for_a_point() -> None:
    both = [case("passed", "one", ("a.b",) * 3), case("passed", "other", ("a.b",) * 3), case("passed", "by hand")]
    fired = {entry.fault: entry.times_fired for entry in judge(both, [1], {}, ("a.b",), whole=True)}
    assert fired == {"one": 3, "other": 3, "by hand": 1, "point a.b": 3}


def test_a_point_says_at_which_hits_it_struck() -> None:
    (entry,) = judge(
        [case("passed", "one", ("a.b@1", "a.b@2", "a.b@1", "c.d@3"), row=2)], [2], {}, ("a.b",), whole=True
    )[:1]
    assert (entry.fault, entry.times_fired, entry.reason) == ("point a.b", 3, "at hit 1, 2: t.py::a")


def test_rounds_add_up_and_the_worst_verdict_stands() -> None:
    first = [Entry(1, "a", 2, "held", "t", 1.0), Entry(2, "b", 0, "absent", "none", 0.0)]
    second = [Entry(1, "a", 3, "broken", "why", 2.0), Entry(2, "b", 1, "held", "t", 1.0)]
    assert merge([first, second]) == [Entry(1, "a", 5, "broken", "why", 3.0), Entry(2, "b", 1, "held", "t", 1.0)]


def test_the_page_escapes_what_it_shows_and_has_every_row() -> None:
    shown = page([Entry(1, "<b>", 1, "held", "a & b", 0.5)], "Seed 1.", ROWS)
    assert "<td>&lt;b&gt;</td>" in shown
    assert "a &amp; b" in shown
    assert [f'id="row-{row}"' in shown for row in ROWS] == [True] * len(ROWS)


def test_rows_are_those_of_the_design_and_absent_ones_say_why() -> None:
    assert list(ROWS) == sorted(ROWS)
    assert set(range(1, 29)) <= set(ROWS) <= set(range(1, 41))
    assert all(row in ROWS and len(reason) > 20 for (row, _), reason in ABSENT.items())


def test_every_invariant_has_a_patch_of_its_own() -> None:
    patches = [*INVARIANTS.values(), *ATTACKS.values()]
    assert len(set(patches)) == len(patches)
    assert [name for name in patches if not (ROOT / "tests" / "defects" / f"{name}.patch").exists()] == []


def test_a_fault_leaves_its_line_before_it_strikes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAULTS_RECORD", str(tmp_path))
    faults.arm(faults.parse("a.b=error@2"))
    try:
        faults.faultpoint("a.b")
        assert not (tmp_path / faults.RECORD).exists()
        with pytest.raises(faults.InjectedFault):
            faults.faultpoint("a.b")
    finally:
        faults.arm({})
    assert (tmp_path / faults.RECORD).read_text() == "a.b error 2\n"


PROJECT = """
import os, signal, subprocess, sys
import pytest
from servicekit.core import faults

@pytest.mark.fault(3, "a process dies")
def test_dies():
    program = "from servicekit.core.faults import faultpoint as f; f('order.sealed')"
    done = subprocess.run([sys.executable, "-c", program], env={**os.environ, "FAULTPOINTS": "order.sealed=kill@1"})
    assert done.returncode == -signal.SIGKILL

@pytest.mark.fault(4, "an assertion fails")
def test_fails():
    assert "this" == "that"

@pytest.mark.fault(5, "a machine that cannot")
def test_skips():
    pytest.skip("not on this machine")

@pytest.mark.long
@pytest.mark.fault(3, "a process dies for long")
def test_long():
    pass

def test_unmarked():
    pass
"""


@pytest.fixture(scope="module", params=[(), ("-n", "2")], ids=["one-process", "two-workers"])
def finished(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[int, dict[tuple[int, str], dict[str, object]], str]:
    return run_project(tmp_path_factory.mktemp("project"), request.param)


def run_project(
    folder: Path, options: tuple[str, ...], **more: str
) -> tuple[int, dict[tuple[int, str], dict[str, object]], str]:
    """The exit code, the report and the output of a run over a project of five tests, all of which are selected."""
    (folder / "test_it.py").write_text(PROJECT)
    (folder / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "FAULTS_SEED": "77", **more}
    environment.pop("FAULTS_RECORD", None)
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # the others take longer to load than the project to run
    command = [
        sys.executable,
        "-m",
        "pytest",
        *("-p", "tests.faults.plugin", "-p", "xdist.plugin", "-p", "pytest_asyncio.plugin"),
        "--faults-report=out/faults.json",
        *options,
    ]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    told = json.loads((folder / "out" / "faults.json").read_text())
    assert "<h1>Faults</h1>" in (folder / "out" / "faults.html").read_text()
    return done.returncode, {(entry["row"], entry["fault"]): entry for entry in told}, done.stdout


def test_a_run_says_what_held_what_broke_and_what_was_absent(finished: tuple[int, dict, str]) -> None:  # type: ignore[type-arg]
    code, entries, output = finished
    assert code == 1
    assert "FAULTS_SEED=77" in output
    assert set(entries[3, "a process dies"]) == {"row", "fault", "times_fired", "verdict", "reason", "seconds"}
    assert (entries[3, "a process dies"]["verdict"], entries[3, "a process dies"]["times_fired"]) == ("held", 1)
    assert entries[4, "an assertion fails"]["verdict"] == "broken"
    assert "'this' == 'that'" in str(entries[4, "an assertion fails"]["reason"])
    assert (entries[5, "a machine that cannot"]["verdict"], entries[5, "a machine that cannot"]["reason"]) == (
        "absent",
        "Skipped: not on this machine",
    )


def test_a_whole_run_finds_the_points_that_never_fired_and_the_rows_that_nobody_shows(
    finished: tuple[int, dict, str],  # type: ignore[type-arg]
) -> None:
    _, entries, output = finished
    assert entries[1, "point order.sealed"]["verdict"] == "held"
    assert entries[1, "point relay.marked"]["reason"] == NEVER_FIRED
    assert entries[6, "all of the row"]["reason"] == NO_TEST
    assert f"row 1: point relay.marked: {NEVER_FIRED}" in output


def test_a_run_without_the_long_tests_is_whole_and_names_their_faults(tmp_path: Path) -> None:
    _, entries, _ = run_project(tmp_path, ("-m", "not long", "-n", "2"))
    assert entries[3, "a process dies for long"]["verdict"] == "absent"
    assert entries[1, "point relay.marked"]["reason"] == NEVER_FIRED
    assert entries[6, "all of the row"]["reason"] == NO_TEST


def test_after_its_time_a_run_begins_no_fault_and_says_which_it_left_out(tmp_path: Path) -> None:
    code, entries, output = run_project(tmp_path, ("-n", "2"), FAULTS_UNTIL="1")
    assert code == 0
    assert "1 passed, 4 skipped" in output
    for left_out in ((3, "a process dies"), (4, "an assertion fails"), (5, "a machine that cannot")):
        assert (entries[left_out]["verdict"], entries[left_out]["reason"]) == ("absent", f"Skipped: {OVER}")
    assert entries[1, "point order.sealed"]["verdict"] == "absent"
