"""Each table with a person's id is hash-partitioned, or docs/decisions.md names it among those that are not, with the reason."""

import re

from deploy.check.findings import ROOT

PERSON = re.compile(r"^\s+(subject_id|buyer_id|consignee_id)\s", re.MULTILINE)
STATEMENT = re.compile(
    r"CREATE (?:UNLOGGED )?TABLE (?:IF NOT EXISTS )?([\w.]+) \(\n(.*?)\n\)([^;]*);|DROP TABLE (?:IF EXISTS )?([\w.]+)",
    re.DOTALL,
)
DECISION = "**Tables of few rows a person are not partitioned yet.**"


def unpartitioned() -> set[str]:
    """The tables of all our migrations that have a person's id and no hash partitions."""
    files = sorted(path for top in ("shared", "services") for path in (ROOT / top).glob("**/migrations/*.sql"))
    found, count = set[str](), 0
    for file in files:
        for statement in STATEMENT.finditer(file.read_text()):
            created, columns, after, dropped = statement.groups()
            if dropped is not None:
                found.discard(dropped)
            elif PERSON.search(columns) and "PARTITION BY HASH" not in after:
                found.add(created)
            count += 1
    assert count > 50, "the migrations are not found or not understood"
    return found


def test_tables_of_people_without_partitions_are_those_of_the_decision() -> None:
    text = (ROOT / "docs" / "decisions.md").read_text()
    lines = text[text.index(DECISION) :].split("\n- **", 1)[0].splitlines()
    rows = [line.strip().strip("|").split(" | ") for line in lines if line.strip().startswith("| `")]
    told = [name for row in rows for name in re.findall(r"`([\w.]+)`", row[0])]
    assert len(told) == len(set(told))
    assert set(told) == unpartitioned()
