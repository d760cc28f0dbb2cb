"""What the account service does with accounts: sign-in, guests, the person's own data, and their notices.

Sealing and opening come before the transaction, which holds no network call. Every change locks the account's row
first, so a person's events are published in the order of their commits (docs/protocols.md#publishing).
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from account_service import store
from account_service.domain import (
    EMAIL_TAKEN,
    GUEST_RETRY,
    NOTICE_OF,
    NOTICE_OF_PROGRESS,
    Notice,
    NoticeKind,
    check_birth_date,
    edited,
)
from account_service.mails import store as mails_store
from account_service.mails.domain import Language, Mail, Template
from account_service.mails.sending import record
from account_service.registrations import index_entries
from account_service.sign_in import Access, AccessToken
from event_contracts import Erased, Event, Sealed
from event_contracts.account import (
    AccountRegistered,
    Contact,
    ContactChanged,
    Credentials,
    Identity,
    IdentityChanged,
)
from event_contracts.order import (
    DeliveryCorrected,
    OrderCancelled,
    OrderDelivered,
    OrderHandedOver,
    OrderPlaced,
    OrderProgressed,
)
from servicekit import Kit, Opening, Received, Record, RecordId, Tx
from servicekit.core.errors import Conflict, Gone, KeyReused, NotFound, Unauthenticated
from servicekit.kafka.batches import in_order
from servicekit.vault.client import IndexEntry

_EDIT_TRIES = 3
KEY_USED = "This Idempotency-Key was used too long ago. Send the request with a fresh one."


@dataclass(frozen=True)
class Account:
    """A person's own view. A part is None when it is erased; a guest has no identity."""

    subject_id: UUID
    guest: bool
    language: Language
    registered_at: datetime
    identity: Identity | None
    identity_number: int
    contact: Contact | None
    contact_number: int


async def sign_in(kit: Kit, access: Access, email: str, password: str, peer: str) -> AccessToken:
    """Raises `Unauthenticated`, alike and after the same time for an unknown address and a wrong password;
    `TooMany`.
    """
    digest = await kit.digest("email", email)
    await access.admit_sign_in(digest, peer)
    asked = kit.clock.boottime()
    row = await store.find_by_email(kit.db, digest)
    stored = None if row is None else await _password_hash(kit, row)
    if not await access.passwords.verify(stored, password) or row is None:
        await asyncio.sleep(access.rest_of_refusal(kit.clock.boottime() - asked))
        raise Unauthenticated("No account has this e-mail address with this password. Check both and try again.")
    await access.remember(digest, peer)
    return access.tokens.customer(row["subject_id"])


async def _password_hash(kit: Kit, row: Record) -> str | None:
    """None when it is erased."""
    if row["credentials"] is None:
        return None
    subject_id = row["subject_id"]
    sealed: Sealed[Credentials] = Sealed(row["credentials"])
    opening = Opening(sealed, Credentials, subject_id, subject_id)
    opened = await kit.open(opening, purpose="authentication")
    return None if isinstance(opened, Erased) else opened.password_hash


async def add_guest(
    kit: Kit, access: Access, subject_id: UUID, contact: Contact, language: Language, peer: str
) -> AccessToken:
    """A subject for guest orders. With the same id, contact and language the token is given again, for an hour.

    Raises `KeyReused` for an id that another guest has, `Gone` for one that is erased, `Conflict` after the hour, `TooMany`.
    """
    await access.admit_new(await kit.digest("email", contact.email), peer)
    if (row := await store.find_account(kit.db, subject_id)) is not None:
        await _check_guest_retry(kit, row, contact, language)
        return access.tokens.guest(subject_id)
    index = await index_entries(kit, contact, key=0)
    (sealed,) = await kit.seal_many([(contact, subject_id, subject_id)], index, people=[subject_id])
    event = AccountRegistered(subject_id=subject_id, guest=True, identity=None, contact=sealed)

    async def work(tx: Tx) -> bool:
        inserted = await store.insert_account(tx, subject_id, None, None, sealed, None, language, kit.clock.now())
        if inserted:
            await tx.emit(event)
        return inserted

    if not await kit.run_tx("add_guest", work):
        row = await store.find_account(kit.db, subject_id)
        await _check_guest_retry(kit, row, contact, language)
    return access.tokens.guest(subject_id)


