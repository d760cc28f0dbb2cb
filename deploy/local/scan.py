"""Searches every byte that Kafka, Postgres and the logs wrote for values that must not stand there in clear (law L1).

Each value is searched in all the spellings in which it could have been written. The proof that the search works are the controls
(`controls.py`): values planted on purpose, one per store and place, which the same search in the same run must find.
"""

from __future__ import annotations

import base64
import json
import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import asyncpg
from ahocorasick_rs import BytesAhoCorasick

# Anything shorter stands in random bytes by chance.
MIN_BYTES = 6
CHUNK = 16 * 1024 * 1024


def variants(value: str) -> set[bytes]:
    """The byte strings in which a value may have been written.

    Plain, in three base64 alignments (both alphabets), hex, UTF-16, percent-encoded, JSON-escaped; each of the value as it is, in
    lower case, in NFC and in NFD.
    """
    found: set[bytes] = set()
    for text in {value, value.lower(), unicodedata.normalize("NFC", value), unicodedata.normalize("NFD", value)}:
        plain = text.encode()
        found |= {plain, plain.hex().encode(), plain.hex().upper().encode()}
        found |= {text.encode("utf-16-le"), text.encode("utf-16-be")}
        found |= {quote(text).encode(), quote(text, safe="").encode(), quote(text).replace("%20", "+").encode()}
        found.add(json.dumps(text)[1:-1].encode())
        found |= set(_base64_alignments(plain))
    return {each for each in found if len(each) >= MIN_BYTES}


def _base64_alignments(plain: bytes) -> Iterator[bytes]:
    for offset in range(3):
        encoded = base64.b64encode(bytes(offset) + plain)
        # The first and the last characters also depend on the neighbours of the value.
        inner = encoded[(0, 2, 3)[offset] : (len(plain) + offset) * 8 // 6]
        yield inner
        yield inner.replace(b"+", b"-").replace(b"/", b"_")


@dataclass
class Findings:
    """Which values were found, and where: place → values. `searched` counts bytes per place."""

    hits: dict[str, set[str]] = field(default_factory=dict)
    searched: dict[str, int] = field(default_factory=dict)

    @property
    def values(self) -> set[str]:
        return set().union(*self.hits.values())


class Scanner:
    """Searches for all variants of `values` at once."""

    def __init__(self, values: Iterable[str]) -> None:
        patterns: dict[bytes, str] = {}
        self.values = frozenset(values)
        for value in self.values:
            for variant in variants(value):
                patterns.setdefault(variant, value)
        self._value_of = list(patterns.values())
        self._matcher = BytesAhoCorasick(list(patterns))
        self._longest = max(map(len, patterns), default=1)
        self.findings = Findings()

    def scan_bytes(self, place: str, content: bytes) -> None:
        self.findings.searched[place] = self.findings.searched.get(place, 0) + len(content)
        for index, _, _ in self._matcher.find_matches_as_indexes(content, overlapping=True):
            self.findings.hits.setdefault(place, set()).add(self._value_of[index])

    def scan_file(self, place: str, file: Path) -> None:
        with file.open("rb") as stream:
            tail = b""
            while chunk := stream.read(CHUNK):
                self.scan_bytes(place, tail + chunk)
                tail = chunk[-self._longest :]

    def scan_folder(self, place: str, folder: Path) -> None:
        """Every file below; one that disappears meanwhile (a recycled WAL segment, say) is passed over."""
        for file in sorted(folder.rglob("*")):
            try:
                if file.is_file() and not file.is_symlink():
                    self.scan_file(place, file)
            except FileNotFoundError:
                continue

    async def scan_rows(self, place: str, admin_dsn: str) -> None:
        """Every row of every table of every database as Postgres itself reads it: this undoes its compression."""
        connection = await asyncpg.connect(admin_dsn)
        databases = [row[0] for row in await connection.fetch("SELECT datname FROM pg_database WHERE datallowconn")]
        await connection.close()
        for database in databases:
            connection = await asyncpg.connect(admin_dsn, database=database)
            try:
                await self._scan_database(place, connection)
            finally:
                await connection.close()

    async def _scan_database(self, place: str, connection: asyncpg.Connection) -> None:
        tables = await connection.fetch(
            """SELECT c.oid::regclass::text AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema')"""
        )

        async def scan(chunk: bytes) -> None:
            self.scan_bytes(place, chunk)

        for table in tables:
            # COPY's binary format gives bytea as it is; text, as it is.
            await connection.copy_from_query(f"SELECT * FROM {table['name']}", output=scan, format="binary")


async def scan_stack(
    values: Iterable[str], *, kafka: Path | None, postgres: Path | None, admin_dsn: str, folders: Mapping[str, Path]
) -> Findings:
    """Flushes, then searches Kafka's files, Postgres' files and rows, and the given folders (logs, exports …)."""
    connection = await asyncpg.connect(admin_dsn)
    await connection.execute("CHECKPOINT")
    await connection.close()
    os.sync()
    scanner = Scanner(values)
    if kafka is not None:
        scanner.scan_folder("kafka", kafka)
    if postgres is not None:
        scanner.scan_folder("postgres", postgres)
    await scanner.scan_rows("rows", admin_dsn)
    for place, folder in folders.items():
        scanner.scan_folder(place, folder)
    return scanner.findings
