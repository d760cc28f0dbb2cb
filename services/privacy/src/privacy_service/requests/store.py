"""SQL of the requests. `sagas.store` has that of their subjects, and of what a saga changes of a request."""

from collections.abc import Collection, Iterable, Sequence
from typing import Final
from uuid import UUID

from privacy_service.history.domain import Person
from privacy_service.requests.domain import Check, Extension, Reason, Regime, Request, Status
from privacy_service.sagas.definition import Kind
from servicekit import Paging, Record, Tx
from servicekit.core.errors import Conflict
from servicekit.db.postgres import Database

_REQUEST: Final = "SELECT * FROM rights_requests WHERE request_id = $1"


async def insert_request(tx: Tx, request: Request, body_digest: bytes | None = None) -> bool:
    """False when there is a request of this id already."""
    status = await tx.execute(
        """-- insert_request
        INSERT INTO rights_requests (request_id, kind, status, opener_id, opener_role, opened_at, due_at, data_classes,
                                     regime, identity, body_digest)
        VALUES ($1, $2::text::request_kind, $3::text::request_status, $4, $5, $6, $7, $8, $9::text::request_regime,
                $10::text::request_check, $11) ON CONFLICT DO NOTHING""",
        request.request_id,
        request.kind,
        request.status,
        request.opener.person_id,
        request.opener.role,
        request.opened_at,
        request.due_at,
        None if request.data_classes is None else list(request.data_classes),
        request.regime,
        request.check,
        body_digest,
    )
    return status.endswith(" 1")


async def lock_openings(tx: Tx, kind: Kind, subject_ids: Sequence[UUID]) -> None:
    """Until the end of the transaction nobody else opens a request of this kind for these people. All take the locks in one
    order."""
    await tx.execute(
        """-- lock_openings
        SELECT pg_advisory_xact_lock(number) FROM (
            SELECT DISTINCT hashtextextended('rights.open ' || $1::text, 0) # hashtextextended(subject::text, 0) AS number
            FROM unnest($2::uuid[]) AS u(subject) ORDER BY number) AS numbers""",
        kind,
        list(subject_ids),
    )


async def refuse_second(source: Database | Tx, request_id: UUID, kind: Kind, subject_ids: Sequence[UUID]) -> None:
    """Raises `Conflict` when one of these people has another open request of this kind, whoever opened it."""
    found = await source.fetchval(
        """-- refuse_second
        SELECT request_id FROM rights_subjects JOIN rights_requests r USING (request_id)
        WHERE subject_id = ANY($3::uuid[]) AND request_id <> $1 AND r.kind = $2::text::request_kind AND r.ended_at IS NULL
        ORDER BY r.opened_at LIMIT 1""",
        request_id,
        kind,
        list(subject_ids),
    )
    if found is not None:
        raise Conflict(
            f"There is an open request of this kind for the same person: {found}. Wait for its end, or cancel it first."
        )


async def update_requests(tx: Tx, requests: Collection[Request]) -> None:
    """All that may change of a request after it was opened."""
    await tx.execute(
        """-- update_requests
        UPDATE rights_requests r SET status = u.status::request_status, identity = u.identity::request_check,
               approver_id = u.approver_id, approver_role = u.approver_role, reason = u.reason::request_reason,
               ended_at = u.ended_at, due_at = u.due_at, extension = u.extension::request_extension
        FROM unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::text[], $6::text[], $7::timestamptz[],
                    $8::timestamptz[], $9::text[])
             AS u(request_id, status, identity, approver_id, approver_role, reason, ended_at, due_at, extension)
        WHERE r.request_id = u.request_id""",
        [request.request_id for request in requests],
        [request.status for request in requests],
        [request.check for request in requests],
        [request.approver.person_id if request.approver else None for request in requests],
        [request.approver.role if request.approver else None for request in requests],
        [request.reason for request in requests],
        [request.ended_at for request in requests],
        [request.due_at for request in requests],
        [request.extension for request in requests],
    )


async def read_request(db: Database | Tx, request_id: UUID) -> Request | None:
    row = await db.fetchrow(f"-- read_request\n{_REQUEST}", request_id)
    return None if row is None else _request(row)


async def read_body_digest(db: Database, request_id: UUID) -> bytes | None:
    digest: bytes | None = await db.fetchval(
        "-- read_body_digest\nSELECT body_digest FROM rights_requests WHERE request_id = $1", request_id
    )
    return digest


async def lock_requests(tx: Tx, request_ids: Iterable[UUID]) -> dict[UUID, Request]:
    """Those of these that there are, by their id."""
    rows = await tx.fetch(
        """-- lock_requests
        SELECT * FROM rights_requests WHERE request_id = ANY($1::uuid[]) ORDER BY request_id FOR UPDATE""",
        list(request_ids),
    )
    return {row["request_id"]: _request(row) for row in rows}


def _request(row: Record) -> Request:
    approver = Person(row["approver_id"], row["approver_role"]) if row["approver_id"] else None
    return Request(
        request_id=row["request_id"],
        kind=Kind(row["kind"]),
        status=Status(row["status"]),
        opener=Person(row["opener_id"], row["opener_role"]),
        opened_at=row["opened_at"],
        due_at=row["due_at"],
        data_classes=None if row["data_classes"] is None else tuple(row["data_classes"]),
        regime=Regime(row["regime"]),
        check=Check(row["identity"]) if row["identity"] else None,
        approver=approver,
        reason=Reason(row["reason"]) if row["reason"] else None,
        ended_at=row["ended_at"],
        extension=Extension(row["extension"]) if row["extension"] else None,
    )


async def list_requests(db: Database, status: str | None, paging: Paging) -> list[Request]:
    """In the order of opening."""
    rows = await db.fetch(
        """-- list_requests
        SELECT * FROM rights_requests
        WHERE ($1::text IS NULL OR status = $1::text::request_status)
          AND ($2::timestamptz IS NULL OR (opened_at, request_id) > ($2, $3::uuid))
        ORDER BY opened_at, request_id LIMIT $4""",
        status,
        paging.after.at if paging.after else None,
        paging.after.id if paging.after else None,
        paging.fetch,
    )
    return [_request(row) for row in rows]


async def list_own_requests(db: Database, subject_id: UUID, paging: Paging) -> list[Request]:
    """What was asked for about this person and nobody else, in the order of opening. It begins at the person, so it costs
    what they asked for and not what all did."""
    rows = await db.fetch(
        """-- list_own_requests
        SELECT r.* FROM rights_subjects mine JOIN rights_requests r USING (request_id)
        WHERE mine.subject_id = $1 AND r.kind <> 'retention' AND NOT EXISTS (
              SELECT FROM rights_subjects s WHERE s.request_id = r.request_id AND s.subject_id <> $1)
          AND ($2::timestamptz IS NULL OR (r.opened_at, r.request_id) > ($2, $3::uuid))
        ORDER BY r.opened_at, r.request_id LIMIT $4""",
        subject_id,
        paging.after.at if paging.after else None,
        paging.after.id if paging.after else None,
        paging.fetch,
    )
    return [_request(row) for row in rows]
