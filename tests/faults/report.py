"""The report on a run: what happened to each fault, as JSON and as a page. Pure but for `write`."""

import html
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

Verdict = Literal["held", "broken", "absent"]
WORST: tuple[Verdict, ...] = ("absent", "held", "broken")
NOT_SELECTED = "not a part of this run"
NEVER_FIRED = "never fired in a test that is marked as one of a fault"
NO_TEST = "no test shows it, and tests/faults/rows.py does not say why"


@dataclass(frozen=True, slots=True)
class Entry:
    """One fault of one row. `times_fired`: how often it struck; `seconds`: what its tests took, start-up included."""

    row: int
    fault: str
    times_fired: int
    verdict: Verdict
    reason: str
    seconds: float


@dataclass(slots=True)
class Case:
    """One test as it went, for one fault that it is marked with. `outcome`: passed, failed, skipped or unselected.

    `fired`: how often what struck, as `name@hit` for a fault point.
    """

    row: int
    fault: str
    test: str
    outcome: str = "unselected"
    words: str = ""
    seconds: float = 0.0
    fired: Counter[str] = field(default_factory=Counter)

    @property
    def times_fired(self) -> int:
        """By its record; a test that plants its fault by hand and keeps none counts as one."""
        return self.fired.total() or (self.outcome in ("passed", "failed"))


def judge(
    cases: Sequence[Case],
    rows: Iterable[int],
    absent: Mapping[tuple[int, str], str],
    points: Iterable[str],
    *,
    whole: bool,
) -> list[Entry]:
    """An entry for each fault, each point, and each row that nobody shows. `whole`: all marked tests were selected."""
    by_fault: dict[tuple[int, str], list[Case]] = {}
    for case in cases:
        by_fault.setdefault((case.row, case.fault), []).append(case)
    entries = [_of_fault(mine) for mine in by_fault.values()]
    entries += [Entry(row, fault, 0, "absent", reason, 0.0) for (row, fault), reason in absent.items()]
    shown = {entry.row for entry in entries}
    verdict, reason = ("broken", NO_TEST) if whole else ("absent", NOT_SELECTED)
    entries += [Entry(row, "all of the row", 0, verdict, reason, 0.0) for row in rows if row not in shown]
    entries += [_of_point(point, cases, whole) for point in points]
    return sorted(entries, key=lambda entry: (entry.row, entry.fault))


def _of_fault(cases: Sequence[Case]) -> Entry:
    """All tests of one fault: one that failed breaks it; one that did not run leaves it to the others."""
    first = cases[0]
    fired, seconds = sum(case.times_fired for case in cases), round(sum(case.seconds for case in cases), 1)
    broken = [case for case in cases if case.outcome == "failed"]
    held = [case for case in cases if case.outcome == "passed"]
    skipped = [case for case in cases if case.outcome == "skipped"]
    if broken:
        reason = f"{broken[0].test}: {broken[0].words}"
        return Entry(first.row, first.fault, fired, "broken", reason, seconds)
    if held:
        return Entry(first.row, first.fault, fired, "held", ", ".join(_names(held)), seconds)
    reason = skipped[0].words if skipped else NOT_SELECTED
    return Entry(first.row, first.fault, 0, "absent", reason, seconds)


def _names(cases: Sequence[Case]) -> list[str]:
    """The tests, without their parameters."""
    return list(dict.fromkeys(case.test.partition("[")[0] for case in cases))


def _of_point(point: str, cases: Sequence[Case], whole: bool) -> Entry:
    """A registered point, as a fault of row 1. A test that stands for several faults is asked once."""
    mine = {case.test: case for case in cases if _hits(case, point)}
    times = sum((_hits(case, point) for case in mine.values()), Counter[str]())
    fired, fault = times.total(), f"point {point}"
    seconds = round(sum(case.seconds for case in mine.values()), 1)
    failed = [case for case in mine.values() if case.outcome == "failed"]
    if failed:
        return Entry(1, fault, fired, "broken", f"{failed[0].test}: {failed[0].words}", seconds)
    if mine:
        hits = sorted(hit for hit in times if hit)
        at = f"at hit {', '.join(hits)}: " if hits else ""
        return Entry(1, fault, fired, "held", at + ", ".join(_names(list(mine.values()))), seconds)
    return Entry(1, fault, 0, "broken" if whole else "absent", NEVER_FIRED if whole else NOT_SELECTED, 0.0)


