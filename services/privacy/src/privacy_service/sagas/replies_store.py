"""SQL of the replies of participants, recipients and the vault. Every statement takes a batch."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from uuid import UUID

from event_contracts.moments import bounded
from event_contracts.privacy import HeldItem, HoldingsDescribed, RecipientsTold
from event_contracts.vault_api import KeyOutcome
from privacy_service.holds.domain import Item
from privacy_service.sagas.machine import SaveReply, State
from servicekit import Record, Tx
from servicekit.db.postgres import Database


async def save_replies(tx: Tx, replies: Sequence[tuple[State, SaveReply]], now: datetime) -> None:
    """The last reply of a system at a step counts. No two are of the same system and step."""
    await tx.execute(
        """-- save_replies
        INSERT INTO rights_answers
            (request_id, subject_id, round, step, system, is_final, erased, left_over, answered_at)
        SELECT r, s, round, step::rights_step, system, is_final, erased, left_over, $9
        FROM unnest($1::uuid[], $2::uuid[], $3::int[], $4::text[], $5::text[], $6::bool[], $7::bigint[], $8::bigint[])
             AS u(r, s, round, step, system, is_final, erased, left_over)
        ON CONFLICT (request_id, subject_id, round, step, system) DO UPDATE SET is_final = excluded.is_final,
            erased = excluded.erased, left_over = excluded.left_over, answered_at = excluded.answered_at""",
        [state.request_id for state, _ in replies],
        [state.subject_id for state, _ in replies],
        [state.round for state, _ in replies],
        [state.step for state, _ in replies],
        [reply.system for _, reply in replies],
        [reply.is_final for _, reply in replies],
        [reply.erased for _, reply in replies],
        [reply.left for _, reply in replies],
        now,
    )


async def save_parts(tx: Tx, replies: Sequence[HoldingsDescribed]) -> None:
    """The first reply of a system to a question counts, part by part.

    A name cannot have closed before an event named it for the first time: a system that says so is not believed.
    """
    rows = await tx.fetch(
        """-- save_parts
        INSERT INTO rights_parts SELECT * FROM unnest($1::uuid[], $2::text[], $3::int[], $4::int[])
        ON CONFLICT DO NOTHING RETURNING question_id, system, part""",
        [reply.request_id for reply in replies],
        [reply.system for reply in replies],
        [reply.part for reply in replies],
        [reply.parts for reply in replies],
    )
    fresh = {tuple(row) for row in rows}
    items = []
    for reply in replies:
        place = (reply.request_id, reply.system, reply.part)
        if place in fresh:
            fresh.remove(place)  # the same part may stand in one batch twice
            items += [(place, item, reply.subject_id) for item in reply.items]
    await tx.execute(
        """-- save_items
        INSERT INTO rights_items
        SELECT q, system, part, data_class, anchor, n, is_open,
               CASE WHEN closed_at IS NOT NULL THEN greatest(closed_at, (
                   SELECT max(i.first_seen) FROM inventory i
                   WHERE (i.subject_id, i.data_class, i.anchor) = (u.subject_id, u.data_class, u.anchor))) END
        FROM unnest($1::uuid[], $2::text[], $3::int[], $4::text[], $5::uuid[], $6::bigint[], $7::bool[],
                    $8::timestamptz[], $9::uuid[])
             AS u(q, system, part, data_class, anchor, n, is_open, closed_at, subject_id)""",
        [place[0] for place, _, _ in items],
        [place[1] for place, _, _ in items],
        [place[2] for place, _, _ in items],
        [item.data_class for _, item, _ in items],
        [item.anchor for _, item, _ in items],
        [item.row_count for _, item, _ in items],
        [item.is_open for _, item, _ in items],
        [item.closed_at for _, item, _ in items],
        [subject_id for _, _, subject_id in items],
    )


async def forget_questions(tx: Tx, states: Sequence[State]) -> None:
    """Delete the replies to the questions of these states, which have been asked anew."""
    await tx.execute(
        """-- forget_questions
        WITH u AS (
            SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::int[]) AS u(question_id, request_id, subject_id, round)
        ), parts AS (
            DELETE FROM rights_parts p USING u WHERE p.question_id = u.question_id
        )
        DELETE FROM rights_answers a USING u
        WHERE a.request_id = u.request_id AND a.subject_id = u.subject_id AND a.round = u.round AND a.step = 'describe'""",
        [state.question_id for state in states],
        [state.request_id for state in states],
        [state.subject_id for state in states],
        [state.round for state in states],
    )


async def read_complete(db: Database | Tx, question_ids: Iterable[UUID]) -> dict[UUID, frozenset[str]]:
    """The systems of which all parts are there, by question."""
    found: dict[UUID, set[str]] = defaultdict(set)
    for row in await db.fetch(
        """-- read_complete
        SELECT question_id, system FROM rights_parts WHERE question_id = ANY($1::uuid[])
        GROUP BY question_id, system HAVING count(*) >= max(parts)""",
        list(question_ids),
    ):
        found[row["question_id"]].add(row["system"])
    return {question: frozenset(systems) for question, systems in found.items()}


async def read_items(db: Database | Tx, question_ids: Sequence[UUID]) -> dict[UUID, list[Item]]:
    found: dict[UUID, list[Item]] = defaultdict(list)
    for row in await db.fetch(
        """-- read_items
        SELECT * FROM rights_items WHERE question_id = ANY($1::uuid[]) ORDER BY system, data_class, anchor""",
        list(question_ids),
    ):
        held = HeldItem(
            data_class=row["data_class"],
            anchor=row["anchor"],
            row_count=row["row_count"],
            is_open=row["is_open"],
            closed_at=row["closed_at"] and bounded(row["closed_at"]),
        )
        found[row["question_id"]].append(Item(row["system"], held))
    return found


async def save_keys(tx: Tx, keys: Sequence[tuple[State, KeyOutcome]]) -> set[tuple[UUID, UUID]]:
    """What the vault says of each key now; destroyed stays destroyed. Returns those that were not, as (request, key)."""
    rows = await tx.fetch(
        """-- save_keys
        INSERT INTO rights_keys AS known (key_id, request_id, subject_id, data_class, anchor, state, fingerprint)
        SELECT k, r, s, c, a, state::key_state, f
        FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::uuid[], $6::text[], $7::text[])
             AS u(k, r, s, c, a, state, f)
        ON CONFLICT (request_id, key_id) DO UPDATE SET state = excluded.state, fingerprint = excluded.fingerprint
        WHERE known.state <> 'destroyed'
        RETURNING request_id, key_id""",
        [key.key_id for _, key in keys],
        [state.request_id for state, _ in keys],
        [state.subject_id for state, _ in keys],
        [key.data_class for _, key in keys],
        [key.anchor for _, key in keys],
        [key.state for _, key in keys],
        [key.fingerprint for _, key in keys],
    )
    return {(row["request_id"], row["key_id"]) for row in rows}


async def save_horizons(tx: Tx, horizons: Sequence[tuple[State, date]]) -> None:
    await tx.execute(
        """-- save_horizons
        UPDATE rights_subjects s SET horizon = greatest(s.horizon, u.horizon)
        FROM unnest($1::uuid[], $2::date[]) AS u(revocation_id, horizon) WHERE s.revocation_id = u.revocation_id""",
        [state.revocation_id for state, _ in horizons],
        [horizon for _, horizon in horizons],
    )


async def save_recipients(tx: Tx, replies: Sequence[tuple[State, RecipientsTold]]) -> set[UUID]:
    """The whole state of each recipient, the last one of a batch. Returns the requests of which something changed."""
    last = {
        (state.request_id, state.subject_id, event.system, each.recipient): each
        for state, event in replies
        for each in event.recipients
    }
    rows = await tx.fetch(
        """-- save_recipients
        INSERT INTO rights_recipients AS r
        SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[],
                             $8::timestamptz[])
        ON CONFLICT (request_id, subject_id, system, recipient) DO UPDATE SET shipments = excluded.shipments,
            told = excluded.told, answered = excluded.answered, topic_clean_at = excluded.topic_clean_at
        WHERE (r.shipments, r.told, r.answered, r.topic_clean_at) IS DISTINCT FROM
              (excluded.shipments, excluded.told, excluded.answered, excluded.topic_clean_at)
        RETURNING request_id""",
        [request for request, _, _, _ in last],
        [subject for _, subject, _, _ in last],
        [system for _, _, system, _ in last],
        [recipient for _, _, _, recipient in last],
        [each.shipments for each in last.values()],
        [each.told for each in last.values()],
        [each.answered for each in last.values()],
        [each.topic_clean_at for each in last.values()],
    )
    return {row["request_id"] for row in rows}


async def mark_amended(tx: Tx, request_ids: Iterable[UUID], now: datetime) -> None:
    """The certificates of those that have ended say something that has changed since."""
    await tx.execute(
        """-- mark_amended
        UPDATE rights_requests SET is_amended_by = $2 WHERE request_id = ANY($1::uuid[]) AND status = 'completed'""",
        list(request_ids),
        now,
    )


async def take_amended(tx: Tx, now: datetime, limit: int) -> list[UUID]:
    """Ended requests whose certificates are to be amended by now, locked and no longer marked.

    Not while what was held goes: its holds are over, its keys still open, and a certificate now would say that all is gone.
    """
    rows = await tx.fetch(
        """-- take_amended
        UPDATE rights_requests SET is_amended_by = NULL WHERE request_id IN (
            SELECT request_id FROM rights_requests r WHERE is_amended_by <= $1 AND status = 'completed' AND NOT EXISTS (
                SELECT FROM rights_subjects s WHERE s.request_id = r.request_id AND s.step NOT IN ('held', 'done'))
            ORDER BY is_amended_by LIMIT $2 FOR UPDATE SKIP LOCKED)
        RETURNING request_id""",
        now,
        limit,
    )
    return [row["request_id"] for row in rows]


async def read_recipients(db: Database | Tx, request_ids: Sequence[UUID]) -> list[Record]:
    return await db.fetch(
        """-- read_rights_recipients
        SELECT * FROM rights_recipients WHERE request_id = ANY($1::uuid[]) ORDER BY subject_id, recipient""",
        list(request_ids),
    )


async def read_last_replies(tx: Tx, request_ids: Sequence[UUID]) -> list[Record]:
    """The last reply of each system about each subject at the steps `erase` and `probe`."""
    return await tx.fetch(
        """-- read_last_replies
        SELECT DISTINCT ON (request_id, subject_id, step, system) * FROM rights_answers
        WHERE request_id = ANY($1::uuid[]) AND step IN ('erase', 'probe')
        ORDER BY request_id, subject_id, step, system, round DESC""",
        list(request_ids),
    )


async def read_destroyed(tx: Tx, request_ids: Sequence[UUID]) -> list[Record]:
    return await tx.fetch(
        """-- read_destroyed
        SELECT * FROM rights_keys WHERE request_id = ANY($1::uuid[]) AND state = 'destroyed' ORDER BY key_id""",
        list(request_ids),
    )


async def read_subjects(tx: Tx, request_ids: Sequence[UUID]) -> list[Record]:
    return await tx.fetch(
        """-- read_subjects
        SELECT request_id, subject_id, horizon, round, version FROM rights_subjects LEFT JOIN rights_policies USING (policy)
        WHERE request_id = ANY($1::uuid[]) ORDER BY subject_id""",
        list(request_ids),
    )
