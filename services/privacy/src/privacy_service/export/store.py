"""All SQL of the exports."""

from collections.abc import Sequence, Set
from datetime import datetime
from typing import Final
from uuid import UUID

from event_contracts.privacy import HoldingsExported
from servicekit import Received, Record, Tx
from servicekit.db.postgres import Database


async def write_export(tx: Tx, request_id: UUID, kind: str, subject_ids: Sequence[UUID], begun_at: datetime) -> None:
    """Does nothing for an export that is there already."""
    await tx.execute(
        """-- write_export
        WITH export AS (
            INSERT INTO rights_exports (request_id, kind, begun_at, revocation_id)
            VALUES ($1, $2::text::export_kind, $3, $1) ON CONFLICT DO NOTHING RETURNING request_id
        )
        INSERT INTO rights_export_subjects (request_id, subject_id)
        SELECT DISTINCT export.request_id, subject_id FROM export, unnest($4::uuid[]) AS subject_id""",
        request_id,
        kind,
        begun_at,
        list(subject_ids),
    )


async def write_parts(tx: Tx, received: Sequence[Received[HoldingsExported]], erased: Set[UUID]) -> None:
    """Parts of exports under way; a part that is there already stays, and one that nobody asked for is dropped.

    What the keys `erased` sealed is left out of its part.
    """
    await tx.execute(
        """-- write_parts
        INSERT INTO rights_export_parts
            (request_id, subject_id, system, attempt, part, is_last, row_count, content, received_at)
        SELECT u.* FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::int[], $5::int[], $6::bool[], $7::bigint[],
                               $8::bytea[], $9::timestamptz[])
               AS u(request_id, subject_id, system, attempt, part, is_last, row_count, content, received_at)
        JOIN rights_export_subjects USING (request_id, subject_id)
        JOIN rights_exports AS e USING (request_id)
        WHERE e.ended_at IS NULL
        ON CONFLICT DO NOTHING""",
        [each.event.request_id for each in received],
        [each.event.subject_id for each in received],
        [each.event.system for each in received],
        [each.event.attempt for each in received],
        [each.event.part for each in received],
        [each.event.is_last for each in received],
        [each.event.row_count for each in received],
        [
            None if each.event.content and each.event.content.key_id in erased else each.event.content
            for each in received
        ],
        [each.time for each in received],
    )


# A participant may begin a part anew after a crash, and each of them may be late.
MOST_LATE_ROUNDS: Final = 10


async def note_late_parts(tx: Tx, parts: Sequence[tuple[UUID, UUID]]) -> None:
    """Sealed parts of (request, person) came after the key was destroyed, so there is a key again: let it be destroyed under
    a fresh id, if the export is of that person, and not for ever.
    """
    await tx.execute(
        """-- note_late_parts
        UPDATE rights_exports e SET revocation_id = gen_random_uuid(), destroyed_at = NULL, late_rounds = late_rounds + 1
        WHERE e.destroyed_at IS NOT NULL AND e.late_rounds < $3 AND EXISTS (
            SELECT FROM unnest($1::uuid[], $2::uuid[]) AS u(request_id, subject_id)
            JOIN rights_export_subjects s USING (request_id, subject_id) WHERE u.request_id = e.request_id)
            AND e.request_id = ANY($1::uuid[])""",
        [request_id for request_id, _ in parts],
        [subject_id for _, subject_id in parts],
        MOST_LATE_ROUNDS,
    )


async def read_missing(db: Database | Tx, request_id: UUID, systems: Sequence[str]) -> list[str]:
    """The systems of which no whole attempt is there for one of the people at least."""
    rows = await db.fetch(
        """-- read_missing
        SELECT DISTINCT wanted.system FROM rights_export_subjects AS s CROSS JOIN unnest($2::text[]) AS wanted(system)
        WHERE s.request_id = $1 AND NOT EXISTS (
            SELECT FROM rights_export_parts AS p
            WHERE p.request_id = s.request_id AND p.subject_id = s.subject_id AND p.system = wanted.system
            GROUP BY p.attempt HAVING count(*) = max(p.part) FILTER (WHERE p.is_last)
        ) ORDER BY wanted.system""",
        request_id,
        list(systems),
    )
    return [row["system"] for row in rows]


