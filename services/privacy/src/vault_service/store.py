"""All SQL of the vault. Batches travel as arrays: one statement per step, whatever the number of keys."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date
from uuid import UUID

from msgspec import Struct

from servicekit import Record, Tx
from servicekit.core.errors import Unavailable
from servicekit.db.postgres import Database
from servicekit.vault.client import LeaseName
from servicekit.vault.leases import KeyName
from vault_service.domain import Action, Standing, StoredKey, standing


@dataclass(frozen=True, slots=True)
class Head:
    """The vault's incarnation, and the number of the last revocation in the snapshot that was read."""

    incarnation: UUID
    revision: int


class Leased(Struct, frozen=True):
    """A key that was asked for: its state, and the key itself while it is active or held."""

    state: str
    key: StoredKey | None


async def read_head(db: Database) -> Head:
    return _head(await db.fetchrow("-- read_head\nSELECT incarnation, revision FROM list_head"))


async def read_standings(tx: Tx, names: Sequence[KeyName]) -> tuple[Head, list[Standing]]:
    """How each name stands, in the same order. The transaction has its id already (docs/protocols.md#fence-wait-out-sweep)."""
    rows = await tx.fetch(
        """-- read_standings
        SELECT head.incarnation, head.revision,
               latest.key_id, coalesce(latest.generation, 0) AS generation, latest.epoch, latest.wrapped,
               coalesce(latest.state = 'active', false) AS is_active,
               coalesce(fence.is_final, false) AS is_fenced,
               coalesce(fence.generation, 0) AS fence_generation
        FROM unnest($1::uuid[], $2::varchar[], $3::uuid[])
             WITH ORDINALITY AS wanted (subject_id, data_class, anchor, place)
        CROSS JOIN list_head AS head
        LEFT JOIN LATERAL (
            SELECT key_id, generation, epoch, state, wrapped
            FROM keys
            WHERE keys.subject_id = wanted.subject_id
              AND keys.data_class = wanted.data_class
              AND keys.anchor = wanted.anchor
            ORDER BY generation DESC LIMIT 1
        ) AS latest ON true
        LEFT JOIN LATERAL (
            SELECT bool_or(fences.data_class IS NULL) AS is_final, max(fences.generation) AS generation
            FROM fences
            WHERE fences.subject_id = wanted.subject_id
              AND (fences.data_class IS NULL OR fences.data_class = wanted.data_class)
        ) AS fence ON true
        ORDER BY wanted.place""",
        *_columns(names),
    )
    found = [
        standing(
            name,
            row["generation"],
            _stored_key(row, name) if row["is_active"] else None,
            row["is_fenced"],
            row["fence_generation"],
        )
        for name, row in zip(names, rows, strict=True)
    ]
    return _head(rows[0]), found


async def read_newcomers(tx: Tx, people: Collection[UUID], maker: str) -> tuple[bool, bool]:
    """Whether one of these people was fenced or lost a key, and whether one has a key that another system made."""
    row = await tx.fetchrow(
        """-- read_newcomers
        SELECT coalesce(bool_or(gone), false) AS gone, coalesce(bool_or(taken), false) AS taken FROM (
            SELECT true AS gone, false AS taken FROM fences WHERE subject_id = ANY($1::uuid[])
            UNION ALL
            SELECT state <> 'active', maker <> $2 FROM keys WHERE subject_id = ANY($1::uuid[])
        ) AS found""",
        list(people),
        maker,
    )
    assert row is not None
    return row["gone"], row["taken"]


async def lock_active_epoch(tx: Tx) -> int:
    """The epoch to wrap under, locked so that it cannot be closed before this transaction ends (docs/vault.md#kek-epochs)."""
    epoch: int | None = await tx.fetchval(
        "-- lock_active_epoch\nSELECT epoch FROM epochs WHERE state = 'active' FOR SHARE"
    )
    if epoch is None:
        raise Unavailable("No KEK epoch is active, so no key can be made; the operator opens one.")
    return epoch


async def insert_keys(tx: Tx, keys: Sequence[StoredKey], maker: str) -> int:
    """How many were new; what another transaction made first stays. Sorted, so that two batches cannot deadlock."""
    ordered = sorted(keys, key=lambda key: key.name)
    status = await tx.execute(
        """-- insert_keys
        INSERT INTO keys (subject_id, data_class, anchor, key_id, generation, epoch, wrapped, maker)
        SELECT u.*, $8 FROM unnest($1::uuid[], $2::varchar[], $3::uuid[], $4::uuid[], $5::int[], $6::int[], $7::bytea[]) u
        ON CONFLICT DO NOTHING""",
        *_columns([key.name for key in ordered]),
        [key.key_id for key in ordered],
        [key.generation for key in ordered],
        [key.epoch for key in ordered],
        [key.wrapped for key in ordered],
        maker,
    )
    return int(status.rpartition(" ")[2])


