"""What a benchmark says: figures with goals, as a table, as JSON and as a plot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from rich.console import Console
from rich.table import Table

# What the project has set itself: the least (>=) or the most (<=).
GOALS: Mapping[str, str] = {
    "gateway_vs_raw": ">= 0.5",
    "gateway_vs_faststream_single": ">= 10",
    "inventory_vs_upsert": ">= 0.5",
    "order_vs_plain": ">= 0.6",
    "erasure_p50_ms": "<= 300",
    "erasure_p99_ms": "<= 2000",
    "erasure_per_s": ">= 200",
    "erasure_vs_floor": ">= 0.5",
    "seal_vs_aws_esdk": ">= 10",
    "export_vs_copy": "<= 8",
    "growth_erasure": "<= 1.3",
    "growth_lookup": "<= 1.3",
    "growth_lease": "<= 1.3",
    "growth_relay": "<= 1.3",
    "growth_inbox": "<= 1.3",
    "erasure_disturbed": "<= 1.5",
}


@dataclass(frozen=True)
class Figure:
    """One measured value. `value` is None when its benchmark failed; then `holds` is False and `note` says why. A figure
    without a goal holds None."""

    name: str
    value: float | None
    unit: str
    note: str = ""

    @property
    def goal(self) -> str | None:
        return GOALS.get(self.name)

    @property
    def holds(self) -> bool | None:
        if self.goal is None:
            return None if self.value is not None else False
        if self.value is None:
            return False
        sign, limit = self.goal.split()
        return self.value >= float(limit) if sign == ">=" else self.value <= float(limit)


def write_json(figures: Sequence[Figure], file: Path) -> None:
    """A list of {name, value, unit, goal, holds}."""
    names = ("name", "value", "unit", "goal", "holds")
    file.write_text(json.dumps([{name: getattr(each, name) for name in names} for each in figures], indent=1) + "\n")


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


def write_growth_svg(figures: Sequence[Figure], file: Path) -> None:
    """Time on the small system (1) and on the large one, per kind of call; the dotted line is the goal."""
    grown = [each for each in figures if each.name.startswith("growth_") and each.value is not None]
    lines = [
        '<svg xmlns="http://www.w3.org/2000/svg" width="760" height="300" font-family="sans-serif" font-size="12">',
        '<line x1="60" y1="250" x2="420" y2="250" stroke="#888"/><text x="60" y="270">small</text>',
        '<text x="400" y="270">large</text><text x="8" y="20">time, small = 1</text>',
        f'<line x1="60" y1="{_height(1.0)}" x2="420" y2="{_height(1.3)}" stroke="#888" stroke-dasharray="3 3"/>',
    ]
    for place, each in enumerate(sorted(grown, key=lambda figure: -(figure.value or 0))):
        colour = "#2a7" if each.holds else "#c43"
        y = _height(each.value or 0)
        lines.append(f'<line x1="60" y1="{_height(1.0)}" x2="420" y2="{y}" stroke="{colour}" stroke-width="2"/>')
        lines.append(f'<text x="440" y="{30 + 18 * place}">{escape(each.name)}: {each.value:.2f}</text>')
    file.write_text("\n".join([*lines, "</svg>", ""]))


def _height(ratio: float) -> int:
    """Of the plot: 0 at the bottom, 3 at the top."""
    return round(250 - 75 * min(ratio, 3.0))