async def set_ready(tx: Tx, request_id: UUID, ready_at: datetime, expires_at: datetime) -> datetime | None:
    """When it expires: of a second call the answer of the first. None if there is no such export, or it has ended."""
    expires: datetime | None = await tx.fetchval(
        """-- set_ready
        UPDATE rights_exports SET ready_at = coalesce(ready_at, $2), expires_at = coalesce(expires_at, $3)
        WHERE request_id = $1 AND ended_at IS NULL RETURNING expires_at""",
        request_id,
        ready_at,
        expires_at,
    )
    return expires


async def set_ended(tx: Tx, request_id: UUID, ended_at: datetime, ended_as: str) -> None:
    """The first end counts. Its links go."""
    await tx.execute(
        """-- set_ended
        WITH gone AS (DELETE FROM rights_export_links WHERE request_id = $1)
        UPDATE rights_exports SET ended_at = $2, ended_as = $3::text::export_end
        WHERE request_id = $1 AND ended_at IS NULL""",
        request_id,
        ended_at,
        ended_as,
    )


async def end_expired(tx: Tx, now: datetime, limit: int) -> None:
    await tx.execute(
        """-- end_expired
        WITH over AS (
            SELECT request_id FROM rights_exports WHERE ready_at IS NOT NULL AND ended_at IS NULL AND expires_at <= $1
            ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED
        ), gone AS (DELETE FROM rights_export_links USING over WHERE rights_export_links.request_id = over.request_id)
        UPDATE rights_exports AS e SET ended_at = $1, ended_as = 'expired' FROM over WHERE e.request_id = over.request_id""",
        now,
        limit,
    )


async def read_export(db: Database | Tx, request_id: UUID) -> Record | None:
    return await db.fetchrow(
        """-- read_export
        SELECT kind::text, begun_at, ready_at, expires_at, ended_at, ended_as::text, destroyed_at
        FROM rights_exports WHERE request_id = $1""",
        request_id,
    )


async def write_link(
    tx: Tx, request_id: UUID, token_hash: bytes, now: datetime, expires_at: datetime
) -> datetime | None:
    """When the link expires, at the latest with the export. A link made before it and not used is void.

    None if the export is not ready, or over.
    """
    found: datetime | None = await tx.fetchval(
        """-- write_link lock
        SELECT least(expires_at, $3) FROM rights_exports
        WHERE request_id = $1 AND ready_at IS NOT NULL AND ended_at IS NULL AND expires_at > $2 FOR UPDATE""",
        request_id,
        now,
        expires_at,
    )
    if found is None:
        return None
    await tx.execute(
        "-- write_link void\nDELETE FROM rights_export_links WHERE request_id = $1 AND used_at IS NULL", request_id
    )
    await tx.execute(
        "-- write_link\nINSERT INTO rights_export_links VALUES ($1, $2, $3, $4, NULL)",
        token_hash,
        request_id,
        now,
        found,
    )
    return found


async def use_link(tx: Tx, token_hash: bytes, now: datetime) -> Record | None:
    """The export behind a link; of several calls with one link only the first gets it."""
    return await tx.fetchrow(
        """-- use_link
        UPDATE rights_export_links AS l SET used_at = $2 FROM rights_exports AS e
        WHERE l.token_hash = $1 AND l.used_at IS NULL AND l.expires_at > $2
          AND e.request_id = l.request_id AND e.ended_at IS NULL
        RETURNING e.request_id, e.kind::text, e.ready_at""",
        token_hash,
        now,
    )


async def read_part_names(db: Database, request_id: UUID) -> list[Record]:
    """All parts with content, of each system's latest whole attempt; without their content."""
    return await db.fetch(
        """-- read_part_names
        WITH whole AS (
            SELECT DISTINCT ON (subject_id, system) subject_id, system, attempt FROM (
                SELECT subject_id, system, attempt FROM rights_export_parts WHERE request_id = $1
                GROUP BY subject_id, system, attempt HAVING count(*) = max(part) FILTER (WHERE is_last)
            ) AS attempts ORDER BY subject_id, system, attempt DESC
        )
        SELECT system, subject_id, attempt, part FROM rights_export_parts JOIN whole USING (subject_id, system, attempt)
        WHERE request_id = $1 AND content IS NOT NULL ORDER BY system, subject_id, part""",
        request_id,
    )