async def write_directory(tx: Tx, entries: Sequence[tuple[UUID, UUID, str, bytes]]) -> None:
    """(subject, key id, kind, digest) each; replaces the digest that the key had of that kind."""
    last = {(subject, key_id, kind): digest for subject, key_id, kind, digest in entries}
    ordered = sorted(last.items())
    await tx.execute(
        """-- write_directory
        INSERT INTO directory (subject_id, key_id, kind, digest)
        SELECT subject_id, key_id, kind::index_kind, digest
        FROM unnest($1::uuid[], $2::uuid[], $3::varchar[], $4::bytea[]) AS entry (subject_id, key_id, kind, digest)
        ON CONFLICT (subject_id, key_id, kind) DO UPDATE SET digest = excluded.digest
        WHERE directory.digest <> excluded.digest""",
        [subject for (subject, _, _), _ in ordered],
        [key_id for (_, key_id, _), _ in ordered],
        [kind for (_, _, kind), _ in ordered],
        [digest for _, digest in ordered],
    )


async def read_leases(db: Database, wanted: Sequence[LeaseName]) -> tuple[Head, list[Leased]] | None:
    """The keys of these ids that have these very names, in the same order; None if one of them is unknown."""
    rows = await db.fetch(
        """-- read_leases
        SELECT CASE place WHEN 1 THEN head.incarnation END AS incarnation, CASE place WHEN 1 THEN head.revision END AS revision,
               keys.generation, keys.epoch, keys.state::text AS state, keys.wrapped
        FROM unnest($1::uuid[], $2::varchar[], $3::uuid[], $4::uuid[])
             WITH ORDINALITY AS wanted (subject_id, data_class, anchor, key_id, place)
        CROSS JOIN list_head AS head
        JOIN keys ON keys.subject_id = wanted.subject_id AND keys.key_id = wanted.key_id
                 AND keys.data_class = wanted.data_class AND keys.anchor = wanted.anchor
        ORDER BY wanted.place""",
        *_columns([lease.name for lease in wanted]),
        [lease.key_id for lease in wanted],
    )
    if len(rows) != len(wanted):
        return None
    found = [
        Leased(
            state,
            StoredKey(lease.key_id, lease.name, generation, epoch, wrapped) if state in ("active", "held") else None,
        )
        for lease, (_, _, generation, epoch, state, wrapped) in zip(wanted, rows, strict=True)
    ]
    return _head(rows[0]), found


async def find_names(db: Database, kind: str, digest: bytes) -> list[KeyName]:
    rows = await db.fetch(
        """-- find_names
        SELECT keys.subject_id, keys.data_class, keys.anchor
        FROM directory JOIN keys USING (subject_id, key_id)
        WHERE directory.kind = $1::text::index_kind AND directory.digest = $2 AND keys.state = 'active'
        ORDER BY keys.subject_id, keys.data_class, keys.anchor
        LIMIT 100""",
        kind,
        digest,
    )
    return [KeyName(row["subject_id"], row["data_class"], row["anchor"]) for row in rows]


async def add_lease_counts(tx: Tx, counts: Counter[tuple[str, str, date, Action]]) -> None:
    days = sorted({(system, data_class, day) for system, data_class, day, _ in counts})
    await tx.execute(
        """-- add_lease_counts
        INSERT INTO lease_counts AS kept (system, data_class, day, ensured, leased)
        SELECT * FROM unnest($1::varchar[], $2::varchar[], $3::date[], $4::bigint[], $5::bigint[])
        ON CONFLICT (system, data_class, day)
        DO UPDATE SET ensured = kept.ensured + excluded.ensured, leased = kept.leased + excluded.leased""",
        [system for system, _, _ in days],
        [data_class for _, data_class, _ in days],
        [day for _, _, day in days],
        [counts[(*place, "ensured")] for place in days],
        [counts[(*place, "leased")] for place in days],
    )


async def delete_lease_counts(tx: Tx, before: date) -> None:
    await tx.execute("-- delete_lease_counts\nDELETE FROM lease_counts WHERE day < $1", before)


def _columns(names: Sequence[KeyName]) -> tuple[list[UUID], list[str], list[UUID]]:
    return [name.subject for name in names], [name.data_class for name in names], [name.anchor for name in names]


def _stored_key(row: Record, name: KeyName) -> StoredKey:
    return StoredKey(row["key_id"], name, row["generation"], row["epoch"], row["wrapped"])


def _head(row: Record | None) -> Head:
    if row is None:
        raise Unavailable("The vault's head row is missing: the database is not a whole one. Restore it.")
    return Head(row["incarnation"], row["revision"])
