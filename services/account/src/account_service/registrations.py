"""Registering: a sealed row and a mail, whether or not the address has an account; the account exists when it is confirmed.

The answer to a registration tells nothing: the work is the same for every address, and only the mail says more. Confirming
takes the code, which shows who reads the mailbox, and the password, which shows who made the registration. An address may
have several registrations: its owner confirms their own, and those of others end after a day.
"""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from account_service import registrations_store
from account_service import store as accounts
from account_service.domain import EMAIL_TAKEN, REGISTRATION_LIFE, check_birth_date
from account_service.mails import sending
from account_service.mails import store as mails_store
from account_service.mails.domain import MAILS_A_DAY, MAILS_A_DAY_FROM_A_PEER, Language, Mail, Template
from account_service.sign_in import Access
from event_contracts import Erased, Sealed
from event_contracts.account import AccountRegistered, Contact, Credentials, Identity
from servicekit import Job, Kit, Opening, Record, Tx
from servicekit.core.errors import Conflict, Gone, KeyReused, Unauthenticated
from servicekit.core.faults import declare, faultpoint
from servicekit.vault.client import IndexEntry
from servicekit.vault.leases import KeyName

TRIES: Final = 10
WRONG: Final = "The code or the password is wrong, or the code is too old. Check both, or register again."

declare("account.confirmed")


@dataclass(frozen=True)
class Registration:
    identity: Identity
    contact: Contact
    password: str = field(repr=False)
    language: Language


async def register(kit: Kit, access: Access, subject_id: UUID, new: Registration, peer: str) -> None:
    """Records a registration and its mail. Does nothing for an address that had its mails of the day.

    Again with the same id changes nothing. Raises `KeyReused` for an id that was used for another registration, `Gone` for one
    that is erased, `TooMany`.
    """
    check_birth_date(new.identity, kit.clock.now().date())
    digest = await kit.digest("email", new.contact.email)
    await access.admit_new(digest, peer)
    if await _is_known(kit, access, subject_id, new) or not await _may_mail(kit, digest, peer):
        return
    credentials = Credentials(password_hash=await access.passwords.hash(new.password))
    # Nothing goes to the directory: nobody knows yet whether the address is theirs.
    identity, contact, sealed_credentials = await kit.seal_many(
        [(part, subject_id, subject_id) for part in (new.identity, new.contact, credentials)], people=[subject_id]
    )
    mail = confirmation(subject_id, new.language, contact)

    async def work(tx: Tx) -> bool:
        now = kit.clock.now()
        if not await registrations_store.insert_registration(
            tx, subject_id, identity, contact, sealed_credentials, new.language, now
        ):
            return False
        await mails_store.insert_mails(tx, [mail], now)
        tx.wake(kit.wakes[sending.JOB])
        return True

    if not await kit.run_tx("register", work):
        await _is_known(kit, access, subject_id, new)


def confirmation(subject_id: UUID, language: Language, contact: Sealed[Contact]) -> Mail:
    return Mail(Template.CONFIRM, subject_id, subject_id, 1, language, contact)


async def _is_known(kit: Kit, access: Access, subject_id: UUID, new: Registration) -> bool:
    """Whether this very registration was made before. Raises `KeyReused` when it was another one."""
    row = await registrations_store.find_registration(kit.db, subject_id, kit.clock.now() - REGISTRATION_LIFE)
    row = row or await accounts.find_account(kit.db, subject_id)
    if row is None:
        return False
    held = [(row["identity"], Identity), (row["contact"], Contact), (row["credentials"], Credentials)]
    if any(token is None for token, _ in held):
        raise Gone
    wanted: list[Opening[Any]] = [Opening(Sealed(token), model, subject_id, subject_id) for token, model in held]
    identity, contact = await kit.open_many(wanted[:2], purpose="own_access")
    credentials = await kit.open(wanted[2], purpose="authentication")
    if any(isinstance(part, Erased) for part in (identity, contact)) or isinstance(credentials, Erased):
        raise Gone
    is_same = (identity, contact, row["language"]) == (new.identity, new.contact, new.language.value)
    if not await access.passwords.verify(credentials.password_hash, new.password) or not is_same:
        raise KeyReused
    return True


async def _may_mail(kit: Kit, email_digest: bytes, peer: str) -> bool:
    """Counts before anything is sealed, in all processes together. One peer cannot use up the mails of an address."""
    day = kit.clock.now().date()
    mailer = kit.context(sending.Mailer)
    from_peer = mailer.codes.count_digest(email_digest + peer.encode(), day, "mails_from_peer")

    async def work(tx: Tx) -> bool:
        if not await registrations_store.count_mail(tx, from_peer, day, MAILS_A_DAY_FROM_A_PEER):
            return False
        return await registrations_store.count_mail(tx, mailer.codes.count_digest(email_digest, day), day, MAILS_A_DAY)

    return await kit.run_tx("count_mail", work)


