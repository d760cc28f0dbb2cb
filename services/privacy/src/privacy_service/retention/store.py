"""SQL of the retention runs, their questions and scans. `found.store` has that of what they find."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from event_contracts.moments import bounded
from event_contracts.privacy import ExpiredFound, HoldingsDescribed
from privacy_service.retention.domain import Cursor, Question
from servicekit import Record, Tx
from servicekit.db.postgres import Database


@dataclass(frozen=True, slots=True)
class Run:
    """`unanswered`: the systems that were silent when the next run began, with which it ended."""

    run_id: UUID
    dry_run: bool
    begun_at: datetime
    ended_at: datetime | None
    unanswered: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scan:
    """How far a run has looked through the keys of a class ("": of all without a scan of their own)."""

    run_id: UUID
    data_class: str
    created_before: datetime
    after: tuple[datetime, UUID] | None
    dry_run: bool


async def lock_head(tx: Tx) -> None:
    """One at a time begins a run, or opens requests: the next one sees what they did."""
    await tx.fetchval("-- lock_head\nSELECT only_row FROM retention_head FOR UPDATE")


async def is_due(tx: Tx, since: datetime) -> bool:
    """Whether no real run was begun after a moment."""
    due: bool = await tx.fetchval(
        """-- is_due
        SELECT NOT EXISTS (SELECT FROM retention_runs WHERE NOT dry_run AND NOT only_looks AND begun_at > $1)""",
        since,
    )
    return due


async def looks_under_way(tx: Tx) -> int:
    count: int = await tx.fetchval(
        "-- looks_under_way\nSELECT count(*) FROM retention_runs WHERE ended_at IS NULL AND only_looks"
    )
    return count


async def insert_run(
    tx: Tx, run_id: UUID, dry_run: bool, opener_id: UUID | None, now: datetime, *, only_looks: bool = False
) -> bool:
    """False when there is a run of this id already."""
    status = await tx.execute(
        """-- insert_run
        INSERT INTO retention_runs (run_id, dry_run, opener_id, begun_at, only_looks) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT DO NOTHING""",
        run_id,
        dry_run,
        opener_id,
        now,
        only_looks,
    )
    return status.endswith(" 1")


async def insert_scans(tx: Tx, run_id: UUID, before: Mapping[str, datetime]) -> None:
    """Each scan continues where that of the last real run ended. What that one found is in `key_looks`, replies or not."""
    await tx.execute(
        """-- insert_scans
        INSERT INTO retention_scans (run_id, data_class, created_before, after_at, after_key, is_done)
        SELECT $1, u.data_class, u.created_before, last.after_at, last.after_key, false
        FROM unnest($2::text[], $3::timestamptz[]) AS u(data_class, created_before)
        LEFT JOIN LATERAL (
            SELECT s.after_at, s.after_key FROM retention_scans s JOIN retention_runs r USING (run_id)
            WHERE s.data_class = u.data_class AND NOT r.dry_run AND r.ended_at IS NOT NULL
            ORDER BY r.begun_at DESC LIMIT 1
        ) AS last ON true""",
        run_id,
        list(before),
        list(before.values()),
    )


async def read_run(db: Database | Tx, run_id: UUID) -> Run | None:
    row = await db.fetchrow("-- read_run\nSELECT * FROM retention_runs WHERE run_id = $1", run_id)
    return None if row is None else _run(row)


async def read_under_way(db: Database) -> list[Run]:
    rows = await db.fetch(
        "-- read_under_way\nSELECT * FROM retention_runs WHERE ended_at IS NULL ORDER BY begun_at LIMIT 100"
    )
    return [_run(row) for row in rows]


def _run(row: Record) -> Run:
    return Run(row["run_id"], row["dry_run"], row["begun_at"], row["ended_at"], tuple(row["unanswered"]))


async def lock_run(tx: Tx, run_id: UUID) -> tuple[Run, bool] | None:
    """The run, if it is under way, no scan of it is open, and what is open of its questions was asked again.

    With it whether none is open: what they found is then all there is.
    """
    row = await tx.fetchrow(
        """-- lock_run
        SELECT r.*, NOT EXISTS (
            SELECT FROM retention_questions q WHERE q.run_id = r.run_id AND q.next_try_at IS NOT NULL) AS is_answered
        FROM retention_runs r WHERE run_id = $1 AND ended_at IS NULL
        AND NOT EXISTS (SELECT FROM retention_questions q
                        WHERE q.run_id = r.run_id AND q.next_try_at IS NOT NULL AND q.attempts = 1)
        AND NOT EXISTS (SELECT FROM retention_scans s WHERE s.run_id = r.run_id AND NOT s.is_done) FOR UPDATE""",
        run_id,
    )
    return None if row is None else (_run(row), row["is_answered"])


async def end_unanswered(tx: Tx, since: datetime, now: datetime, wanted: Sequence[tuple[str | None, str]]) -> None:
    """Runs begun before a moment that are under way end, with who is silent. What they have found is found again."""
    rows = await tx.fetch(
        """-- end_unanswered
        UPDATE retention_runs SET ended_at = $2 WHERE ended_at IS NULL AND begun_at <= $1 RETURNING run_id""",
        since,
        now,
    )
    run_ids = [row["run_id"] for row in rows]
    silent = await read_silent(tx, run_ids, wanted)
    await tx.execute(
        """-- end_unanswered: who
        UPDATE retention_runs r SET unanswered = ARRAY(
            SELECT u.system FROM unnest($2::uuid[], $3::text[]) AS u(run_id, system)
            WHERE u.run_id = r.run_id ORDER BY u.system)
        WHERE r.run_id = ANY($1::uuid[])""",
        run_ids,
        [row["run_id"] for row in silent],
        [row["system"] for row in silent],
    )
    for table in ("retention_questions", "retention_found"):
        await tx.execute(f"-- end_unanswered: rest\nDELETE FROM {table} WHERE run_id = ANY($1::uuid[])", run_ids)
    await tx.execute(
        "-- end_unanswered: scans\nUPDATE retention_scans SET is_done = true WHERE run_id = ANY($1::uuid[])", run_ids
    )


async def end_run(tx: Tx, run_id: UUID, now: datetime) -> None:
    """The counts and the places of the scans stay; what was asked goes."""
    await tx.execute("-- end_run\nUPDATE retention_runs SET ended_at = $2 WHERE run_id = $1", run_id, now)
    await tx.execute("-- end_run: questions\nDELETE FROM retention_questions WHERE run_id = $1", run_id)


async def delete_looks(tx: Tx, before: datetime, limit: int) -> None:
    """Runs that only looked at keys and ended before a moment go with what hangs on them."""
    rows = await tx.fetch(
        """-- delete_looks
        SELECT run_id FROM retention_runs WHERE only_looks AND ended_at < $1 ORDER BY begun_at LIMIT $2
        FOR UPDATE SKIP LOCKED""",
        before,
        limit,
    )
    run_ids = [row["run_id"] for row in rows]
    for table in (
        *("retention_questions", "retention_found", "retention_counts"),
        *("retention_scans", "retention_runs"),
    ):
        await tx.execute(f"-- delete_looks: {table}\nDELETE FROM {table} WHERE run_id = ANY($1::uuid[])", run_ids)


async def insert_questions(tx: Tx, questions: Sequence[Question], now: datetime, next_try_at: datetime) -> None:
    await tx.execute(
        """-- insert_questions
        INSERT INTO retention_questions
            (question_id, run_id, data_class, is_unused, closed_before, after_closed_at, after_anchor, subject_id,
             asked_at, next_try_at, attempts)
        SELECT u.*, $9, $10, 1
        FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::bool[], $5::timestamptz[], $6::timestamptz[], $7::uuid[],
                    $8::uuid[]) AS u""",
        [each.question_id for each in questions],
        [each.run_id for each in questions],
        [each.data_class for each in questions],
        [each.is_unused for each in questions],
        [each.closed_before for each in questions],
        [each.after.closed_at if each.after else None for each in questions],
        [each.after.anchor if each.after else None for each in questions],
        [each.subject_id for each in questions],
        now,
        next_try_at,
    )


async def lock_questions(tx: Tx, question_ids: Iterable[UUID]) -> dict[UUID, Question]:
    """Those of these that are not answered, by id."""
    rows = await tx.fetch(
        """-- lock_questions
        SELECT * FROM retention_questions WHERE question_id = ANY($1::uuid[]) AND next_try_at IS NOT NULL
        ORDER BY question_id FOR UPDATE""",
        list(question_ids),
    )
    return {row["question_id"]: _question(row) for row in rows}


async def lock_due_questions(tx: Tx, now: datetime, limit: int) -> list[tuple[Question, int]]:
    """Those that are to be asked again, with how often they were asked."""
    rows = await tx.fetch(
        """-- lock_due_questions
        SELECT * FROM retention_questions WHERE next_try_at <= $1
        ORDER BY next_try_at LIMIT $2 FOR UPDATE SKIP LOCKED""",
        now,
        limit,
    )
    return [(_question(row), row["attempts"]) for row in rows]


def _question(row: Record) -> Question:
    after = None if row["after_anchor"] is None else Cursor(bounded(row["after_closed_at"]), row["after_anchor"])
    return Question(
        row["question_id"],
        row["run_id"],
        row["data_class"],
        row["closed_before"],
        row["is_unused"],
        after,
        row["subject_id"],
    )


async def ask_again(tx: Tx, questions: Sequence[tuple[UUID, datetime]]) -> None:
    """Each with when it is asked the next time."""
    await tx.execute(
        """-- ask_again
        UPDATE retention_questions q SET attempts = q.attempts + 1, next_try_at = u.next_try_at
        FROM unnest($1::uuid[], $2::timestamptz[]) AS u(question_id, next_try_at) WHERE q.question_id = u.question_id""",
        [question_id for question_id, _ in questions],
        [next_try_at for _, next_try_at in questions],
    )


async def end_questions(tx: Tx, question_ids: Sequence[UUID]) -> None:
    await tx.execute(
        "-- end_questions\nUPDATE retention_questions SET next_try_at = NULL WHERE question_id = ANY($1::uuid[])",
        list(question_ids),
    )


async def save_pages(tx: Tx, replies: Sequence[ExpiredFound]) -> set[tuple[UUID, str]]:
    """Each system's first reply to a question counts. Returns (question, system) of those that are."""
    rows = await tx.fetch(
        """-- save_pages
        INSERT INTO retention_answers SELECT * FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::uuid[])
        ON CONFLICT DO NOTHING RETURNING question_id, system""",
        [each.request_id for each in replies],
        [each.system for each in replies],
        [each.items[-1].closed_at if each.items and not each.is_all else None for each in replies],
        [each.items[-1].anchor if each.items and not each.is_all else None for each in replies],
    )
    return {(row["question_id"], row["system"]) for row in rows}


