"""SQL of where the subjects of requests stand: locked with their requests, leased, saved. All of it takes batches."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from event_contracts.moments import bounded
from privacy_service.holds.domain import Basis, Hold, KeyRef, Scope
from privacy_service.sagas.definition import Kind, Step
from privacy_service.sagas.machine import State
from servicekit import Record, Tx
from servicekit.db.postgres import Database

_STATES: Final = """
    SELECT s.*, r.kind::text AS kind, r.data_classes FROM rights_subjects s JOIN rights_requests r USING (request_id)"""
# The request's row first: every change of a request locks it, always in this order.
_LOCKED: Final = " ORDER BY s.request_id, s.subject_id FOR UPDATE OF r, s"


async def insert_subjects(tx: Tx, states: Sequence[State]) -> None:
    """The subjects of new requests; `save_states` writes where they stand."""
    await tx.execute(
        """-- insert_subjects
        INSERT INTO rights_subjects
            (request_id, subject_id, revocation_id, step, since, policy, attempts, round, number, waiting_for)
        SELECT r, s, v, step::rights_step, since, policy, 0, 0, 0, '{}'
        FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::timestamptz[], $6::text[])
             AS u(r, s, v, step, since, policy)""",
        [state.request_id for state in states],
        [state.subject_id for state in states],
        [state.revocation_id for state in states],
        [state.step for state in states],
        [state.since for state in states],
        [state.policy for state in states],
    )
    names = [(state, name) for state in states for name in sorted(state.scope.names or ())]
    if names:
        await tx.execute(
            """-- insert_names
            INSERT INTO rights_names SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[])""",
            [state.request_id for state, _ in names],
            [state.subject_id for state, _ in names],
            [name.data_class for _, name in names],
            [name.anchor for _, name in names],
        )


async def lock_of_requests(tx: Tx, request_ids: Iterable[UUID]) -> list[State]:
    """All subjects of these requests, locked with their requests; so are all that follow."""
    where = " WHERE s.request_id = ANY($1::uuid[])"
    return await _states(tx, f"-- lock_of_requests{_STATES}{where}{_LOCKED}", list(request_ids))


async def lock_of_revocations(tx: Tx, revocation_ids: Iterable[UUID]) -> list[State]:
    where = " WHERE s.revocation_id = ANY($1::uuid[])"
    return await _states(tx, f"-- lock_of_revocations{_STATES}{where}{_LOCKED}", list(revocation_ids))


async def lock_of_questions(tx: Tx, question_ids: Iterable[UUID]) -> list[State]:
    where = " WHERE s.question_id = ANY($1::uuid[])"
    return await _states(tx, f"-- lock_of_questions{_STATES}{where}{_LOCKED}", list(question_ids))


async def lock_leased(tx: Tx, lease_id: UUID, states: Sequence[State]) -> list[State]:
    """Those of these that are still leased under this id."""
    where = " WHERE s.request_id = ANY($1::uuid[]) AND s.lease_id = $2"
    return await _states(
        tx, f"-- lock_leased{_STATES}{where}{_LOCKED}", [state.request_id for state in states], lease_id
    )


async def read_due(db: Database, now: datetime) -> tuple[set[Step], bool]:
    """The steps at which somebody's time has come, and whether a certificate is to be amended. Most runs find nothing, and
    this asks once for all."""
    row = await db.fetchrow(
        """-- read_due
        SELECT ARRAY(SELECT DISTINCT step::text FROM rights_subjects WHERE next_try_at <= $1) AS steps,
               EXISTS (SELECT FROM rights_requests WHERE is_amended_by <= $1) AS is_amended""",
        now,
    )
    assert row is not None
    return {Step(step) for step in row["steps"]}, row["is_amended"]


async def lock_due(tx: Tx, steps: Sequence[Step], now: datetime, limit: int) -> list[State]:
    """Subjects at these steps whose time has come; others that somebody works on are left out."""
    where = " WHERE s.next_try_at <= $1 AND s.step::text = ANY($2::text[])"
    order = " ORDER BY s.next_try_at LIMIT $3 FOR UPDATE OF r, s SKIP LOCKED"
    return await _states(tx, f"-- lock_due{_STATES}{where}{order}", now, list(steps), limit)


async def lock_together(tx: Tx, step: Step, now: datetime, limit: int) -> list[State]:
    """Due subjects at a step that all unfinished subjects of their request have reached."""
    where = """ WHERE s.next_try_at <= $1 AND s.step = $2::text::rights_step AND NOT EXISTS (
                    SELECT FROM rights_subjects o WHERE o.request_id = s.request_id
                    AND o.step NOT IN ($2::text::rights_step, 'held', 'done'))"""
    order = " ORDER BY s.next_try_at LIMIT $3 FOR UPDATE OF r, s SKIP LOCKED"
    return await _states(tx, f"-- lock_together{_STATES}{where}{order}", now, step, limit)


async def read_states(db: Database, request_id: UUID) -> list[State]:
    """Where the subjects of a request stand, for showing."""
    order = " ORDER BY s.subject_id"
    return await _states(db, f"-- read_states{_STATES} WHERE s.request_id = $1{order}", request_id)


async def _states(db: Database | Tx, sql: str, *args: object) -> list[State]:
    rows = await db.fetch(sql, *args)
    if not rows:
        return []
    ids = list({row["request_id"] for row in rows})
    # Read after the locks are held, so nobody changes them meanwhile.
    acknowledged: dict[tuple[UUID, UUID], set[str]] = defaultdict(set)
    for each in await db.fetch(
        """-- read_acknowledged
        SELECT a.request_id, a.subject_id, a.system FROM rights_answers a
        JOIN rights_subjects s USING (request_id, subject_id, round, step)
        WHERE a.request_id = ANY($1::uuid[]) AND a.is_final""",
        ids,
    ):
        acknowledged[each["request_id"], each["subject_id"]].add(each["system"])
    holds = await read_holds(db, ids)
    names: dict[tuple[UUID, UUID], set[KeyRef]] = defaultdict(set)
    if any(row["kind"] == Kind.RETENTION for row in rows):
        for each in await db.fetch("-- read_names\nSELECT * FROM rights_names WHERE request_id = ANY($1::uuid[])", ids):
            names[each["request_id"], each["subject_id"]].add(KeyRef(each["data_class"], each["anchor"]))
    states = []
    for row in rows:
        key, kind = (row["request_id"], row["subject_id"]), Kind(row["kind"])
        classes = None if row["data_classes"] is None else tuple(row["data_classes"])
        states.append(
            State(
                request_id=row["request_id"],
                subject_id=row["subject_id"],
                revocation_id=row["revocation_id"],
                kind=kind,
                scope=Scope(classes, frozenset(names[key]) if kind is Kind.RETENTION else None),
                step=Step(row["step"]),
                since=row["since"],
                policy=row["policy"],
                next_try_at=row["next_try_at"],
                attempts=row["attempts"],
                round=row["round"],
                number=row["number"],
                question_id=row["question_id"],
                acknowledged=frozenset(acknowledged.get(key, ())),
                waiting_for=frozenset(row["waiting_for"]),
                holds=tuple(holds.get(key, ())),
            )
        )
    return states


async def read_holds(db: Database | Tx, request_ids: Sequence[UUID]) -> dict[tuple[UUID, UUID], list[Hold]]:
    """By request and subject."""
    found: dict[tuple[UUID, UUID], list[Hold]] = defaultdict(list)
    for row in await db.fetch(
        """-- read_holds
        SELECT * FROM rights_holds WHERE request_id = ANY($1::uuid[]) ORDER BY data_class, anchor, basis::text""",
        list(request_ids),
    ):
        until = row["until"] and bounded(row["until"])
        hold = Hold(row["data_class"], row["anchor"], Basis(row["basis"]), until, row["row_count"])
        found[row["request_id"], row["subject_id"]].append(hold)
    return found


async def save_states(tx: Tx, states: Sequence[State]) -> None:
    """One statement; what is saved is no longer leased."""
    await tx.execute(
        """-- save_states
        UPDATE rights_subjects s SET step = u.step::rights_step, since = u.since, next_try_at = u.next_try_at,
               attempts = u.attempts, round = u.round, number = u.number, question_id = u.question_id, policy = u.policy,
               waiting_for = CASE WHEN u.waiting_for = '' THEN '{}' ELSE string_to_array(u.waiting_for, ',') END,
               lease_id = NULL
        FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::timestamptz[], $5::timestamptz[], $6::int[], $7::int[],
                    $8::bigint[], $9::uuid[], $10::text[], $11::text[])
             AS u(request_id, subject_id, step, since, next_try_at, attempts, round, number, question_id, waiting_for,
                  policy)
        WHERE s.request_id = u.request_id AND s.subject_id = u.subject_id""",
        [state.request_id for state in states],
        [state.subject_id for state in states],
        [state.step for state in states],
        [state.since for state in states],
        [state.next_try_at for state in states],
        [state.attempts for state in states],
        [state.round for state in states],
        [state.number for state in states],
        [state.question_id for state in states],
        [",".join(sorted(state.waiting_for)) for state in states],
        [state.policy for state in states],
    )


async def save_holds(tx: Tx, states: Sequence[State]) -> None:
    """Replaces the holds of these subjects."""
    await tx.execute(
        """-- forget_holds
        DELETE FROM rights_holds h USING unnest($1::uuid[], $2::uuid[]) AS u(request_id, subject_id)
        WHERE h.request_id = u.request_id AND h.subject_id = u.subject_id""",
        [state.request_id for state in states],
        [state.subject_id for state in states],
    )
    holds = [(state, hold) for state in states for hold in state.holds]
    await tx.execute(
        """-- save_holds
        INSERT INTO rights_holds (request_id, subject_id, data_class, anchor, basis, until, row_count)
        SELECT r, s, c, a, b::hold_basis, until, n
        FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[], $5::text[], $6::timestamptz[], $7::bigint[])
             AS u(r, s, c, a, b, until, n)""",
        [state.request_id for state, _ in holds],
        [state.subject_id for state, _ in holds],
        [hold.data_class for _, hold in holds],
        [hold.anchor for _, hold in holds],
        [hold.basis for _, hold in holds],
        [hold.until for _, hold in holds],
        [hold.rows for _, hold in holds],
    )


async def lease(tx: Tx, states: Sequence[State], lease_id: UUID, until: datetime) -> None:
    """Nobody else takes them up before `until`."""
    await tx.execute(
        """-- lease
        UPDATE rights_subjects s SET lease_id = $3, next_try_at = $4, attempts = s.attempts + 1
        FROM unnest($1::uuid[], $2::uuid[]) AS u(request_id, subject_id)
        WHERE s.request_id = u.request_id AND s.subject_id = u.subject_id""",
        [state.request_id for state in states],
        [state.subject_id for state in states],
        lease_id,
        until,
    )


async def postpone(tx: Tx, states: Sequence[State], until: datetime) -> None:
    await tx.execute(
        """-- postpone
        UPDATE rights_subjects s SET next_try_at = $3 FROM unnest($1::uuid[], $2::uuid[]) AS u(request_id, subject_id)
        WHERE s.request_id = u.request_id AND s.subject_id = u.subject_id""",
        [state.request_id for state in states],
        [state.subject_id for state in states],
        until,
    )


async def put_off(tx: Tx, states: Sequence[State], until: datetime) -> None:
    """Their work failed: nobody takes them up before `until`."""
    await tx.execute(
        """-- put_off
        UPDATE rights_subjects s SET lease_id = NULL, next_try_at = $3, attempts = s.attempts + 1
        FROM unnest($1::uuid[], $2::uuid[]) AS u(request_id, subject_id)
        WHERE s.request_id = u.request_id AND s.subject_id = u.subject_id""",
        [state.request_id for state in states],
        [state.subject_id for state in states],
        until,
    )


async def give_back(tx: Tx, lease_id: UUID, next_try_at: datetime) -> None:
    """The work failed: it is tried again at this time."""
    await tx.execute(
        "-- give_back\nUPDATE rights_subjects SET lease_id = NULL, next_try_at = $2 WHERE lease_id = $1",
        lease_id,
        next_try_at,
    )


async def start_running(tx: Tx, request_ids: Iterable[UUID]) -> None:
    """The point of no return of these erasures."""
    await tx.execute(
        """-- start_running
        UPDATE rights_requests SET status = 'running' WHERE request_id = ANY($1::uuid[]) AND status = 'waiting'""",
        list(request_ids),
    )


async def complete(tx: Tx, request_ids: Iterable[UUID], now: datetime) -> list[UUID]:
    """Ends the requests of which all subjects are through; what is held of them goes later. Returns those."""
    rows = await tx.fetch(
        """-- complete
        UPDATE rights_requests r SET status = 'completed', reason = 'fulfilled', ended_at = $2
        WHERE request_id = ANY($1::uuid[]) AND status = 'running' AND NOT EXISTS (
            SELECT FROM rights_subjects s WHERE s.request_id = r.request_id AND s.step NOT IN ('held', 'done'))
        RETURNING request_id""",
        list(request_ids),
        now,
    )
    return [row["request_id"] for row in rows]


async def refuse(tx: Tx, reasons: Mapping[UUID, str], now: datetime) -> None:
    """End requests as denied, since the owners of the data refuse."""
    await tx.execute(
        """-- refuse
        UPDATE rights_requests r SET status = 'denied', reason = u.reason::request_reason, ended_at = $3
        FROM unnest($1::uuid[], $2::text[]) AS u(request_id, reason)
        WHERE r.request_id = u.request_id AND r.status = 'running'""",
        list(reasons),
        list(reasons.values()),
        now,
    )


async def read_requests(tx: Tx, request_ids: Sequence[UUID]) -> list[Record]:
    """`request_id`, `kind`, `status` and `data_classes` of these, for their certificates."""
    return await tx.fetch(
        """-- read_requests
        SELECT request_id, kind::text, status::text, data_classes FROM rights_requests
        WHERE request_id = ANY($1::uuid[])""",
        list(request_ids),
    )


async def knows_policy(tx: Tx, digest: str) -> bool:
    return bool(await tx.fetchval("-- knows_policy\nSELECT true FROM rights_policies WHERE policy = $1", digest))


async def write_policy(tx: Tx, digest: str, version: str, document: str) -> None:
    await tx.execute(
        "-- write_policy\nINSERT INTO rights_policies VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        digest,
        version,
        document,
    )


async def read_policies(db: Database | Tx, digests: Sequence[str]) -> list[tuple[str, str]]:
    """(digest, document) of those that are known."""
    rows = await db.fetch(
        "-- read_policies\nSELECT policy, document FROM rights_policies WHERE policy = ANY($1::text[])", list(digests)
    )
    return [(row["policy"], row["document"]) for row in rows]
