"""docs/limits.md says of every route who may call it, how often and with how large a body; the code decides."""

import re
from pathlib import Path

import pytest

from deploy.check.findings import ROOT
from tests.support.routes import all_rules, line

DOCUMENT = ROOT / "docs" / "limits.md"


@pytest.fixture(scope="module")
def told() -> dict[str, dict[str, list[str]]]:
    """The cells of each line by service and route."""
    found: dict[str, dict[str, list[str]]] = {}
    for service, text in re.findall(r"^## ([\w-]+)\n(.*?)(?=^## |\Z)", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL):
        rows = [
            [cell.strip() for cell in row.strip("|").split(" | ")]
            for row in re.findall(r"^\| `.*$", text, re.MULTILINE)
        ]
        found[service] = {row[0]: row[1:] for row in rows}
    return found


def test_every_route_stands_in_the_table_with_its_limits(told: dict[str, dict[str, list[str]]], tmp_path: Path) -> None:
    rules = all_rules(tmp_path)
    assert told.keys() == rules.keys()
    for service, routes in rules.items():
        cells = {route: [*rest] for route, *rest in map(line, routes)}
        assert {route: row[:3] for route, row in told[service].items()} == cells, service


def test_the_table_says_what_each_call_makes(told: dict[str, dict[str, list[str]]]) -> None:
    silent = [route for rows in told.values() for route, row in rows.items() if "`GET" not in route and not row[3]]
    assert silent == []


def test_every_route_has_a_limit_but_those_of_the_vault(tmp_path: Path) -> None:
    """The vault's quotas bound what a service may do."""
    for service, routes in all_rules(tmp_path).items():
        for rule in routes:
            if rule.guard is None or rule.guard.who != "service":
                assert line(rule)[2], f"{service} {rule.path}"
            else:
                assert service == "vault"