async def confirm(kit: Kit, access: Access, subject_id: UUID, code: str, password: str, peer: str) -> None:
    """Makes the account. Again with the right code and password changes nothing.

    Raises `Unauthenticated` for a wrong code, a wrong password and an unknown registration alike, `TooMany` when an
    account that exists is tried as often as one may sign in, `Conflict` when the address got another account meanwhile:
    its owner has a mail that says so.
    """

    async def take(tx: Tx) -> Record | None:
        return await registrations_store.take_try(tx, subject_id, kit.clock.now() - REGISTRATION_LIFE, TRIES)

    row = await kit.run_tx("take_try", take)
    mailer = kit.context(sending.Mailer)
    # A password costs 64 MiB to check: only who has the code makes this service check one.
    if not mailer.codes.is_right(subject_id, code):
        raise Unauthenticated(WRONG)
    pending = row
    if row is None:
        row = await accounts.find_account(kit.db, subject_id)
        if row is None or row["email_digest"] is None:
            raise Unauthenticated(WRONG)
        await access.admit_sign_in(row["email_digest"], peer)
    contact = await _open_contact(kit, access, row, password)
    if pending is not None:
        await _make_account(kit, pending, await kit.digest("email", contact.email))
        faultpoint("account.confirmed")
    await _list(kit, subject_id, contact)


async def _open_contact(kit: Kit, access: Access, row: Record, password: str) -> Contact:
    """The contact of a registration or an account. Raises `Unauthenticated` unless the password is that of the row."""
    if row["contact"] is None or row["credentials"] is None:
        raise Unauthenticated(WRONG)
    me = row["subject_id"]
    wanted: list[Opening[Any]] = [
        Opening(Sealed(row["contact"]), Contact, me, me),
        Opening(Sealed(row["credentials"]), Credentials, me, me),
    ]
    contact, credentials = await kit.open_many(wanted, purpose="authentication")
    if isinstance(contact, Erased) or isinstance(credentials, Erased):
        raise Unauthenticated(WRONG)
    if not await access.passwords.verify(credentials.password_hash, password):
        raise Unauthenticated(WRONG)
    return contact  # type: ignore[no-any-return]


async def _make_account(kit: Kit, row: Record, digest: bytes) -> None:
    me, language = row["subject_id"], Language(row["language"])
    identity: Sealed[Identity] = Sealed(row["identity"])
    contact: Sealed[Contact] = Sealed(row["contact"])
    credentials: Sealed[Credentials] = Sealed(row["credentials"])
    mailer = kit.context(sending.Mailer)
    day = kit.clock.now().date()

    async def work(tx: Tx) -> bool:
        if not await registrations_store.delete_registration(tx, me):
            return True  # confirmed by a request beside this one
        if not await accounts.insert_account(
            tx, me, digest, identity, contact, credentials, language, kit.clock.now(), listed=False
        ):
            # In this transaction: the registration is gone after it, and no second try would write the mail.
            if await registrations_store.count_mail(tx, mailer.codes.count_digest(digest, day), day, MAILS_A_DAY):
                await sending.tell_owner(kit, tx, digest, me)
            return False
        await tx.emit(
            AccountRegistered(subject_id=me, identity=identity, contact=contact),
            sending.disclosure_of(confirmation(me, language, contact).mail_id, me, Template.CONFIRM, kit),
        )
        return True

    if not await kit.run_tx("confirm", work):
        raise Conflict(EMAIL_TAKEN)


async def _list(kit: Kit, subject_id: UUID, contact: Contact) -> None:
    """The account is committed: from now on the directory finds the person."""
    name = KeyName(subject_id, str(Contact.data_class), subject_id)
    await kit.vault.ensure([name], await index_entries(kit, contact, key=0))

    async def work(tx: Tx) -> None:
        await registrations_store.mark_listed(tx, subject_id)

    await kit.run_tx("mark_listed", work)


async def index_entries(kit: Kit, contact: Contact, key: int) -> list[IndexEntry]:
    """What the directory finds a person by, left beside the contact's key: the one at position `key`."""
    terms = {"email": contact.email, "phone": contact.phone}
    return [IndexEntry(kind, await kit.digest(kind, term), key) for kind, term in terms.items() if term is not None]


async def tidy(kit: Kit) -> None:
    """Job: registrations that nobody confirmed die; accounts that a crash kept out of the directory come into it."""
    now = kit.clock.now()

    async def work(tx: Tx) -> None:
        await registrations_store.delete_expired(tx, now - REGISTRATION_LIFE)
        await registrations_store.forget_counts(tx, now.date())

    await kit.run_tx("expire_registrations", work)
    for row in await registrations_store.unlisted(kit.db, 100):
        sealed: Sealed[Contact] = Sealed(row["contact"])
        subject_id = row["subject_id"]
        contact = await kit.open(Opening(sealed, Contact, subject_id, subject_id), purpose="authentication")
        if not isinstance(contact, Erased):
            await _list(kit, subject_id, contact)


JOBS: Final = (Job("registrations", timedelta(minutes=1), tidy),)
