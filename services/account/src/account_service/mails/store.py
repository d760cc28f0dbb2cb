"""SQL of mails."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from account_service.mails.domain import Mail
from servicekit import Record, Tx
from servicekit.db.postgres import Database


async def insert_mails(tx: Tx, mails: Sequence[Mail], now: datetime) -> set[UUID]:
    """The ids of those that were not recorded yet."""
    rows = await tx.fetch(
        """-- insert_mails
        INSERT INTO mails (mail_id, subject_id, template, about, language, contact, key_id, recorded_at, next_try_at)
        SELECT u.*, $8, $8
        FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[], $5::text[], $6::bytea[], $7::uuid[]) u
        ON CONFLICT DO NOTHING RETURNING mail_id""",
        [mail.mail_id for mail in mails],
        [mail.subject_id for mail in mails],
        [mail.template.value for mail in mails],
        [mail.about for mail in mails],
        [mail.language.value for mail in mails],
        [mail.contact for mail in mails],
        [mail.contact.key_id for mail in mails],
        now,
    )
    return {row["mail_id"] for row in rows}


async def lock_reachable(tx: Tx, subjects: Sequence[UUID]) -> list[Record]:
    """Address and language of these people who have confirmed their address, their rows locked, in the order of ids."""
    return await tx.fetch(
        """-- lock_reachable
        SELECT subject_id, contact, language FROM accounts
        WHERE subject_id = ANY($1::uuid[]) AND contact IS NOT NULL AND NOT guest
        ORDER BY subject_id FOR NO KEY UPDATE""",
        list(subjects),
    )


async def claim(tx: Tx, now: datetime, lease: timedelta, limit: int) -> list[Record]:
    """Id and tries of mails that are due, the oldest first. Nobody else gets them before the lease is over."""
    return await tx.fetch(
        """-- claim_mails
        UPDATE mails m SET next_try_at = $2 FROM (
            SELECT mail_id FROM mails WHERE state = 'recorded' AND next_try_at <= $1
            ORDER BY next_try_at LIMIT $3 FOR UPDATE SKIP LOCKED) due
        WHERE m.mail_id = due.mail_id RETURNING m.mail_id, m.tries""",
        now,
        now + lease,
        limit,
    )


async def find_recorded(db: Database, mail_id: UUID) -> Record | None:
    """The mail while it waits. None after an erasure: that deletes the row."""
    return await db.fetchrow("-- find_recorded\nSELECT * FROM mails WHERE mail_id = $1 AND state = 'recorded'", mail_id)


async def postpone(tx: Tx, mail_ids: Sequence[UUID], until: Sequence[datetime]) -> None:
    await tx.execute(
        """-- postpone_mails
        UPDATE mails m SET tries = m.tries + 1, next_try_at = u.until
        FROM unnest($1::uuid[], $2::timestamptz[]) u(mail_id, until)
        WHERE m.mail_id = u.mail_id AND m.state = 'recorded'""",
        list(mail_ids),
        list(until),
    )


async def release(tx: Tx, mail_ids: Sequence[UUID], now: datetime) -> None:
    await tx.execute(
        "-- release_mails\nUPDATE mails SET next_try_at = $2 WHERE mail_id = ANY($1::uuid[]) AND state = 'recorded'",
        list(mail_ids),
        now,
    )


async def finish(tx: Tx, mail_id: UUID, state: str, reason: str | None, now: datetime) -> None:
    """The mail's end; the address that it went to is no longer kept with it."""
    await tx.execute(
        """-- finish_mail
        UPDATE mails SET state = $2, reason = $3, ended_at = $4, contact = NULL
        WHERE mail_id = $1 AND state = 'recorded'""",
        mail_id,
        state,
        reason,
        now,
    )


async def delete_ended(tx: Tx, before: datetime) -> None:
    await tx.execute("-- delete_ended_mails\nDELETE FROM mails WHERE state <> 'recorded' AND ended_at < $1", before)


async def count_recorded(db: Database) -> int:
    count: int = await db.fetchval("-- count_recorded\nSELECT count(*) FROM mails WHERE state = 'recorded'")
    return count
