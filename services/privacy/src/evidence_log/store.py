"""All SQL of the evidence. Every statement inserts or reads by key: its cost does not grow with the log."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from evidence_log.merkle import Node
from servicekit import Record, Tx
from servicekit.db.postgres import Database
from servicekit.db.writers import read_writers

_SEQUENCER_LOCK = 7_302_118_400_917


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far the leaves are taken up, in the order of (transaction, entry)."""

    xact: int
    entry: int


START = Cursor(0, 0)


class Issued(NamedTuple):
    """A certificate as it is stored."""

    certificate_id: UUID
    request_id: UUID
    amendment: int
    issued_at: datetime
    leaf_id: UUID
    body: bytes


async def insert_leaves(tx: Tx, leaves: Sequence[tuple[UUID, str, bytes]]) -> None:
    """(id, kind, body) each, in this order; one that is there already is left alone."""
    await tx.execute(
        """-- insert_leaves
        INSERT INTO evidence_leaves (leaf_id, kind, body)
        SELECT leaf_id, kind, body FROM unnest($1::uuid[], $2::leaf_kind[], $3::bytea[])
               WITH ORDINALITY AS u(leaf_id, kind, body, place) ORDER BY place
        ON CONFLICT (leaf_id) DO NOTHING""",
        [leaf_id for leaf_id, _, _ in leaves],
        [kind for _, kind, _ in leaves],
        [body for _, _, body in leaves],
    )


async def lock_sequencer(tx: Tx) -> bool:
    """False when another process is sequencing; the lock ends with the transaction."""
    locked: bool = await tx.fetchval("-- lock_sequencer\nSELECT pg_try_advisory_xact_lock($1)", _SEQUENCER_LOCK)
    return locked


async def read_end(tx: Tx | Database) -> tuple[int, Cursor]:
    """The size of the log, and the cursor."""
    row = await tx.fetchrow(
        """-- read_end
        SELECT leaf_index + 1 AS size, cursor_xact::text::bigint AS xact, cursor_entry
        FROM evidence_sequence ORDER BY leaf_index DESC LIMIT 1"""
    )
    return (row["size"], Cursor(row["xact"], row["cursor_entry"])) if row else (0, START)


async def is_ahead_of_database(tx: Tx, cursor: Cursor) -> bool:
    """Whether the cursor names a transaction that this database has not had: it was loaded from a dump into another one."""
    ahead: bool = await tx.fetchval(
        "-- is_ahead_of_database\nSELECT $1::text::xid8 > pg_current_xact_id()", str(cursor.xact)
    )
    return ahead


async def read_horizon(tx: Tx) -> int:
    """Every transaction that can add a leaf and has an id below this has ended. To be read before the leaves are."""
    return (await read_writers(tx, ["evidence_leaves"])).horizon


async def read_pending(tx: Tx, after: Cursor, horizon: int, limit: int) -> list[Record]:
    """Leaves without an index whose place is certain: no transaction in progress can put one before them."""
    return await tx.fetch(
        """-- read_pending
        SELECT entry_id, xact_id::text::bigint AS xact, leaf_id, kind::text AS kind, body FROM evidence_leaves l
        WHERE (xact_id, entry_id) > ($1::text::xid8, $2) AND xact_id < $3::text::xid8
          AND NOT EXISTS (SELECT FROM evidence_sequence s WHERE s.entry_id = l.entry_id)
          AND NOT EXISTS (SELECT FROM evidence_aside a WHERE a.entry_id = l.entry_id)
        ORDER BY xact_id, entry_id LIMIT $4""",
        str(after.xact),
        after.entry,
        str(horizon),
        limit,
    )


async def read_aside(tx: Tx, now: datetime, limit: int) -> list[Record]:
    """Leaves that were set aside and are to be looked at again."""
    return await tx.fetch(
        """-- read_aside
        SELECT entry_id, leaf_id, kind::text AS kind, body FROM evidence_aside JOIN evidence_leaves USING (entry_id)
        WHERE next_try_at <= $1 ORDER BY next_try_at LIMIT $2""",
        now,
        limit,
    )