async def save_parts(tx: Tx, replies: Sequence[HoldingsDescribed]) -> None:
    """Notes the parts of what systems say that they hold; a system with all of its parts has answered."""
    await tx.execute(
        """-- save_parts
        INSERT INTO retention_parts SELECT * FROM unnest($1::uuid[], $2::text[], $3::int[], $4::int[])
        ON CONFLICT DO NOTHING""",
        [each.request_id for each in replies],
        [each.system for each in replies],
        [each.part for each in replies],
        [each.parts for each in replies],
    )
    await tx.execute(
        """-- save_parts: whole
        INSERT INTO retention_answers (question_id, system)
        SELECT question_id, system FROM retention_parts WHERE question_id = ANY($1::uuid[])
        GROUP BY question_id, system HAVING count(*) >= max(parts) ON CONFLICT DO NOTHING""",
        [each.request_id for each in replies],
    )


async def read_replies(tx: Tx, question_ids: Iterable[UUID]) -> dict[UUID, dict[str, Cursor | None]]:
    """By question and system: where a page ended that was not all, None where it was."""
    rows = await tx.fetch(
        "-- read_replies\nSELECT * FROM retention_answers WHERE question_id = ANY($1::uuid[])", list(question_ids)
    )
    found: dict[UUID, dict[str, Cursor | None]] = {}
    for row in rows:
        place = None if row["last_anchor"] is None else Cursor(bounded(row["last_closed_at"]), row["last_anchor"])
        found.setdefault(row["question_id"], {})[row["system"]] = place
    return found


