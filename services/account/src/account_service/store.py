"""All SQL of the account service. Functions take a transaction, or for reads alone the database."""

from collections.abc import Sequence
from datetime import datetime
from typing import TypeAlias
from uuid import UUID

from asyncpg import UniqueViolationError

from account_service.domain import EMAIL_TAKEN, Notice, PageView
from account_service.mails.domain import Language
from event_contracts import Sealed
from event_contracts.account import Address, Browsing, Contact, Credentials, Favourite, Identity
from event_contracts.moments import LATEST
from servicekit import Cursor, Paging, Record, Tx
from servicekit.core.errors import Conflict
from servicekit.db.postgres import Database

Source: TypeAlias = Tx | Database

# In a list the newest comes first; a page ends behind the row (time, id) of its cursor.
_END_OF_TIME = Cursor(LATEST, UUID(int=0))


async def insert_account(
    tx: Tx,
    subject_id: UUID,
    email_digest: bytes | None,
    identity: Sealed[Identity] | None,
    contact: Sealed[Contact],
    credentials: Sealed[Credentials] | None,
    language: Language,
    now: datetime,
    *,
    listed: bool = True,
) -> bool:
    """False when the id or the e-mail address is taken. Without a digest it is a guest.

    `listed` says whether the vault's directory has it already.
    """
    row = await tx.fetchrow(
        """-- insert_account
        INSERT INTO accounts (subject_id, guest, email_digest, identity, contact, credentials, language, registered_at, listed)
        VALUES ($1, $2::bytea IS NULL, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING RETURNING subject_id""",
        subject_id,
        email_digest,
        identity,
        contact,
        credentials,
        language.value,
        now,
        listed,
    )
    return row is not None


async def find_account(source: Source, subject_id: UUID) -> Record | None:
    return await source.fetchrow("-- find_account\nSELECT * FROM accounts WHERE subject_id = $1", subject_id)


async def find_by_email(source: Source, email_digest: bytes) -> Record | None:
    return await source.fetchrow(
        "-- find_by_email\nSELECT subject_id, credentials FROM accounts WHERE email_digest = $1", email_digest
    )


async def lock_by_email(tx: Tx, email_digest: bytes) -> Record | None:
    return await tx.fetchrow(
        """-- lock_by_email
        SELECT subject_id, contact, language FROM accounts WHERE email_digest = $1 FOR NO KEY UPDATE""",
        email_digest,
    )


async def lock_account(tx: Tx, subject_id: UUID) -> Record | None:
    """The account's version numbers, whether it has these parts, its contact and language, with its row locked:
    from here to the commit no other event of the person is made.
    """
    return await tx.fetchrow(
        """-- lock_account
        SELECT identity_number, contact_number, identity IS NOT NULL AS has_identity, contact IS NOT NULL AS has_contact,
               contact, language
        FROM accounts WHERE subject_id = $1 FOR UPDATE""",
        subject_id,
    )


async def update_identity(tx: Tx, subject_id: UUID, number: int, identity: Sealed[Identity]) -> None:
    await tx.execute(
        "-- update_identity\nUPDATE accounts SET identity = $3, identity_number = $2 WHERE subject_id = $1",
        subject_id,
        number,
        identity,
    )


async def update_contact(tx: Tx, subject_id: UUID, number: int, contact: Sealed[Contact]) -> None:
    await tx.execute(
        "-- update_contact\nUPDATE accounts SET contact = $3, contact_number = $2 WHERE subject_id = $1",
        subject_id,
        number,
        contact,
    )


async def update_language(tx: Tx, subject_id: UUID, language: Language) -> None:
    await tx.execute(
        "-- update_language\nUPDATE accounts SET language = $2 WHERE subject_id = $1", subject_id, language.value
    )


async def move_sign_in(tx: Tx, subject_id: UUID, email_digest: bytes) -> None:
    """Sign-in goes by another e-mail address from now on. Raises `Conflict` when it belongs to another account."""
    try:
        await tx.execute(
            "-- move_sign_in\nUPDATE accounts SET email_digest = $2 WHERE subject_id = $1", subject_id, email_digest
        )
    except UniqueViolationError:
        raise Conflict(EMAIL_TAKEN) from None


async def count_addresses(tx: Tx, subject_id: UUID) -> int:
    count: int = await tx.fetchval(
        "-- count_addresses\nSELECT count(*) FROM addresses WHERE subject_id = $1", subject_id
    )
    return count


async def find_address(source: Source, subject_id: UUID, address_id: UUID) -> Record | None:
    return await source.fetchrow(
        "-- find_address\nSELECT * FROM addresses WHERE subject_id = $1 AND address_id = $2", subject_id, address_id
    )


async def list_addresses(source: Source, subject_id: UUID, paging: Paging) -> list[Record]:
    after = paging.after or _END_OF_TIME
    return await source.fetch(
        """-- list_addresses
        SELECT * FROM addresses WHERE subject_id = $1 AND (added_at, address_id) < ($2, $3)
        ORDER BY added_at DESC, address_id DESC LIMIT $4""",
        subject_id,
        after.at,
        after.id,
        paging.fetch,
    )


