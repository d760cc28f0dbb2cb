"""SQL of registrations that wait for their confirmation, and of mails counted by address and day."""

from collections.abc import Sequence
from datetime import date, datetime
from uuid import UUID

from account_service.mails.domain import Language
from event_contracts import Sealed
from event_contracts.account import Contact, Credentials, Identity
from servicekit import Record, Tx
from servicekit.db.postgres import Database


async def insert_registration(
    tx: Tx,
    subject_id: UUID,
    identity: Sealed[Identity],
    contact: Sealed[Contact],
    credentials: Sealed[Credentials],
    language: Language,
    now: datetime,
) -> bool:
    """False when there is one of this id."""
    row = await tx.fetchrow(
        """-- insert_registration
        INSERT INTO registrations (subject_id, identity, contact, credentials, language, registered_at)
        VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING RETURNING subject_id""",
        subject_id,
        identity,
        contact,
        credentials,
        language.value,
        now,
    )
    return row is not None


async def find_registration(db: Database, subject_id: UUID, registered_after: datetime) -> Record | None:
    return await db.fetchrow(
        "-- find_registration\nSELECT * FROM registrations WHERE subject_id = $1 AND registered_at > $2",
        subject_id,
        registered_after,
    )


async def take_try(tx: Tx, subject_id: UUID, registered_after: datetime, limit: int) -> Record | None:
    """Counts one try to confirm. None when there is no such registration, or it had all its tries."""
    return await tx.fetchrow(
        """-- take_try
        UPDATE registrations SET tries = tries + 1 WHERE subject_id = $1 AND registered_at > $2 AND tries < $3
        RETURNING *""",
        subject_id,
        registered_after,
        limit,
    )


async def delete_registration(tx: Tx, subject_id: UUID) -> bool:
    status = await tx.execute("-- delete_registration\nDELETE FROM registrations WHERE subject_id = $1", subject_id)
    return status == "DELETE 1"


async def delete_expired(tx: Tx, before: datetime) -> Sequence[Record]:
    """Takes them away with their mails."""
    return await tx.fetch(
        """-- delete_expired_registrations
        WITH gone AS (DELETE FROM registrations WHERE registered_at <= $1 RETURNING subject_id),
             mails_gone AS (DELETE FROM mails m USING gone g WHERE m.subject_id = g.subject_id)
        SELECT subject_id FROM gone""",
        before,
    )


async def count_mail(tx: Tx, digest: bytes, day: date, limit: int) -> bool:
    """Counts one mail. False when the address had all its mails of the day."""
    row = await tx.fetchrow(
        """-- count_mail
        INSERT INTO mail_counts AS c (day, digest, mails) VALUES ($1, $2, 1)
        ON CONFLICT (day, digest) DO UPDATE SET mails = c.mails + 1 WHERE c.mails < $3 RETURNING mails""",
        day,
        digest,
        limit,
    )
    return row is not None


async def mails_of_day(db: Database, digest: bytes, day: date) -> int:
    sql = "-- mails_of_day\nSELECT mails FROM mail_counts WHERE day = $1 AND digest = $2"
    return await db.fetchval(sql, day, digest) or 0


async def forget_counts(tx: Tx, before: date) -> None:
    await tx.execute("-- forget_counts\nDELETE FROM mail_counts WHERE day < $1", before)


async def mark_listed(tx: Tx, subject_id: UUID) -> None:
    await tx.execute("-- mark_listed\nUPDATE accounts SET listed = true WHERE subject_id = $1", subject_id)


async def unlisted(db: Database, limit: int) -> list[Record]:
    """Accounts that the directory does not have yet."""
    return await db.fetch(
        "-- unlisted\nSELECT subject_id, contact FROM accounts WHERE NOT listed AND contact IS NOT NULL LIMIT $1", limit
    )
