"""A pytest plugin: follows the tests that are marked with a fault, and writes the report when `--faults-report` names its file.

`@pytest.mark.fault(row, "what goes wrong")` says which fault a test stands for; it may be given several times. What struck while
the test ran is read from the record that fault points keep (`FAULTS_RECORD`, see `servicekit.core.faults`), also those of other
processes. When all marked tests were selected, a row without a test or a reason, and a point that never fired, fail the run.
Where the tests are split among workers (pytest-xdist), each follows its own and hands them to the one that writes the report.
After `FAULTS_UNTIL` (seconds since the epoch) no marked test begins: the report names those that did not.
"""

import os
import secrets
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from servicekit.core.faults import RECORD
from tests.faults.points import declared_points
from tests.faults.report import Case, Entry, judge, summary, write
from tests.faults.rows import ABSENT, ROWS

DEFAULT_REPORT = ".local/faults.json"
WORDS = 300
OVER = "the time was over before it began"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--faults-report",
        nargs="?",
        const=DEFAULT_REPORT,
        metavar="FILE",
        help=f"write the report on faults to FILE ({DEFAULT_REPORT}) and a page beside it",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "fault(row, what): stands for a fault of tests/faults/rows.py")
    config.addinivalue_line("markers", "long: runs in `make test-long` and not in `make test`")
    config.addinivalue_line("markers", "seeded: differs with FAULTS_SEED; `make faults-long` repeats it")
    if config.getoption("faults_report"):
        config.pluginmanager.register(Faults(config), "faults-report")


class Faults:
    """One run: its seed, its record, and what became of each marked test."""

    def __init__(self, config: pytest.Config) -> None:
        self._file = config.rootpath / config.getoption("faults_report")
        self.seed = os.environ.setdefault("FAULTS_SEED", str(secrets.randbits(32)))
        self._folder = Path(tempfile.mkdtemp(prefix="faults-"))
        self._record = self._folder / RECORD
        os.environ["FAULTS_RECORD"] = str(self._folder)
        self._until = float(os.environ.get("FAULTS_UNTIL", "inf"))
        self._read = 0
        self._cases: dict[str, list[Case]] = {}
        self._whole = config.args_source is not pytest.Config.ArgsSource.ARGS
        self._entries: list[Entry] = []

    def pytest_report_header(self) -> str:
        return f"faults: seed {self.seed}; replay with FAULTS_SEED={self.seed}"

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: Sequence[pytest.Item]) -> None:
        """Before anybody deselects."""
        for item in items:
            for mark in item.iter_markers("fault"):
                row, fault = mark.args
                if row not in ROWS:
                    raise pytest.UsageError(f"{item.nodeid}: there is no row {row} in tests/faults/rows.py")
                self._cases.setdefault(item.nodeid, []).append(Case(row, fault, item.nodeid))

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        """A run without the long tests is whole: its rows and points are asked of all others."""
        short = (item for item in items if item.get_closest_marker("long") is None)
        self._whole = self._whole and not any(item.nodeid in self._cases for item in short)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Before any fixture starts a server. What runs already comes to its own end."""
        if item.nodeid in self._cases and time.time() > self._until:
            self._whole = False
            pytest.skip(OVER)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        self._struck()
        result = yield
        struck = self._struck()
        for case in self._cases.get(item.nodeid, ()):
            case.fired += struck
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for case in self._cases.get(report.nodeid, ()):
            case.seconds += report.duration
            if report.failed and case.outcome != "failed":
                case.outcome, case.words = "failed", _last_line(report.longreprtext)
            elif report.skipped:
                case.outcome, case.words = "skipped", _skip_reason(report)
            elif report.when == "call" and report.passed:
                case.outcome = "passed"

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        output = getattr(session.config, "workeroutput", None)
        if output is not None:
            cases = (case for mine in self._cases.values() for case in mine)
            output["faults"] = [{**asdict(case), "fired": dict(case.fired)} for case in cases]
            output["faults_whole"] = self._whole
            return
        if session.config.option.collectonly or not self._cases:
            return
        whole = self._whole and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        cases = [case for mine in self._cases.values() for case in mine]
        self._entries = judge(cases, ROWS, ABSENT, declared_points(), whole=whole)
        write(self._entries, self._file, f"Seed {self.seed}{'' if whole else '; a part of the tests'}.", ROWS)
        if session.exitstatus == pytest.ExitCode.OK and any(entry.verdict == "broken" for entry in self._entries):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """A worker has ended. Each knows all tests and ran some; one that died says nothing, and fails the run by that."""
        output = getattr(node, "workeroutput", {})
        self._whole = self._whole and output.get("faults_whole", False)
        for case in (Case(**{**each, "fired": Counter(each["fired"])}) for each in output.get("faults", ())):
            mine = self._cases.setdefault(case.test, [])
            known = next((number for number, each in enumerate(mine) if each.fault == case.fault), None)
            if known is None:
                mine.append(case)
            elif case.outcome != "unselected":
                mine[known] = case

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._entries:
            return
        terminalreporter.section(f"faults, seed {self.seed}")
        for entry in self._entries:
            if entry.verdict == "broken":
                terminalreporter.line(f"row {entry.row}: {entry.fault}: {entry.reason}")
        terminalreporter.line(f"{summary(self._entries)}: {self._file}")

    def _struck(self) -> Counter[str]:
        """What was recorded since the last call."""
        if not self._record.exists():
            return Counter()
        with self._record.open() as file:
            file.seek(self._read)
            lines = file.read().splitlines()
            self._read = file.tell()
        return Counter(f"{name}@{hit}" for name, _, hit in (line.rsplit(maxsplit=2) for line in lines))


def _last_line(text: str) -> str:
    """Of the assertion that failed, its own words."""
    said = [line.removeprefix("E").strip() for line in text.splitlines() if line.startswith("E ")]
    return (said or text.splitlines() or [""])[0][:WORDS]


def _skip_reason(report: pytest.TestReport) -> str:
    return str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else report.longreprtext[:WORDS]