async def set_aside(tx: Tx, leaves: Sequence[tuple[int, str]], now: datetime, next_try_at: datetime) -> None:
    """(entry, reason) each."""
    await tx.execute(
        """-- set_aside
        INSERT INTO evidence_aside AS a (entry_id, reason, since, next_try_at)
        SELECT entry_id, reason, $3, $4 FROM unnest($1::bigint[], $2::text[]) AS u(entry_id, reason)
        ON CONFLICT (entry_id) DO UPDATE SET reason = excluded.reason, attempts = a.attempts + 1,
            next_try_at = excluded.next_try_at""",
        [entry for entry, _ in leaves],
        [reason for _, reason in leaves],
        now,
        next_try_at,
    )


async def take_back(tx: Tx, entries: Sequence[int]) -> None:
    """They are set aside no longer."""
    await tx.execute("-- take_back\nDELETE FROM evidence_aside WHERE entry_id = ANY($1::bigint[])", list(entries))


async def count_aside(db: Database) -> int:
    count: int = await db.fetchval("-- count_aside\nSELECT count(*) FROM evidence_aside")
    return count


async def insert_sequence(tx: Tx, first: int, entries: Sequence[int], cursors: Sequence[Cursor]) -> None:
    """Gives the entries their indices from `first` on."""
    await tx.execute(
        """-- insert_sequence
        INSERT INTO evidence_sequence (leaf_index, entry_id, cursor_xact, cursor_entry)
        SELECT $1 + place - 1, entry_id, xact::text::xid8, cursor_entry
        FROM unnest($2::bigint[], $3::bigint[], $4::bigint[]) WITH ORDINALITY AS u(entry_id, xact, cursor_entry, place)""",
        first,
        list(entries),
        [cursor.xact for cursor in cursors],
        [cursor.entry for cursor in cursors],
    )


async def insert_nodes(tx: Tx, nodes: Sequence[tuple[Node, bytes]]) -> None:
    await tx.execute(
        """-- insert_nodes
        INSERT INTO evidence_nodes SELECT * FROM unnest($1::smallint[], $2::bigint[], $3::bytea[])""",
        [node[0] for node, _ in nodes],
        [node[1] for node, _ in nodes],
        [hash_ for _, hash_ in nodes],
    )


async def read_nodes(db: Tx | Database, nodes: Sequence[Node]) -> dict[Node, bytes]:
    """The hashes of these nodes; a node that is not there is missing."""
    rows = await db.fetch(
        """-- read_nodes
        SELECT level, node_index, hash FROM unnest($1::smallint[], $2::bigint[]) AS wanted(level, node_index)
        JOIN evidence_nodes USING (level, node_index)""",
        [node[0] for node in nodes],
        [node[1] for node in nodes],
    )
    return {(row["level"], row["node_index"]): row["hash"] for row in rows}


async def insert_checkpoint(tx: Tx, size: int, note: str) -> None:
    await tx.execute("-- insert_checkpoint\nINSERT INTO evidence_checkpoints VALUES ($1, $2)", size, note)


async def read_newest_checkpoint(db: Database) -> Record | None:
    """Size and note of the log's newest checkpoint, and the size of the newest that the witness has signed (0: none)."""
    return await db.fetchrow(
        """-- read_newest_checkpoint
        SELECT size, note, coalesce((SELECT max(size) FROM evidence_cosignatures), 0) AS cosigned
        FROM evidence_checkpoints ORDER BY size DESC LIMIT 1"""
    )


async def insert_cosignature(tx: Tx, size: int, line: str, cosigned_at: datetime) -> None:
    """The first one counts."""
    await tx.execute(
        "-- insert_cosignature\nINSERT INTO evidence_cosignatures VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        size,
        line,
        cosigned_at,
    )


