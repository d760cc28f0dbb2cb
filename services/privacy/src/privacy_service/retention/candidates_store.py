"""SQL of what retention runs find: expired names, keys that nothing names, and the counts by class."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from event_contracts.privacy import HoldingsDescribed
from event_contracts.vault_api import AgedKey
from servicekit import Record, Tx
from servicekit.db.postgres import Database


@dataclass(frozen=True, slots=True)
class KeyToLook:
    """A key under which perhaps nobody holds a row: so says a system, or ("") the vault's list of old keys."""

    key_id: UUID
    subject: UUID
    data_class: str
    anchor: UUID
    released_by: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """A name that is past its time. It is `held` by hand, or `under_way` in another request, or it may go."""

    subject_id: UUID
    data_class: str
    anchor: UUID
    held: bool
    under_way: bool


async def insert_expired(tx: Tx, found: Sequence[tuple[UUID, UUID, str, UUID, datetime]]) -> None:
    """(run, subject, class, anchor, closed before when) each, as systems say; several may say the same.

    Not what an event named for the first time since then: it cannot have closed before.
    """
    await tx.execute(
        """-- insert_expired
        INSERT INTO retention_found
        SELECT run_id, subject_id, data_class, anchor
        FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[], $5::timestamptz[])
             AS u(run_id, subject_id, data_class, anchor, closed_before)
        WHERE NOT EXISTS (SELECT FROM inventory i
                          WHERE (i.subject_id, i.data_class, i.anchor) = (u.subject_id, u.data_class, u.anchor)
                          AND i.first_seen >= u.closed_before)
        ON CONFLICT DO NOTHING""",
        [each[0] for each in found],
        [each[1] for each in found],
        [each[2] for each in found],
        [each[3] for each in found],
        [each[4] for each in found],
    )


async def insert_found(tx: Tx, found: Sequence[tuple[UUID, UUID, str, UUID]]) -> None:
    """(run, subject, class, anchor) each; several systems may find the same."""
    await tx.execute(
        """-- insert_found
        INSERT INTO retention_found SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[])
        ON CONFLICT DO NOTHING""",
        [each[0] for each in found],
        [each[1] for each in found],
        [each[2] for each in found],
        [each[3] for each in found],
    )


async def unnamed(tx: Tx, keys: Sequence[AgedKey]) -> set[UUID]:
    """The ids of those of these keys of whose person and anchor no event has said anything.

    One of the class export counts when its export is over: then a part came late.
    """
    rows = await tx.fetch(
        """-- unnamed
        SELECT u.key_id FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[])
             AS u(key_id, subject_id, data_class, anchor)
        WHERE NOT EXISTS (SELECT FROM inventory i WHERE i.subject_id = u.subject_id AND i.anchor = u.anchor)
          AND NOT EXISTS (SELECT FROM rights_exports e
                          WHERE u.data_class = 'export' AND e.request_id = u.anchor AND e.ended_at IS NULL)""",
        [key.key_id for key in keys],
        [key.subject for key in keys],
        [key.data_class for key in keys],
        [key.anchor for key in keys],
    )
    return {row["key_id"] for row in rows}


async def note_looks(tx: Tx, keys: Sequence[KeyToLook], look_at: datetime) -> None:
    """These keys are looked at then, or earlier where that is planned."""
    await tx.execute(
        """-- note_looks
        INSERT INTO key_looks AS k (key_id, subject_id, data_class, anchor, released_by, look_at)
        SELECT u.*, $6 FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[], $5::text[]) AS u
        ON CONFLICT (key_id, subject_id, data_class, anchor, released_by)
            DO UPDATE SET look_at = least(k.look_at, excluded.look_at)""",
        [key.key_id for key in keys],
        [key.subject for key in keys],
        [key.data_class for key in keys],
        [key.anchor for key in keys],
        [key.released_by for key in keys],
        look_at,
    )


async def named_by_releaser(tx: Tx, keys: Sequence[KeyToLook]) -> set[KeyToLook]:
    """Those of these of which the system that released them has said in an event what they are keys of."""
    rows = await tx.fetch(
        """-- named_by_releaser
        SELECT u.place FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[], $5::text[])
             WITH ORDINALITY AS u(key_id, subject_id, data_class, anchor, released_by, place)
        JOIN inventory i ON (i.subject_id, i.system, i.data_class, i.anchor, i.key_id)
                          = (u.subject_id, u.released_by, u.data_class, u.anchor, u.key_id)""",
        [key.key_id for key in keys],
        [key.subject for key in keys],
        [key.data_class for key in keys],
        [key.anchor for key in keys],
        [key.released_by for key in keys],
    )
    return {keys[row["place"] - 1] for row in rows}


async def drop_looks(tx: Tx, keys: Sequence[KeyToLook]) -> None:
    await tx.execute(
        """-- drop_looks
        DELETE FROM key_looks k USING unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[], $5::text[])
             AS u(key_id, subject_id, data_class, anchor, released_by)
        WHERE (k.key_id, k.subject_id, k.data_class, k.anchor, k.released_by)
            = (u.key_id, u.subject_id, u.data_class, u.anchor, u.released_by)""",
        [key.key_id for key in keys],
        [key.subject for key in keys],
        [key.data_class for key in keys],
        [key.anchor for key in keys],
        [key.released_by for key in keys],
    )


async def has_looks(db: Database, now: datetime) -> bool:
    due: bool = await db.fetchval("-- has_looks\nSELECT EXISTS (SELECT FROM key_looks WHERE look_at <= $1)", now)
    return due


