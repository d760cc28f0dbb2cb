"""Packages of exports, pure: what a cell and a page may hold, and that the size of a package costs no memory."""

import csv
import io
import json
import tracemalloc
import zipfile
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from privacy_service.export.domain import Facts, PartName
from privacy_service.export.packages import build
from privacy_service.export.rows import csv_head, csv_lines, kept, read_part
from servicekit.core.errors import Poison
from servicekit.core.policy import Policy

POLICY = Policy.load([Path(__file__).resolve().parents[2] / "shared" / "policy" / "policy.yaml"])
ROWS_A_PART = 200
ROWS = [{"order_id": str(uuid4()), "record": {"note": uuid4().hex * 8}} for _ in range(ROWS_A_PART)]
PART = json.dumps({"table": "order_records", "rows": ROWS})


class Made:
    """A source of `parts` parts with 200 rows each."""

    def __init__(self, parts: int) -> None:
        self.names: Sequence[PartName] = [PartName("order", uuid4(), 1, number) for number in range(1, parts + 1)]

    async def contents(self, names: Sequence[PartName]) -> AsyncIterator[tuple[PartName, str]]:
        for name in names:
            yield name, PART

    async def disclosures(self) -> AsyncIterator[Sequence[Mapping[str, Any]]]:
        at = datetime(2026, 11, 24, tzinfo=UTC).isoformat()
        item = {"recipient": "meridian", "fields": ["consignee.name"], "first_sent": at}
        for _ in self.names:
            yield [item] * ROWS_A_PART

    async def looks(self) -> AsyncIterator[Sequence[Mapping[str, Any]]]:
        for _ in ():
            yield []


def facts(kind: Any = "access") -> Facts:
    return Facts(uuid4(), kind, datetime(2026, 11, 24, tzinfo=UTC), POLICY, 1)


async def peak_of(parts: int) -> tuple[int, int]:
    """(bytes of memory at most, bytes of the package) of a package of that many parts."""
    size = 0
    tracemalloc.start()
    try:
        async for chunk in build(facts(), Made(parts)):
            size += len(chunk)
        return tracemalloc.get_traced_memory()[1], size
    finally:
        tracemalloc.stop()


async def test_ten_thousand_records_need_no_more_memory_than_five_hundred() -> None:
    """L12: a package is made in pages, however large it gets."""
    few, small = await peak_of(500 // ROWS_A_PART)
    many, large = await peak_of(10_000 // ROWS_A_PART)
    assert large > 10 * small
    assert many < few + 2 * 1024 * 1024


async def test_a_package_is_a_whole_zip() -> None:
    content = b"".join([chunk async for chunk in build(facts(), Made(2))])
    archive = zipfile.ZipFile(io.BytesIO(content))
    assert archive.testzip() is None
    rows = json.loads(archive.read("data/order/order_records.json"))
    assert (len(rows["rows"]), rows["row_count"]) == (400, 400)
    assert archive.read("data/order/order_records.csv").count(b"\r\n") == 401
    assert len(json.loads(archive.read("disclosures.json"))) == 400
    assert json.loads(archive.read("staff_looks.json")) == []


@pytest.mark.attack(
    "a formula in an exported cell, behind any separator", expected="no cell begins a formula in any dialect"
)
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("before", ["", "a;", "a,", "a\t", "a\r\n", "a\n", "a|", ";;", 'a";', "\t", "\r", "\n"])
def test_no_cell_begins_a_formula(before: str, delimiter: str) -> None:
    """OWASP, CSV injection: also in the names of columns, which a participant may have from anywhere.

    A spreadsheet may separate cells by another sign than ours; then quotes do not hold a text together."""
    for lead, sign in product(("", " ", "\u00a0", '"', '""', ' "', "'"), "=+-@\uff1d\uff0b\uff0d\uff20"):
        text = f"{before}{lead}{sign}cmd|' /C calc'!A0"
        head, lines = csv_head([text, "b"]), csv_lines([text, "b", "c"], [{text: text, "b": text, "c": "x"}])
        read = csv.reader(io.StringIO(head.removeprefix("\ufeff") + lines, newline=""), delimiter=delimiter)
        cells = [cell for line in read for cell in line]
        assert any("cmd" in cell for cell in cells)
        starts = tuple("=+-@\uff1d\uff0b\uff0d\uff20\t\r\n")
        assert not [cell for cell in cells if cell.lstrip(' \u00a0"').startswith(starts)]


def test_a_text_of_separators_costs_no_more_than_its_length() -> None:
    """The pattern that finds cells has no nested repetition over what separates them."""
    assert csv_lines(["a"], [{"a": "; " * 200_000}]).startswith('"; ;')


def test_every_cell_stands_in_quotes_and_numbers_stay_numbers() -> None:
    assert csv_lines(["a", "b", "c"], [{"a": -12.5, "b": "-7", "c": [1, 2]}]) == '"-12.5","-7","1; 2"\r\n'


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"table": 1, "rows": []}', '{"table": "t", "rows": [1]}', "[" * 100_000]
)
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(Poison):
        read_part(text)


def test_a_tables_name_leads_nowhere() -> None:
    assert read_part('{"table": "../../etc/passwd", "rows": []}')[0] == "______etc_passwd"
    assert read_part('{"table": "", "rows": []}')[0] == "table"


def test_portability_leaves_out_what_is_ours() -> None:
    row = {"order_id": "1", "record": {"lines": []}, "payment": None}
    assert kept("portability", "order", "order_records", [row, {"order_id": "2"}]) == [{"record": {"lines": []}}]
    assert kept("portability", "order", "order_payments", [{"payment": {"token": "t"}}]) == []
    assert kept("access", "order", "order_payments", [row]) == [row]
