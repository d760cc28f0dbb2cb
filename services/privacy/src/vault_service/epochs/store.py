"""All SQL of KEK epochs."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from servicekit import Record, Tx
from servicekit.db.postgres import Database
from servicekit.vault.leases import KeyName
from vault_service.domain import StoredKey
from vault_service.epochs.domain import Epoch


async def read_epochs(db: Database | Tx) -> list[Epoch]:
    rows = await db.fetch(
        """-- read_epochs
        SELECT epoch, state::text AS state, handle, probe, opened_at, closed_at, emptied_at, destroyed_at
        FROM epochs ORDER BY epoch"""
    )
    return [_epoch(row) for row in rows]


async def read_handle(db: Database, epoch: int) -> bytes | None:
    """None once the epoch is destroyed, or if it never was."""
    handle: bytes | None = await db.fetchval(
        "-- read_handle\nSELECT handle FROM epochs WHERE epoch = $1 AND state <> 'destroyed'", epoch
    )
    return handle


async def read_index_handle(db: Database) -> bytes | None:
    handle: bytes | None = await db.fetchval("-- read_index_handle\nSELECT handle FROM index_kek")
    return handle


async def write_index_handle(tx: Tx, handle: bytes) -> None:
    """What another process wrote first stays."""
    await tx.execute("-- write_index_handle\nINSERT INTO index_kek (handle) VALUES ($1) ON CONFLICT DO NOTHING", handle)


async def lock_epochs(tx: Tx) -> None:
    """Until the end of this transaction nobody wraps, and no epoch changes; whoever wraps has committed.

    A lock on the table, because its queue is fair: share locks on the row, one taken while another is held, could keep
    a lock on the row out for ever.
    """
    await tx.execute("-- lock_epochs\nLOCK TABLE epochs IN EXCLUSIVE MODE")


async def open_epoch(tx: Tx, epoch: int, handle: bytes, probe: bytes, now: datetime) -> None:
    """Closes the active epoch, if there is one, and opens this one. Under `lock_epochs`."""
    await tx.execute(
        "-- open_epoch (close)\nUPDATE epochs SET state = 'closed', closed_at = $1 WHERE state = 'active'", now
    )
    await tx.execute(
        """-- open_epoch
        INSERT INTO epochs (epoch, state, handle, probe, opened_at) VALUES ($1, 'active', $2, $3, $4)""",
        epoch,
        handle,
        probe,
        now,
    )


async def take_keys(tx: Tx, epoch: int, limit: int, but: Sequence[UUID]) -> list[StoredKey]:
    """Up to `limit` keys that the epoch still wraps, locked; those that somebody else has locked are left out."""
    rows = await tx.fetch(
        """-- take_keys
        SELECT key_id, subject_id, data_class, anchor, generation, epoch, wrapped
        FROM keys
        WHERE epoch = $1 AND state <> 'destroyed' AND key_id <> ALL ($3::uuid[])
        LIMIT $2
        FOR NO KEY UPDATE SKIP LOCKED""",
        epoch,
        limit,
        list(but),
    )
    return [
        StoredKey(
            row["key_id"],
            KeyName(row["subject_id"], row["data_class"], row["anchor"]),
            row["generation"],
            row["epoch"],
            row["wrapped"],
        )
        for row in rows
    ]


async def write_rewrapped(tx: Tx, old: int, keys: Sequence[StoredKey]) -> int:
    """Only over a key that is there, lives, and is still the old epoch's; never an insert (docs/vault.md#kek-epochs)."""
    status = await tx.execute(
        """-- write_rewrapped
        UPDATE keys SET epoch = fresh.epoch, wrapped = fresh.wrapped
        FROM unnest($2::uuid[], $3::uuid[], $4::int[], $5::bytea[]) AS fresh (subject_id, key_id, epoch, wrapped)
        WHERE keys.subject_id = fresh.subject_id AND keys.key_id = fresh.key_id
          AND keys.state <> 'destroyed' AND keys.epoch = $1""",
        old,
        [key.name.subject for key in keys],
        [key.key_id for key in keys],
        [key.epoch for key in keys],
        [key.wrapped for key in keys],
    )
    return int(status.rpartition(" ")[2])


async def is_empty(tx: Tx, epoch: int) -> bool:
    """Whether no key is wrapped under the epoch's KEK. Under `lock_epochs`, or it says nothing about the next moment."""
    has_keys: bool = await tx.fetchval(
        "-- is_empty\nSELECT EXISTS (SELECT FROM keys WHERE epoch = $1 AND state <> 'destroyed')", epoch
    )
    return not has_keys


async def mark_empty(tx: Tx, epoch: int, now: datetime) -> None:
    await tx.execute(
        "-- mark_empty\nUPDATE epochs SET state = 'empty', emptied_at = $2 WHERE epoch = $1 AND state = 'closed'",
        epoch,
        now,
    )


async def mark_destroyed(tx: Tx, epoch: int, now: datetime) -> None:
    await tx.execute(
        "-- mark_destroyed\nUPDATE epochs SET state = 'destroyed', destroyed_at = $2 WHERE epoch = $1 AND state = 'empty'",
        epoch,
        now,
    )


async def named_epochs(db: Database) -> list[int]:
    """The epochs that keys name which are not destroyed; one step through the index for each."""
    rows = await db.fetch(
        """-- named_epochs
        WITH RECURSIVE named AS (
            (SELECT epoch FROM keys WHERE state <> 'destroyed' ORDER BY epoch LIMIT 1)
            UNION ALL
            SELECT (SELECT keys.epoch FROM keys
                    WHERE keys.state <> 'destroyed' AND keys.epoch > named.epoch ORDER BY keys.epoch LIMIT 1)
            FROM named WHERE named.epoch IS NOT NULL
        )
        SELECT epoch FROM named WHERE epoch IS NOT NULL"""
    )
    return [row["epoch"] for row in rows]


async def count_keys(db: Database) -> list[tuple[int, str, int]]:
    """(epoch, class, keys that are not destroyed) each. Reads all keys: for operators."""
    rows = await db.fetch(
        """-- count_keys
        SELECT epoch, data_class, count(*) AS keys FROM keys WHERE state <> 'destroyed'
        GROUP BY epoch, data_class ORDER BY epoch, data_class"""
    )
    return [(row["epoch"], row["data_class"], row["keys"]) for row in rows]


async def missing_keys(db: Database, key_ids: Sequence[UUID]) -> list[UUID]:
    """Those of these ids that name no key here, destroyed ones included. Reads all keys: for operators."""
    rows = await db.fetch(
        """-- missing_keys
        SELECT wanted.key_id FROM unnest($1::uuid[]) AS wanted (key_id)
        WHERE NOT EXISTS (SELECT FROM keys WHERE keys.key_id = wanted.key_id)""",
        list(key_ids),
    )
    return [row["key_id"] for row in rows]


def _epoch(row: Record) -> Epoch:
    return Epoch(
        row["epoch"],
        row["state"],
        row["handle"],
        row["probe"],
        row["opened_at"],
        row["closed_at"],
        row["emptied_at"],
        row["destroyed_at"],
    )