async def take_looks(tx: Tx, now: datetime, again_at: datetime, limit: int) -> list[KeyToLook]:
    """The keys that are due, the longest due first; each is looked at again later, if it is still there."""
    rows = await tx.fetch(
        """-- take_looks
        UPDATE key_looks k SET look_at = $2 FROM (
            SELECT key_id, subject_id, data_class, anchor, released_by FROM key_looks
            WHERE look_at <= $1 ORDER BY look_at LIMIT $3 FOR UPDATE SKIP LOCKED
        ) due WHERE (k.key_id, k.subject_id, k.data_class, k.anchor, k.released_by)
                  = (due.key_id, due.subject_id, due.data_class, due.anchor, due.released_by)
        RETURNING due.*""",
        now,
        again_at,
        limit,
    )
    return [KeyToLook(*row) for row in rows]


async def insert_suspects(tx: Tx, suspects: Sequence[tuple[UUID, str, UUID]]) -> None:
    """(question, class, anchor) each."""
    await tx.execute(
        """-- insert_suspects
        INSERT INTO retention_suspects SELECT * FROM unnest($1::uuid[], $2::text[], $3::uuid[]) ON CONFLICT DO NOTHING""",
        [each[0] for each in suspects],
        [each[1] for each in suspects],
        [each[2] for each in suspects],
    )


async def clear_suspects(tx: Tx, replies: Sequence[HoldingsDescribed], now: datetime, again_at: datetime) -> None:
    """What somebody holds is in use, whatever events have said of it. Its key is looked at again at a later date.

    Not later when it was released since it was asked about: then it is due already.
    """
    held = [(each.request_id, item.data_class, item.anchor) for each in replies for item in each.items]
    await tx.execute(
        """-- clear_suspects: looks
        UPDATE key_looks k SET look_at = $5
        FROM unnest($1::uuid[], $2::text[], $3::uuid[]) AS u(subject_id, data_class, anchor)
        WHERE (k.subject_id, k.data_class, k.anchor) = (u.subject_id, u.data_class, u.anchor) AND k.look_at > $4""",
        [each.subject_id for each in replies for _ in each.items],
        [each[1] for each in held],
        [each[2] for each in held],
        now,
        again_at,
    )
    await tx.execute(
        """-- clear_suspects
        DELETE FROM retention_suspects s USING unnest($1::uuid[], $2::text[], $3::uuid[]) AS u(question_id, data_class, anchor)
        WHERE (s.question_id, s.data_class, s.anchor) = (u.question_id, u.data_class, u.anchor)""",
        [each[0] for each in held],
        [each[1] for each in held],
        [each[2] for each in held],
    )


async def convict(tx: Tx, question_ids: Iterable[UUID]) -> None:
    """Everybody has answered: what is left of the suspects is found."""
    await tx.execute(
        """-- convict
        WITH gone AS (
            DELETE FROM retention_suspects s USING retention_questions q
            WHERE s.question_id = ANY($1::uuid[]) AND q.question_id = s.question_id
            RETURNING q.run_id, q.subject_id, s.data_class, s.anchor
        )
        INSERT INTO retention_found SELECT * FROM gone ON CONFLICT DO NOTHING""",
        list(question_ids),
    )


async def take_found(tx: Tx, run_id: UUID, now: datetime, people: int) -> list[Found]:
    """Takes what was found of so many people."""
    rows = await tx.fetch(
        """-- take_found
        WITH next AS (
            SELECT DISTINCT subject_id FROM retention_found WHERE run_id = $1 ORDER BY subject_id LIMIT $3
        ), taken AS (
            DELETE FROM retention_found f USING next WHERE f.run_id = $1 AND f.subject_id = next.subject_id
            RETURNING f.subject_id, f.data_class, f.anchor
        )
        SELECT taken.*,
            EXISTS (SELECT FROM holds h WHERE h.subject_id = taken.subject_id AND h.data_class = taken.data_class
                    AND (h.anchor IS NULL OR h.anchor = taken.anchor) AND h.lifted_at IS NULL
                    AND (h.until IS NULL OR h.until > $2)) AS held,
            EXISTS (SELECT FROM rights_names n JOIN rights_subjects s USING (request_id, subject_id)
                    WHERE n.subject_id = taken.subject_id AND n.data_class = taken.data_class
                    AND n.anchor = taken.anchor AND s.step <> 'done')
            OR EXISTS (SELECT FROM rights_holds h WHERE h.subject_id = taken.subject_id
                       AND h.data_class = taken.data_class AND h.anchor = taken.anchor) AS under_way
        FROM taken ORDER BY subject_id, data_class, anchor""",
        run_id,
        now,
        people,
    )
    return [Found(row["subject_id"], row["data_class"], row["anchor"], row["held"], row["under_way"]) for row in rows]


async def add_counts(tx: Tx, run_id: UUID, counts: Sequence[tuple[str, int, int, int, int]]) -> None:
    """(class, found, held, under way, opened) each, of which no class stands twice."""
    await tx.execute(
        """-- add_counts
        INSERT INTO retention_counts AS c
        SELECT $1, u.* FROM unnest($2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[]) AS u
        ON CONFLICT (run_id, data_class) DO UPDATE SET found = c.found + excluded.found, held = c.held + excluded.held,
            under_way = c.under_way + excluded.under_way, opened = c.opened + excluded.opened""",
        run_id,
        [each[0] for each in counts],
        [each[1] for each in counts],
        [each[2] for each in counts],
        [each[3] for each in counts],
        [each[4] for each in counts],
    )


async def read_counts(db: Database, run_id: UUID) -> list[Record]:
    return await db.fetch(
        "-- read_counts\nSELECT * FROM retention_counts WHERE run_id = $1 ORDER BY data_class", run_id
    )