async def _check_guest_retry(kit: Kit, row: Record | None, contact: Contact, language: Language) -> None:
    if row is None or row["contact"] is None:
        raise Gone
    subject_id = row["subject_id"]
    sealed: Sealed[Contact] = Sealed(row["contact"])
    opened = await kit.open(Opening(sealed, Contact, subject_id, subject_id), purpose="authentication")
    if isinstance(opened, Erased):
        raise Gone
    if not row["guest"] or (opened, row["language"]) != (contact, language.value):
        raise KeyReused
    if kit.clock.now() - row["registered_at"] >= GUEST_RETRY:
        raise Conflict(KEY_USED)


async def show_account(kit: Kit, subject_id: UUID) -> Account:
    """Raises `NotFound`."""
    row = await store.find_account(kit.db, subject_id)
    if row is None:
        raise NotFound
    return await _open_account(kit, row)


async def _open_account(kit: Kit, row: Record) -> Account:
    subject_id = row["subject_id"]
    models = {"identity": Identity, "contact": Contact}
    held = [name for name in models if row[name] is not None]
    wanted: list[Opening[Any]] = [Opening(Sealed(row[name]), models[name], subject_id, subject_id) for name in held]
    opened = await kit.open_many(wanted, purpose="own_access")
    parts = {name: None if isinstance(part, Erased) else part for name, part in zip(held, opened, strict=True)}
    return Account(
        subject_id=subject_id,
        guest=row["guest"],
        language=Language(row["language"]),
        registered_at=row["registered_at"],
        identity=parts.get("identity"),
        identity_number=row["identity_number"],
        contact=parts.get("contact"),
        contact_number=row["contact_number"],
    )


async def edit_account(kit: Kit, subject_id: UUID, changes: dict[str, Any]) -> Account:
    """The account after `changes`: fields of identity and contact, and the language.

    A part that changes gets the next version number.

    Raises `NotFound`, `Invalid`, `Conflict` when the address is taken or somebody else edits all the time.
    """
    changes = dict(changes)
    language: Language | None = changes.pop("language", None)
    if language is not None:
        await kit.run_tx("update_language", lambda tx: store.update_language(tx, subject_id, language))
    for _ in range(_EDIT_TRIES):
        account = await show_account(kit, subject_id)
        if account.identity is None or account.contact is None:
            raise Conflict("What should be edited is erased. Nothing can be changed in it.")
        identity, contact = edited(account.identity, account.contact, changes)
        if identity is None and contact is None:
            return account
        if await _save_edit(kit, account, identity, contact):
            return await show_account(kit, subject_id)
    raise Conflict("The account is being edited elsewhere. Read it again and decide.")


async def _check_free(kit: Kit, subject_id: UUID, email_digest: bytes) -> None:
    """Raises `Conflict` when the address is somebody else's."""
    row = await store.find_by_email(kit.db, email_digest)
    if row is not None and row["subject_id"] != subject_id:
        raise Conflict(EMAIL_TAKEN)


async def _save_edit(kit: Kit, account: Account, identity: Identity | None, contact: Contact | None) -> bool:
    """False when the account is no longer at the versions that `account` shows."""
    me = account.subject_id
    digest = None
    index: list[IndexEntry] = []
    if identity is not None:
        check_birth_date(identity, kit.clock.now().date())
    if contact is not None:
        digest = await kit.digest("email", contact.email)
        await _check_free(kit, me, digest)  # or the directory would lose the address that stays
        index = await index_entries(kit, contact, key=0)
    changed = [part for part in (contact, identity) if part is not None]
    sealed = await kit.seal_many([(part, me, me) for part in changed], index)
    by_type = {type(part): token for part, token in zip(changed, sealed, strict=True)}

    async def work(tx: Tx) -> bool:
        row = await store.lock_account(tx, me)
        seen = (account.identity_number, account.contact_number)
        if row is None or (row["identity_number"], row["contact_number"]) != seen:
            return False
        if Identity in by_type:
            number = account.identity_number + 1
            await store.update_identity(tx, me, number, by_type[Identity])
            await tx.emit(IdentityChanged(subject_id=me, number=number, identity=by_type[Identity]))
        if digest is not None:
            number = account.contact_number + 1
            await store.update_contact(tx, me, number, by_type[Contact])
            await store.move_sign_in(tx, me, digest)
            await tx.emit(ContactChanged(subject_id=me, number=number, contact=by_type[Contact]))
            if is_other_mailbox(account.contact, contact):
                await tell_old_address(kit, tx, me, row, number)
        return True

    return await kit.run_tx("edit_account", work)


