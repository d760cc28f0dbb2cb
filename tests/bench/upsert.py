"""The baseline of the inventory: a bulk upsert of the same rows, without Kafka, parsing, inbox or positions."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import asyncpg

TABLE = """
CREATE TABLE {table} (
    subject_id uuid NOT NULL, system varchar(32) NOT NULL, data_class varchar(32) NOT NULL, anchor uuid NOT NULL,
    key_id uuid, first_seen timestamptz NOT NULL, last_seen timestamptz NOT NULL,
    PRIMARY KEY (subject_id, system, data_class, anchor)
)"""
UPSERT = """
INSERT INTO {table} AS i SELECT * FROM
    unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::uuid[], $6::timestamptz[], $7::timestamptz[])
ON CONFLICT (subject_id, system, data_class, anchor) DO UPDATE SET
    first_seen = least(i.first_seen, excluded.first_seen), last_seen = greatest(i.last_seen, excluded.last_seen)"""
BATCH = 6_000  # 2,000 events of three parts each, as the product's own batches


async def upsert(dsn: str, table: str, rows: Sequence[tuple[Any, ...]]) -> float:
    """Rows a second, a transaction per batch; the table is made anew when it does not exist. The server's own fsync settings."""
    connection = await asyncpg.connect(dsn)
    try:
        if await connection.fetchval("SELECT to_regclass($1)", table) is None:
            await connection.execute(TABLE.format(table=table))
        batches = [list(zip(*rows[at : at + BATCH], strict=True)) for at in range(0, len(rows), BATCH)]
        started = time.monotonic()
        for columns in batches:
            await connection.execute(UPSERT.format(table=table), *columns)
        return len(rows) / (time.monotonic() - started)
    finally:
        await connection.close()
