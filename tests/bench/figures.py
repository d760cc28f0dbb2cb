"""What a benchmark says: figures with goals, as a table, as JSON and as a plot."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Figure:
    """One measured value. `goal` is the least (>= 0.5) or most (<= 300) as text, None for a figure without a goal.

    `value` is None when the benchmark failed; then `holds` is False and `note` says why. Without a goal `holds` is None.
    """

    name: str
    value: float | None
    unit: str
    goal: str | None = None
    note: str = ""

    @property
    def holds(self) -> bool | None:
        if self.goal is None:
            return None if self.value is not None else False
        if self.value is None:
            return False
        sign, limit = self.goal.split()
        return self.value >= float(limit) if sign == ">=" else self.value <= float(limit)


def write_json(figures: Sequence[Figure], file: Path) -> None:
    """A list of {name, value, unit, goal, holds, note}."""
    file.write_text(json.dumps([{**asdict(each), "holds": each.holds} for each in figures], indent=1) + "\n")


def print_table(figures: Sequence[Figure], console: Console) -> None:
    table = Table("figure", "value", "unit", "goal", "holds", "note", box=None, pad_edge=False)
    for each in figures:
        verdict = {True: "[green]yes[/green]", False: "[red]no[/red]", None: ""}[each.holds]
        value = "–" if each.value is None else f"{each.value:,.2f}"
        table.add_row(each.name, value, each.unit, each.goal or "", verdict, each.note)
    console.print(table)


def write_svg(figures: Sequence[Figure], file: Path) -> None:
    """How far each figure with a goal is from it: 1 is the goal, more is better; the scale ends at 4."""
    rows = [(each, _score(each)) for each in figures if each.goal is not None]
    height = 30 + 24 * len(rows)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="760" height="{height}" font-family="sans-serif" font-size="12">',
        f'<line x1="380" y1="20" x2="380" y2="{height - 6}" stroke="#888"/><text x="366" y="14">goal</text>',
    ]
    for place, (each, score) in enumerate(rows):
        y, width = 26 + 24 * place, max(1, 120 * min(score, 4))
        colour = "#2a7" if each.holds else "#c43"
        value = "failed" if each.value is None else f"{each.value:,.2f} {each.unit}"
        lines.append(f'<text x="4" y="{y + 12}">{escape(each.name)}</text>')
        lines.append(f'<rect x="260" y="{y}" width="{width:.0f}" height="16" fill="{colour}"/>')
        lines.append(f'<text x="{266 + width:.0f}" y="{y + 12}">{escape(value)} ({escape(each.goal or "")})</text>')
    file.write_text("\n".join([*lines, "</svg>", ""]))


def _score(figure: Figure) -> float:
    if figure.value is None or figure.goal is None:
        return 0.0
    sign, limit = figure.goal.split()
    return figure.value / float(limit) if sign == ">=" else float(limit) / max(figure.value, 1e-9)