def is_other_mailbox(old: Contact | None, new: Contact | None) -> bool:
    return old is not None and new is not None and old.email != new.email


async def tell_old_address(kit: Kit, tx: Tx, subject_id: UUID, locked: Record, number: int) -> None:
    """A mail to the address that version `number` replaces; `locked` is the account's row from before."""
    old: Sealed[Contact] = Sealed(locked["contact"])
    mail = Mail(Template.EMAIL_CHANGED, subject_id, subject_id, number, Language(locked["language"]), old)
    await record(kit, tx, [mail])


async def apply_order_events(kit: Kit, tx: Tx, events: Sequence[Received[Any]], _: Mapping[RecordId, None]) -> None:
    """Notices by natural keys, and mails about deliveries that were changed."""
    for contract, received in in_order(events):
        await ORDER_HANDLERS[contract](kit, tx, received)


async def on_delivery_corrected(kit: Kit, tx: Tx, received: Sequence[Received[DeliveryCorrected]]) -> None:
    """Writes a mail to the buyer. Guests, erased people and people whom this service does not know get none."""
    reachable = await mails_store.lock_reachable(tx, list({each.event.buyer_id for each in received}))
    contacts: dict[UUID, Sealed[Contact]] = {row["subject_id"]: Sealed(row["contact"]) for row in reachable}
    languages = {row["subject_id"]: Language(row["language"]) for row in reachable}
    revoked = await tx.revoked([contact.key_id for contact in contacts.values()])
    mails = [
        Mail(
            Template.DELIVERY_CHANGED, event.buyer_id, event.order_id, event.number, languages[event.buyer_id], contact
        )
        for event in (each.event for each in received)
        if (contact := contacts.get(event.buyer_id)) is not None and contact.key_id not in revoked
    ]
    if mails:
        await record(kit, tx, mails)


async def on_order_placed(kit: Kit, tx: Tx, received: Sequence[Received[OrderPlaced]]) -> None:
    await _notify(tx, [(each, each.event.placed_at) for each in received])


async def on_order_cancelled(kit: Kit, tx: Tx, received: Sequence[Received[OrderCancelled]]) -> None:
    await _notify(tx, [(each, each.time) for each in received])


async def on_order_handed_over(kit: Kit, tx: Tx, received: Sequence[Received[OrderHandedOver]]) -> None:
    await _notify(tx, [(each, each.event.at) for each in received])


async def on_order_delivered(kit: Kit, tx: Tx, received: Sequence[Received[OrderDelivered]]) -> None:
    await _notify(tx, [(each, each.event.at) for each in received])


async def on_order_progressed(kit: Kit, tx: Tx, received: Sequence[Received[OrderProgressed]]) -> None:
    told = [each for each in received if each.event.status in NOTICE_OF_PROGRESS]
    await _notify(tx, [(each, each.event.at) for each in told])


async def _notify(tx: Tx, received: Sequence[tuple[Received[Any], datetime]]) -> None:
    """The buyer's notice of each event; one per order and kind, however often the event comes. None for who was erased."""
    erased = await tx.erased_subjects([each.event.buyer_id for each, _ in received])
    notices = [
        Notice(each.event.buyer_id, each.event.order_id, _kind_of(each.event), at)
        for each, at in received
        if each.event.buyer_id not in erased
    ]
    if notices:
        await store.insert_notices(tx, notices)


def _kind_of(event: Event) -> NoticeKind:
    return NOTICE_OF_PROGRESS[event.status] if isinstance(event, OrderProgressed) else NOTICE_OF[type(event)]


ORDER_HANDLERS: Final[Mapping[type[Any], Callable[[Kit, Tx, Sequence[Received[Any]]], Awaitable[None]]]] = {
    OrderPlaced: on_order_placed,
    DeliveryCorrected: on_delivery_corrected,
    OrderCancelled: on_order_cancelled,
    OrderHandedOver: on_order_handed_over,
    OrderDelivered: on_order_delivered,
    OrderProgressed: on_order_progressed,
}