async def read_silent(
    db: Database | Tx, run_ids: Sequence[UUID], wanted: Sequence[tuple[str | None, str]]
) -> list[Record]:
    """The systems that have not answered, by run, each with the earliest question and when it is asked again.

    `wanted` are (class, system): who must reply to a question about a class, and (None, system) about a person.
    """
    return await db.fetch(
        """-- read_silent
        SELECT q.run_id, wanted.system, min(q.asked_at) AS since, min(q.next_try_at) AS next_try_at
        FROM retention_questions q JOIN unnest($2::text[], $3::text[]) AS wanted(data_class, system)
             ON wanted.data_class IS NOT DISTINCT FROM q.data_class
        WHERE q.run_id = ANY($1::uuid[]) AND q.next_try_at IS NOT NULL AND NOT EXISTS (
            SELECT FROM retention_answers a WHERE a.question_id = q.question_id AND a.system = wanted.system
        ) GROUP BY q.run_id, wanted.system ORDER BY q.run_id, wanted.system""",
        list(run_ids),
        [data_class for data_class, _ in wanted],
        [system for _, system in wanted],
    )


async def read_scans(db: Database) -> list[Scan]:
    """Those that are not done."""
    rows = await db.fetch("""-- read_scans
        SELECT s.*, r.dry_run FROM retention_scans s JOIN retention_runs r USING (run_id) WHERE NOT s.is_done LIMIT 100""")
    return [
        Scan(
            row["run_id"],
            row["data_class"],
            row["created_before"],
            None if row["after_key"] is None else (row["after_at"], row["after_key"]),
            row["dry_run"],
        )
        for row in rows
    ]


async def move_scan(tx: Tx, scan: Scan, to: tuple[datetime, UUID] | None, is_done: bool) -> bool:
    """`to` None: it stays at its place. False when somebody else has moved it."""
    after, target = scan.after or (None, None), to or scan.after or (None, None)
    status = await tx.execute(
        """-- move_scan
        UPDATE retention_scans SET after_at = $4, after_key = $5, is_done = $6
        WHERE run_id = $1 AND data_class = $2 AND after_key IS NOT DISTINCT FROM $3 AND NOT is_done""",
        scan.run_id,
        scan.data_class,
        after[1],
        target[0],
        target[1],
        is_done,
    )
    return status.endswith(" 1")