async def insert_address(
    tx: Tx, subject_id: UUID, address_id: UUID, address: Sealed[Address], body_digest: bytes, now: datetime
) -> None:
    await tx.execute(
        """-- insert_address
        INSERT INTO addresses (subject_id, address_id, address, body_digest, added_at) VALUES ($1, $2, $3, $4, $5)""",
        subject_id,
        address_id,
        address,
        body_digest,
        now,
    )


async def replace_address(tx: Tx, subject_id: UUID, address_id: UUID, address: Sealed[Address]) -> int | None:
    """The new version's number; None when there is no such address."""
    number: int | None = await tx.fetchval(
        """-- replace_address
        UPDATE addresses SET address = $3, number = number + 1 WHERE subject_id = $1 AND address_id = $2
        RETURNING number""",
        subject_id,
        address_id,
        address,
    )
    return number


async def count_favourites(tx: Tx, subject_id: UUID) -> int:
    count: int = await tx.fetchval(
        "-- count_favourites\nSELECT count(*) FROM favourites WHERE subject_id = $1", subject_id
    )
    return count


async def find_favourite(source: Source, subject_id: UUID, favourite_id: UUID) -> Record | None:
    return await source.fetchrow(
        "-- find_favourite\nSELECT * FROM favourites WHERE subject_id = $1 AND favourite_id = $2",
        subject_id,
        favourite_id,
    )


async def list_favourites(source: Source, subject_id: UUID, paging: Paging) -> list[Record]:
    after = paging.after or _END_OF_TIME
    return await source.fetch(
        """-- list_favourites
        SELECT * FROM favourites WHERE subject_id = $1 AND (added_at, favourite_id) < ($2, $3)
        ORDER BY added_at DESC, favourite_id DESC LIMIT $4""",
        subject_id,
        after.at,
        after.id,
        paging.fetch,
    )


async def insert_favourite(
    tx: Tx, subject_id: UUID, favourite_id: UUID, favourite: Sealed[Favourite], body_digest: bytes, now: datetime
) -> None:
    await tx.execute(
        """-- insert_favourite
        INSERT INTO favourites (subject_id, favourite_id, favourite, body_digest, added_at) VALUES ($1, $2, $3, $4, $5)""",
        subject_id,
        favourite_id,
        favourite,
        body_digest,
        now,
    )


async def insert_browsing(
    tx: Tx, subject_id: UUID, views: Sequence[PageView], months: Sequence[UUID], sealed: Sequence[Sealed[Browsing]]
) -> set[UUID]:
    """The ids among `views` that were not there yet. One statement for all."""
    rows = await tx.fetch(
        """-- insert_browsing
        INSERT INTO browsing (subject_id, browsing_id, month_id, kind, seconds, browsing, at)
        SELECT $1, u.* FROM unnest($2::uuid[], $3::uuid[], $4::text[], $5::int[], $6::bytea[], $7::timestamptz[]) u
        ON CONFLICT DO NOTHING RETURNING browsing_id""",
        subject_id,
        [view.browsing_id for view in views],
        list(months),
        [view.kind.value for view in views],
        [view.seconds for view in views],
        list(sealed),
        [view.at for view in views],
    )
    return {row["browsing_id"] for row in rows}


async def list_browsing(source: Source, subject_id: UUID, paging: Paging) -> list[Record]:
    after = paging.after or _END_OF_TIME
    return await source.fetch(
        """-- list_browsing
        SELECT * FROM browsing WHERE subject_id = $1 AND (at, browsing_id) < ($2, $3)
        ORDER BY at DESC, browsing_id DESC LIMIT $4""",
        subject_id,
        after.at,
        after.id,
        paging.fetch,
    )


async def insert_notices(tx: Tx, notices: Sequence[Notice]) -> int:
    """How many were not there yet: an event that comes again changes nothing."""
    status = await tx.execute(
        """-- insert_notices
        INSERT INTO notices (subject_id, order_id, kind, notice_id, at, recorded_at)
        SELECT u.*, $6 FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[], $5::timestamptz[]) AS u
        ON CONFLICT DO NOTHING""",
        [notice.subject_id for notice in notices],
        [notice.order_id for notice in notices],
        [notice.kind.value for notice in notices],
        [notice.notice_id for notice in notices],
        [notice.at for notice in notices],
        tx.now(),
    )
    return int(status.split()[-1])


async def list_notices(source: Source, subject_id: UUID, paging: Paging) -> list[Record]:
    after = paging.after or _END_OF_TIME
    return await source.fetch(
        """-- list_notices
        SELECT order_id, kind, notice_id, at FROM notices WHERE subject_id = $1 AND (at, notice_id) < ($2, $3)
        ORDER BY at DESC, notice_id DESC LIMIT $4""",
        subject_id,
        after.at,
        after.id,
        paging.fetch,
    )
