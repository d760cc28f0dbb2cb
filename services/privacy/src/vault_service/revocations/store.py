"""All SQL of the revocation list. A batch of revocations travels as arrays: one statement per step."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from event_contracts.vault_api import Entry
from servicekit import Record, Tx
from servicekit.core.errors import Unavailable
from servicekit.db.postgres import Database
from servicekit.vault.leases import KeyName
from vault_service.domain import StoredKey
from vault_service.revocations.domain import Case, FoundKey, Named, Wanted
from vault_service.revocations.file import Tip
from vault_service.store import Head

# What `ensure` writes: a revocation waits for writers of this.
KEY_TABLES: Final = ("keys",)
# Of one page of the list, in key ids.
_KEYS_A_PAGE = 20_000
_NO_HEAD = "The vault's head row is missing: the database is not a whole one. Restore it."


@dataclass(frozen=True, slots=True)
class ListHead:
    """The locked head of the list in the database."""

    incarnation: UUID
    tip: Tip


async def write_fences(tx: Tx, wanted: Sequence[Wanted]) -> None:
    """What each case asks for, and the fences that keep new writers out. What a case asked for before stays as it was.

    A class is fenced up to one generation more than there is: a writer that cannot see the fence yet makes at most
    that one, and one that sees it begins the next.
    """
    await tx.execute(
        """-- write_fences
        WITH wanted AS (
            SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::varchar[], $4::uuid[])
                AS w (request_id, subject_id, data_class, anchor)
        ), scoped AS (
            INSERT INTO revocation_scopes (request_id, subject_id, data_class, anchor, generation)
            SELECT request_id, subject_id, data_class, anchor,
                   CASE
                       WHEN anchor IS NOT NULL THEN
                           (SELECT coalesce(max(keys.generation), 0) FROM keys
                            WHERE keys.subject_id = wanted.subject_id AND keys.anchor = wanted.anchor
                              AND (wanted.data_class IS NULL OR keys.data_class = wanted.data_class))
                       WHEN data_class IS NOT NULL THEN
                           1 + greatest(
                               (SELECT coalesce(max(keys.generation), 0) FROM keys
                                WHERE keys.subject_id = wanted.subject_id AND keys.data_class = wanted.data_class),
                               (SELECT coalesce(max(fences.generation), 0) FROM fences
                                WHERE fences.subject_id = wanted.subject_id
                                  AND fences.data_class = wanted.data_class))
                   END
            FROM wanted
            ORDER BY subject_id, request_id, data_class, anchor
            ON CONFLICT DO NOTHING
            RETURNING subject_id, data_class, anchor, generation
        )
        INSERT INTO fences (subject_id, data_class, generation)
        SELECT subject_id, data_class, max(generation) FROM scoped WHERE anchor IS NULL
        GROUP BY subject_id, data_class
        ORDER BY subject_id, data_class
        ON CONFLICT (subject_id, data_class)
        DO UPDATE SET generation = greatest(fences.generation, excluded.generation)""",
        *_scopes(wanted),
    )


async def read_tip(db: Database) -> Tip:
    """Where the list ends in the database."""
    row = await db.fetchrow("-- read_tip\nSELECT revision, hash FROM list_head")
    if row is None:
        raise Unavailable(_NO_HEAD)
    return Tip(row["revision"], row["hash"].hex())


async def lock_head(tx: Tx) -> ListHead:
    """Nobody else numbers entries before this transaction ends."""
    row = await tx.fetchrow("-- lock_head\nSELECT incarnation, revision, hash FROM list_head FOR UPDATE")
    if row is None:
        raise Unavailable(_NO_HEAD)
    return ListHead(row["incarnation"], Tip(row["revision"], row["hash"].hex()))


async def move_head(tx: Tx, tip: Tip, *, is_restored: bool = False) -> None:
    """A restored vault is another one to all that hold its keys, so it gets a new incarnation."""
    await tx.execute(
        """-- move_head
        UPDATE list_head SET revision = $1, hash = $2,
            incarnation = CASE WHEN $3 THEN gen_random_uuid() ELSE incarnation END""",
        tip.number,
        bytes.fromhex(tip.hash),
        is_restored,
    )


async def read_named(tx: Tx, cases: Iterable[Case]) -> dict[Case, Named]:
    """What the list says of these cases."""
    found = {case: Named() for case in cases}
    rows = await tx.fetch(
        """-- read_named
        SELECT request_id, subject_id, number, action::text AS action, is_final, key_ids
        FROM revocations WHERE request_id = ANY($1)""",
        list({case.request_id for case in found}),
    )
    for row in rows:
        named = found.get(Case(row["request_id"], row["subject_id"]))
        if named is not None:
            named.add(row["number"], row["action"], row["is_final"], row["key_ids"])
    return found


async def read_requests(tx: Tx, request_ids: Sequence[UUID]) -> dict[Case, Named]:
    """What the list says of all cases of these requests, by request in this order and then by number."""
    rows = await tx.fetch(
        """-- read_requests
        SELECT request_id, subject_id, number, action::text AS action, is_final, key_ids
        FROM revocations WHERE request_id = ANY($1) ORDER BY array_position($1, request_id), number""",
        list(request_ids),
    )
    found: dict[Case, Named] = {}
    for row in rows:
        named = found.setdefault(Case(row["request_id"], row["subject_id"]), Named())
        named.add(row["number"], row["action"], row["is_final"], row["key_ids"])
    return found


async def read_finals(tx: Tx, subjects: Iterable[UUID]) -> set[UUID]:
    """Which of these people are fenced for good."""
    rows = await tx.fetch(
        "-- read_finals\nSELECT subject_id FROM fences WHERE subject_id = ANY($1) AND data_class IS NULL",
        list(set(subjects)),
    )
    return {row["subject_id"] for row in rows}


async def read_scoped(tx: Tx, wanted: Sequence[Wanted]) -> list[tuple[Case, FoundKey]]:
    """All keys that are meant, with their case; a key of two cases, or of two scopes of one, comes more than once."""
    rows = await tx.fetch(
        """-- read_scoped
        SELECT scope.request_id, keys.subject_id, keys.key_id, keys.data_class, keys.anchor, keys.generation,
               keys.epoch, keys.wrapped, keys.state::text AS state, keys.fingerprint
        FROM unnest($1::uuid[], $2::uuid[], $3::varchar[], $4::uuid[])
             AS wanted (request_id, subject_id, data_class, anchor)
        JOIN revocation_scopes AS scope
          ON scope.request_id = wanted.request_id AND scope.subject_id = wanted.subject_id
         AND scope.data_class IS NOT DISTINCT FROM wanted.data_class
         AND scope.anchor IS NOT DISTINCT FROM wanted.anchor
        JOIN keys ON keys.subject_id = scope.subject_id
         AND (scope.data_class IS NULL OR keys.data_class = scope.data_class)
         AND (scope.anchor IS NULL OR keys.anchor = scope.anchor)
         AND (scope.generation IS NULL OR keys.generation <= scope.generation)
        ORDER BY keys.subject_id, keys.data_class, keys.anchor, keys.generation""",
        *_scopes(wanted),
    )
    return [(Case(row["request_id"], row["subject_id"]), _found(row)) for row in rows]


async def read_keys(tx: Tx, wanted: Iterable[tuple[UUID, UUID]]) -> dict[UUID, FoundKey]:
    """By key id, from (subject, key id) each; those that this database lacks are left out."""
    pairs = list(wanted)
    rows = await tx.fetch(
        """-- read_keys
        SELECT keys.subject_id, keys.key_id, keys.data_class, keys.anchor, keys.generation,
               keys.epoch, keys.wrapped, keys.state::text AS state, keys.fingerprint
        FROM unnest($1::uuid[], $2::uuid[]) AS wanted (subject_id, key_id)
        JOIN keys ON keys.subject_id = wanted.subject_id AND keys.key_id = wanted.key_id""",
        [subject for subject, _ in pairs],
        [key_id for _, key_id in pairs],
    )
    return {row["key_id"]: _found(row) for row in rows}


async def change_keys(tx: Tx, keys: Sequence[FoundKey]) -> None:
    """Write state and fingerprint; a destroyed key loses its bytes and its rows of the directory. Never backwards."""
    if not keys:
        return
    ordered = sorted(keys, key=lambda key: key.stored.name)
    await tx.execute(
        """-- change_keys
        WITH changed AS (
            SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::varchar[], $4::bytea[])
                AS c (subject_id, key_id, state, fingerprint)
        ), forgotten AS (
            DELETE FROM directory USING changed
            WHERE changed.state = 'destroyed'
              AND directory.subject_id = changed.subject_id AND directory.key_id = changed.key_id
        )
        UPDATE keys SET state = changed.state::key_state, fingerprint = changed.fingerprint,
            wrapped = CASE WHEN changed.state = 'destroyed' THEN NULL ELSE keys.wrapped END
        FROM changed
        WHERE keys.subject_id = changed.subject_id AND keys.key_id = changed.key_id
          AND keys.state < changed.state::key_state""",
        [key.stored.name.subject for key in ordered],
        [key.key_id for key in ordered],
        [key.state for key in ordered],
        [key.fingerprint for key in ordered],
    )


async def fence_for_good(tx: Tx, subjects: Iterable[UUID]) -> None:
    """The final fences that entries of the file speak of."""
    await tx.execute(
        """-- fence_for_good
        INSERT INTO fences (subject_id) SELECT * FROM unnest($1::uuid[]) ON CONFLICT DO NOTHING""",
        sorted(set(subjects)),
    )


async def insert_entries(tx: Tx, entries: Sequence[Entry]) -> None:
    await tx.execute(
        """-- insert_entries
        INSERT INTO revocations (number, action, request_id, subject_id, is_final, key_ids, previous_hash, hash)
        SELECT number, action::revocation_action, request_id, subject_id, is_final, key_ids::uuid[],
               previous_hash, hash
        FROM unnest($1::bigint[], $2::varchar[], $3::uuid[], $4::uuid[], $5::boolean[], $6::varchar[],
                    $7::bytea[], $8::bytea[])
            AS e (number, action, request_id, subject_id, is_final, key_ids, previous_hash, hash)""",
        [entry.number for entry in entries],
        [entry.action for entry in entries],
        [entry.request_id for entry in entries],
        [entry.subject for entry in entries],
        [entry.is_final for entry in entries],
        # Arrays of different lengths cannot travel in one array, so each travels as its text.
        ["{" + ",".join(map(str, entry.key_ids)) + "}" for entry in entries],
        [bytes.fromhex(entry.previous_hash) for entry in entries],
        [bytes.fromhex(entry.hash) for entry in entries],
    )


async def read_entries(db: Database, head: Head, after: int, limit: int) -> list[Entry]:
    """At most `limit` entries after a number and up to the head; fewer where they name many keys."""
    rows = await db.fetch(
        """-- read_entries
        SELECT * FROM (
            SELECT *, sum(cardinality(key_ids)) OVER (ORDER BY number) - cardinality(key_ids) AS keys_before
            FROM (SELECT number, action::text AS action, request_id, subject_id, is_final, key_ids, previous_hash, hash
                  FROM revocations WHERE number > $1 AND number <= $2 ORDER BY number LIMIT $3) AS page
        ) AS counted WHERE keys_before < $4 ORDER BY number""",
        after,
        head.revision,
        limit,
        _KEYS_A_PAGE,
    )
    return [_entry(row) for row in rows]


async def is_unpublished(db: Database) -> bool:
    """Whether there is anything to publish."""
    found = await db.fetchval("-- is_unpublished\nSELECT EXISTS (SELECT FROM revocations WHERE published_at IS NULL)")
    return found is True


async def claim_publishing(db: Database, process: UUID, seconds: float) -> bool:
    """Whether this process publishes the next batch: nobody else has claimed that, or not within its time."""
    status = await db.fetchval(
        """-- claim_publishing
        UPDATE publisher SET process = $1, until = clock_timestamp() + make_interval(secs => $2)
        WHERE process = $1 OR until < clock_timestamp() RETURNING true""",
        process,
        seconds,
    )
    return status is True


async def read_unpublished(db: Database, limit: int) -> list[Entry]:
    rows = await db.fetch(
        """-- read_unpublished
        SELECT number, action::text AS action, request_id, subject_id, is_final, key_ids, previous_hash, hash
        FROM revocations WHERE published_at IS NULL ORDER BY number LIMIT $1""",
        limit,
    )
    return [_entry(row) for row in rows]


async def mark_published(db: Database, process: UUID, numbers: Sequence[int]) -> None:
    """And the process's claim is over."""
    await db.fetch(
        """-- mark_published
        WITH over AS (UPDATE publisher SET until = '-infinity' WHERE process = $1)
        UPDATE revocations SET published_at = clock_timestamp() WHERE number = ANY($2)""",
        process,
        list(numbers),
    )


async def unmark_published(db: Database, since: datetime) -> int:
    """Entries that were published since then are to be published again. Returns how many."""
    rows = await db.fetch(
        """-- unmark_published
        UPDATE revocations SET published_at = NULL WHERE published_at >= $1 RETURNING number""",
        since,
    )
    return len(rows)


def _scopes(wanted: Sequence[Wanted]) -> tuple[list[UUID], list[UUID], list[str | None], list[UUID | None]]:
    rows = list(dict.fromkeys((*each.case, *scope) for each in wanted for scope in each.scopes))
    return [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows], [row[3] for row in rows]


def _found(row: Record) -> FoundKey:
    name = KeyName(row["subject_id"], row["data_class"], row["anchor"])
    stored = StoredKey(row["key_id"], name, row["generation"], row["epoch"], row["wrapped"] or b"")
    return FoundKey(stored, row["state"], row["fingerprint"])


def _entry(row: Record) -> Entry:
    return Entry(
        row["number"],
        row["action"],
        row["request_id"],
        row["subject_id"],
        row["is_final"],
        row["key_ids"],
        row["previous_hash"].hex(),
        row["hash"].hex(),
    )