def _hits(case: Case, point: str) -> Counter[str]:
    """How often the point struck in this test, by the number of the hit; "" where the record does not say."""
    found = Counter[str]()
    for name, times in case.fired.items():
        of_point, _, hit = name.partition("@")
        if of_point == point:
            found[hit] += times
    return found


def merge(runs: Sequence[Sequence[Entry]]) -> list[Entry]:
    """Several runs as one: counts and seconds add up, the worst verdict stands, with its first reason."""
    merged: dict[tuple[int, str], Entry] = {}
    for entry in (entry for run in runs for entry in run):
        known = merged.get((entry.row, entry.fault))
        if known is None:
            merged[entry.row, entry.fault] = entry
            continue
        worst = max(known, entry, key=lambda each: WORST.index(each.verdict))
        fired, seconds = known.times_fired + entry.times_fired, round(known.seconds + entry.seconds, 1)
        merged[entry.row, entry.fault] = Entry(entry.row, entry.fault, fired, worst.verdict, worst.reason, seconds)
    return sorted(merged.values(), key=lambda entry: (entry.row, entry.fault))


def read(path: Path) -> list[Entry]:
    """What `write` wrote. Raises `OSError` and `ValueError`."""
    return [Entry(**entry) for entry in json.loads(path.read_text())]


def write(entries: Sequence[Entry], path: Path, heading: str, rows: Mapping[int, str]) -> None:
    """The list as JSON in `path`, and as a page beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(entry) for entry in entries], indent=1) + "\n")
    path.with_suffix(".html").write_text(page(entries, heading, rows))


def summary(entries: Sequence[Entry]) -> str:
    """Counts in a line."""
    count = Counter(entry.verdict for entry in entries)
    fired = sum(entry.times_fired for entry in entries)
    return f"{count['held']} held, {count['broken']} broken, {count['absent']} absent; fired {fired} times"


def page(entries: Sequence[Entry], heading: str, rows: Mapping[int, str]) -> str:
    """The report for people: a table for each row. No script, nothing from elsewhere."""
    parts = [_HEAD, f"<h1>Faults</h1><p>{html.escape(heading)}</p><p>{html.escape(summary(entries))}</p>"]
    for row, name in rows.items():
        parts.append(f'<h2 id="row-{row}">{row}. {html.escape(name)}</h2>{_TABLE}')
        parts += [_line(entry) for entry in entries if entry.row == row]
        parts.append("</table>")
    return "\n".join(parts) + "\n"


def _line(entry: Entry) -> str:
    return (
        f'<tr class="{entry.verdict}"><td>{html.escape(entry.fault)}</td><td>{entry.verdict}</td>'
        f"<td>{entry.times_fired}</td><td>{entry.seconds}</td><td>{html.escape(entry.reason)}</td></tr>"
    )


_TABLE = (
    "<table><tr><th>fault</th><th>verdict</th><th>times fired</th><th>seconds</th><th>shown by, or why not</th></tr>"
)
_HEAD = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Faults</title><style>
body { font: 15px/1.4 sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em }
table { border-collapse: collapse; width: 100% } h2 { font-size: 1.1em; margin-top: 2em }
th, td { border-bottom: 1px solid #ccc; padding: .3em .6em; text-align: left; vertical-align: top }
td:nth-child(3), td:nth-child(4) { text-align: right } td:last-child { overflow-wrap: anywhere; color: #444 }
.held td:nth-child(2) { color: #060 } .broken { background: #fdd } .absent td { color: #777 }
</style>"""