async def read_contents(db: Database, request_id: UUID, names: Sequence[tuple[UUID, str, int, int]]) -> list[Record]:
    """The sealed content of parts named by (subject, system, attempt, part), in the same order."""
    return await db.fetch(
        """-- read_contents
        SELECT p.subject_id, p.content
        FROM unnest($2::uuid[], $3::text[], $4::int[], $5::int[])
             WITH ORDINALITY AS n(subject_id, system, attempt, part, place)
        JOIN rights_export_parts AS p ON p.request_id = $1 AND p.subject_id = n.subject_id AND p.system = n.system
             AND p.attempt = n.attempt AND p.part = n.part
        ORDER BY n.place""",
        request_id,
        [name[0] for name in names],
        [name[1] for name in names],
        [name[2] for name in names],
        [name[3] for name in names],
    )


async def read_disclosures(
    db: Database, request_id: UUID, after: tuple[datetime, UUID] | None, limit: int
) -> list[Record]:
    """Who received which fields of these people, oldest first; `place` tells rows of the same moment apart."""
    return await db.fetch(
        """-- read_disclosures
        SELECT * FROM (
            SELECT subject_id, anchor, data_class, carrier, lane, lane_version, fields, first_seen, last_seen,
                   md5(concat_ws(' ', subject_id, anchor, data_class, carrier, lane, lane_version))::uuid AS place
            FROM recipients WHERE subject_id IN (SELECT subject_id FROM rights_export_subjects WHERE request_id = $1)
        ) AS rows
        WHERE $2::timestamptz IS NULL OR (first_seen, place) > ($2, $3::uuid) ORDER BY first_seen, place LIMIT $4""",
        request_id,
        after[0] if after else None,
        after[1] if after else None,
        limit,
    )


async def read_looks(db: Database, request_id: UUID, after: int, limit: int) -> list[Record]:
    """When staff looked at these people, in which role and how; never who it was."""
    return await db.fetch(
        """-- read_looks
        SELECT look_id, subject_id, looked_at, role, kind::text AS kind FROM staff_looks
        WHERE subject_id IN (SELECT subject_id FROM rights_export_subjects WHERE request_id = $1) AND look_id > $2
        ORDER BY look_id LIMIT $3""",
        request_id,
        after,
        limit,
    )


async def read_subjects(db: Database | Tx, request_id: UUID) -> list[UUID]:
    rows = await db.fetch(
        "-- read_subjects\nSELECT subject_id FROM rights_export_subjects WHERE request_id = $1 ORDER BY subject_id",
        request_id,
    )
    return [row["subject_id"] for row in rows]


async def read_to_destroy(db: Database, limit: int) -> list[Record]:
    """(request, the id of its revocation, person) of exports that have ended and whose key is still there."""
    return await db.fetch(
        """-- read_to_destroy
        SELECT e.request_id, e.revocation_id, s.subject_id FROM (
            SELECT request_id, revocation_id FROM rights_exports
            WHERE ended_at IS NOT NULL AND destroyed_at IS NULL ORDER BY ended_at LIMIT $1
        ) AS e LEFT JOIN rights_export_subjects AS s USING (request_id)""",
        limit,
    )


async def set_destroyed(tx: Tx, ended: Sequence[tuple[UUID, UUID]], at: datetime) -> None:
    """Of (request, revocation) each: the key is gone, and so go the parts. The people's rows stay for a late part."""
    await tx.execute(
        """-- set_destroyed
        WITH done AS (
            UPDATE rights_exports AS e SET destroyed_at = $3
            FROM unnest($1::uuid[], $2::uuid[]) AS u(request_id, revocation_id)
            WHERE e.request_id = u.request_id AND e.revocation_id = u.revocation_id AND e.destroyed_at IS NULL
            RETURNING e.request_id
        )
        DELETE FROM rights_export_parts USING done WHERE rights_export_parts.request_id = done.request_id""",
        [request_id for request_id, _ in ended],
        [revocation_id for _, revocation_id in ended],
        at,
    )
