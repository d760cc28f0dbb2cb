"""A pytest plugin: a table of the attacks that were tried, when `--attack-report` names its file.

`@pytest.mark.attack("what is tried", expected="what must be seen")` marks a test as an attempt of a stranger or a thief. The
fixture `seen` takes what the test saw. Tests with the same attempt are one line of the table.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

DEFAULT_REPORT = ".local/attack.md"
SEEN = "attack_seen"
# A line of the table shows so many different things that were seen.
MOST_SHOWN = 4
WORDS = 120


@pytest.fixture
def seen(record_property: Callable[[str, object], None]) -> Callable[[object], None]:
    """Takes what an attack saw, such as a status code or the name of an error. It may be called several times."""
    return lambda what: record_property(SEEN, str(what))


@dataclass(slots=True)
class Line:
    """One attempt: its tests, how often each thing was seen, and the words of the tests that failed."""

    attempt: str
    expected: str
    tests: list[str] = field(default_factory=list)
    seen: dict[str, int] = field(default_factory=dict)
    held: int = 0
    failed: list[str] = field(default_factory=list)

    @property
    def shown(self) -> str:
        if self.failed:
            return f"**FAILED**: {self.failed[0]}"
        if not self.seen:
            return f"held, {self.held} tests" if self.held > 1 else "held" if self.held else "not run"
        parts = [f"{what} ({count}x)" if count > 1 else what for what, count in self.seen.items()]
        more = f", and {len(parts) - MOST_SHOWN} others" if len(parts) > MOST_SHOWN else ""
        return ", ".join(parts[:MOST_SHOWN]) + more


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--attack-report",
        nargs="?",
        const=DEFAULT_REPORT,
        metavar="FILE",
        help=f"write the table of attacks to FILE ({DEFAULT_REPORT}) and print it",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "attack(attempt, expected): shows what a stranger or a thief gets")
    if config.getoption("attack_report"):
        config.pluginmanager.register(Attacks(config), "attack-report")


class Attacks:
    """One run. With workers (pytest-xdist) every process knows the tests, and the controller gets all reports."""

    def __init__(self, config: pytest.Config) -> None:
        self._file = config.rootpath / config.getoption("attack_report")
        self._lines: dict[tuple[str, str], Line] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> None:
        marks = [mark_of(mark) for mark in item.iter_markers("attack")]
        item.user_properties.extend(("attack", mark) for mark in marks)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # The teardown's report has all properties of the test; a failure stands in the report of its own phase.
        for name, value in report.user_properties:
            if name != "attack":
                continue
            attempt, expected = value
            line = self._lines.setdefault((attempt, expected), Line(attempt, expected))
            if report.failed:
                line.failed.append(_last_line(report.longreprtext))
            if report.when == "call" and report.passed:
                line.held += 1
            if report.when == "teardown":
                line.tests.append(report.nodeid)
                for what in (str(each) for key, each in report.user_properties if key == SEEN):
                    line.seen[what] = line.seen.get(what, 0) + 1

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if not self._lines:
            return
        lines = sorted(self._lines.values(), key=lambda line: line.attempt)
        self._file.parent.mkdir(exist_ok=True)
        self._file.write_text(table(lines))
        terminalreporter.section("attacks")
        terminalreporter.line(table(lines))
        failed = sum(bool(line.failed) for line in lines)
        terminalreporter.line(f"{len(lines)} attempts, {failed} succeeded or failed to run: {self._file}")


def mark_of(mark: pytest.Mark) -> tuple[str, str]:
    """(attempt, expected). Raises `pytest.UsageError` when the marker lacks one of them."""
    given = [*mark.args, *mark.kwargs.values()]
    if len(given) != 2 or not all(isinstance(each, str) and each for each in given):
        raise pytest.UsageError('attack takes two texts: attack("what is tried", expected="what must be seen")')
    return given[0], given[1]


def table(lines: Sequence[Line]) -> str:
    """The table as Markdown."""
    rows = [f"| {_cell(line.attempt)} | {_cell(line.expected)} | {_cell(line.shown)} |" for line in lines]
    return "\n".join(["| attempt | expected | seen |", "|---|---|---|", *rows]) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _last_line(text: str) -> str:
    said = [line.removeprefix("E").strip() for line in text.splitlines() if line.startswith("E ")]
    return (said or text.splitlines() or [""])[0][:WORDS]