async def read_cosigned(db: Database | Tx, more_than: int) -> Record | None:
    """The first checkpoint of more than so many leaves that the witness has signed: size, note, line."""
    return await db.fetchrow(
        """-- read_cosigned
        SELECT size, note, line FROM evidence_cosignatures JOIN evidence_checkpoints USING (size)
        WHERE size > $1 ORDER BY size LIMIT 1""",
        more_than,
    )


async def read_newest_cosigned(db: Database) -> Record | None:
    return await db.fetchrow(
        """-- read_newest_cosigned
        SELECT size, note, line FROM evidence_cosignatures JOIN evidence_checkpoints USING (size)
        ORDER BY size DESC LIMIT 1"""
    )


async def read_cosigned_between(db: Database, after: int, up_to: int) -> list[Record]:
    """The checkpoints of more than `after` and at most `up_to` leaves that the witness has signed, in their order."""
    return await db.fetch(
        """-- read_cosigned_between
        SELECT size, note, line FROM evidence_cosignatures JOIN evidence_checkpoints USING (size)
        WHERE size > $1 AND size <= $2 ORDER BY size""",
        after,
        up_to,
    )


async def read_leaves(db: Database | Tx, start: int, end: int) -> list[Record]:
    """Index, body and stored hash of the leaves `start` up to `end`."""
    return await db.fetch(
        """-- read_leaves
        SELECT leaf_index, body, hash FROM evidence_sequence JOIN evidence_leaves USING (entry_id)
        JOIN evidence_nodes ON level = 0 AND node_index = leaf_index
        WHERE leaf_index >= $1 AND leaf_index < $2 ORDER BY leaf_index""",
        start,
        end,
    )


async def read_leaf(db: Database | Tx, leaf_id: UUID) -> Record | None:
    """Index and body of a leaf that has its index."""
    return await db.fetchrow(
        """-- read_leaf
        SELECT leaf_index, body FROM evidence_leaves JOIN evidence_sequence USING (entry_id) WHERE leaf_id = $1""",
        leaf_id,
    )


async def read_entries(tx: Tx, leaf_ids: Sequence[UUID]) -> dict[UUID, int]:
    """The entries of these leaves."""
    rows = await tx.fetch(
        "-- read_entries\nSELECT leaf_id, entry_id FROM evidence_leaves WHERE leaf_id = ANY($1::uuid[])", list(leaf_ids)
    )
    return {row["leaf_id"]: row["entry_id"] for row in rows}


async def insert_certificates(tx: Tx, issued: Sequence[Issued]) -> None:
    await tx.execute(
        """-- insert_certificates
        INSERT INTO certificates (certificate_id, request_id, amendment, issued_at, leaf_id, body)
        SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::int[], $4::timestamptz[], $5::uuid[], $6::bytea[])""",
        *map(list, zip(*issued, strict=True)) if issued else ([],) * 6,
    )


async def read_latest(tx: Tx, request_ids: Sequence[UUID]) -> dict[UUID, Record]:
    """The latest amendment of each request that has a certificate."""
    rows = await tx.fetch(
        """-- read_latest
        SELECT DISTINCT ON (request_id) request_id, certificate_id, amendment, body FROM certificates
        WHERE request_id = ANY($1::uuid[]) ORDER BY request_id, amendment DESC""",
        list(request_ids),
    )
    return {row["request_id"]: row for row in rows}


async def read_certificate(db: Database | Tx, request_id: UUID, amendment: int | None) -> Record | None:
    """The latest amendment, or this one."""
    return await db.fetchrow(
        """-- read_certificate
        SELECT certificate_id, amendment, leaf_id, body FROM certificates
        WHERE request_id = $1 AND ($2::integer IS NULL OR amendment = $2) ORDER BY amendment DESC LIMIT 1""",
        request_id,
        amendment,
    )
