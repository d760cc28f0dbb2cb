"""The package of an export: a zip that is made while it is sent, from pages of parts, with never more than a page in memory.

    index.html                    what is in here, to be read in a browser without a network
    data/<system>/<table>.json    what one system holds, as it is; .csv the same for a spreadsheet
    schemas/<Model>.json          what the values mean (JSON Schema)
    disclosures.json              who outside received which fields, when            (access only)
    staff_looks.json              when staff looked, in which role, how              (access only)
    manifest.json                 SHA-256 of every other file, written last

The parts are read three times (which tables there are, JSON, CSV), because a zip has one open file at a time.
"""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final, Protocol

from event_contracts import PersonalData, account, order
from event_contracts.personal import sealed_fields
from privacy_service.export.domain import SHOWN_IN_ALL, SHOWN_ROWS, Facts, PartName, Shown, Table
from privacy_service.export.page import render_index
from privacy_service.export.rows import Kind, Row, csv_head, csv_lines, kept, read_part
from privacy_service.export.zips import CHUNK, ZipStream


class Source(Protocol):
    """Where the content comes from, a page at a time."""

    @property
    def names(self) -> Sequence[PartName]:
        """All parts that there are, in the order in which they are read."""

    def contents(self, names: Sequence[PartName]) -> AsyncIterator[tuple[PartName, str]]:
        """The opened parts of these names, in order."""

    def disclosures(self) -> AsyncIterator[Sequence[Mapping[str, Any]]]:
        """Who received what, oldest first."""

    def looks(self) -> AsyncIterator[Sequence[Mapping[str, Any]]]:
        """When staff looked, oldest first."""


async def build(facts: Facts, source: Source) -> AsyncIterator[bytes]:
    """The bytes of the zip. Raises what the source raises, and `Poison` for a part that is no part."""
    tables = await _survey(facts.kind, source)
    archive = ZipStream(facts.made_at)
    async for _ in _write(archive, facts, source, tables):
        if archive.ready >= CHUNK:
            yield archive.take()
    archive.close()
    yield archive.take()


async def _survey(kind: Kind, source: Source) -> list[Table]:
    tables: dict[tuple[str, str], Table] = {}
    shown = 0
    async for name, text in source.contents(source.names):
        table_name, rows = read_part(text)
        rows = kept(kind, name.system, table_name, rows)
        if rows:
            table = tables.setdefault((name.system, table_name), Table(name.system, table_name))
            before = table.characters
            table.note(name, rows, SHOWN_IN_ALL - shown)
            shown += table.characters - before
    return [tables[key] for key in sorted(tables)]


async def _write(archive: ZipStream, facts: Facts, source: Source, tables: Sequence[Table]) -> AsyncIterator[None]:
    """Writes file by file; stops after each piece, so that it can be taken."""
    for table in tables:
        async for _ in _write_table(archive, facts.kind, source, table):
            yield
    for model in MODELS:
        archive.begin(_schema_path(model))
        archive.write(_json(model.model_json_schema()))
        yield
    lists: dict[str, Shown] = {}
    if facts.kind == "access":
        for path, pages in (("disclosures.json", source.disclosures()), ("staff_looks.json", source.looks())):
            shown = lists[path] = Shown()
            archive.begin(path)
            async for _ in _write_list(archive, pages, shown):
                yield
    archive.begin("index.html")
    archive.write(render_index(facts, tables, lists))
    yield
    archive.end()
    files = [{"path": file.path, "bytes": file.size, "sha256": file.sha256} for file in archive.files]
    archive.begin("manifest.json")
    archive.write(_json({**_about(facts), "files": files}))
    yield


async def _write_table(archive: ZipStream, kind: Kind, source: Source, table: Table) -> AsyncIterator[None]:
    head = {
        "system": table.system,
        "table": table.name,
        "row_count": table.row_count,
        "schemas": {name: SCHEMA_OF[name] for name in sorted(table.sealed) if name in SCHEMA_OF},
    }
    archive.begin(f"{table.path}.json")
    archive.write(f'{_json(head).rstrip().removesuffix("}").rstrip()},\n  "rows": [')
    separator = "\n    "
    async for rows in _rows(kind, source, table):
        for row in rows:
            archive.write(separator + json.dumps(row, ensure_ascii=False))
            separator = ",\n    "
        yield
    archive.write("\n  ]\n}\n")
    columns = list(table.columns)
    archive.begin(f"{table.path}.csv")
    archive.write(csv_head(columns))
    async for rows in _rows(kind, source, table):
        archive.write(csv_lines(columns, rows))
        yield


async def _rows(kind: Kind, source: Source, table: Table) -> AsyncIterator[list[Row]]:
    async for _, text in source.contents(table.parts):
        yield kept(kind, table.system, table.name, read_part(text)[1])


async def _write_list(
    archive: ZipStream, pages: AsyncIterator[Sequence[Mapping[str, Any]]], shown: Shown
) -> AsyncIterator[None]:
    separator = "[\n  "
    async for page in pages:
        for item in page:
            archive.write(separator + json.dumps(item, ensure_ascii=False))
            separator = ",\n  "
        shown.items += page[: max(0, SHOWN_ROWS - len(shown.items))]
        shown.count += len(page)
        yield
    archive.write("\n]\n" if shown.count else "[]\n")


def _about(facts: Facts) -> dict[str, Any]:
    return {
        "request_id": str(facts.request_id),
        "kind": facts.kind,
        "made_at": facts.made_at.isoformat(),
        "policy_version": facts.policy.version,
        "controller": facts.policy.controller.model_dump(),
    }


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _schema_path(model: type[PersonalData]) -> str:
    return f"schemas/{model.__name__}.json"


# By the name of the sealed field, which is also the name of the column that keeps it.
_SEALED: Final = tuple(part for event in chain(account.EVENTS, order.EVENTS) for part in sealed_fields(event))
MODELS: Final = tuple(sorted({part.model for part in _SEALED}, key=lambda model: model.__name__))
SCHEMA_OF: Final = {part.name: _schema_path(part.model) for part in _SEALED}
