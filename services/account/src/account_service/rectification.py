"""Support's corrections of a person's basic data, on the privacy service's command: a new version, as by the person.

The values come sealed under the person's own key. They are opened to move what follows from them (the sign-in address, the
directory's digests), and sealed again; a value that is in force already makes no version.
What a correction leaves out stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from account_service import store
from account_service.handlers import is_other_mailbox, tell_old_address
from account_service.registrations import index_entries
from event_contracts import Erased, Sealed
from event_contracts.account import (
    Contact,
    ContactChanged,
    ContactCorrection,
    Identity,
    IdentityChanged,
    IdentityCorrection,
    is_birth_date,
)
from event_contracts.personal import PersonalData
from event_contracts.privacy import HoldingsRectified, RectifyHoldings, Refusal
from servicekit import Kit, Opening, Received, Record, RecordId, Tx
from servicekit.core.errors import Conflict, Fenced, Poison

PURPOSE = "rights_request"


@dataclass(frozen=True)
class Change:
    """One command: the numbers of the versions that it was prepared on (0: no such part), and what is to be stored.

    `refused`: nothing is stored, and the answer says why. `leaves_mailbox`: the e-mail address becomes another one.
    """

    request_id: UUID
    subject_id: UUID
    numbers: tuple[int, int]
    asked: tuple[bool, bool]
    identity: Sealed[Identity] | None = None
    contact: Sealed[Contact] | None = None
    email_digest: bytes | None = None
    leaves_mailbox: bool = False
    refused: Refusal | None = None


async def prepare_rectification(kit: Kit, events: Sequence[Received[RectifyHoldings]]) -> dict[RecordId, Change]:
    """Opens and seals what each command brings. One that asks for another account's e-mail address is refused whole."""
    return {received.record_id: await _prepare(kit, received.event) for received in events}


async def _prepare(kit: Kit, command: RectifyHoldings) -> Change:
    row = await store.find_account(kit.db, command.subject_id)
    asked = (command.identity is not None, command.contact is not None)
    nothing = Change(command.request_id, command.subject_id, _numbers(row), asked)
    if row is None:
        return nothing
    wanted, held = await _opened(kit, command, row)
    identity, contact = (_corrected(new, old) for new, old in zip(wanted, held, strict=True))
    if identity is None and contact is None:
        return nothing
    try:
        nothing = replace(nothing, leaves_mailbox=is_other_mailbox(held[1], contact))
        return await _sealed(kit, nothing, identity, contact, is_guest=row["guest"])
    except Fenced:
        return nothing


async def _opened(kit: Kit, command: RectifyHoldings, row: Record) -> tuple[list[Any], list[Any]]:
    """The values of the command and those in force: (identity, contact) each, None where there is none or it is erased."""
    me = command.subject_id
    tokens = (command.identity, command.contact, *(row[n] and Sealed(row[n]) for n in ("identity", "contact")))
    models = (IdentityCorrection, ContactCorrection, Identity, Contact)
    openings: list[Opening[Any]] = [Opening(t, m, me, me) for t, m in zip(tokens, models, strict=True) if t is not None]
    opened = iter(await kit.open_many(openings, purpose=PURPOSE))
    values = [None if token is None else next(opened) for token in tokens]
    values = [None if isinstance(value, Erased) else value for value in values]
    return values[:2], values[2:]


def _corrected(correction: PersonalData | None, held: Any) -> Any:
    """The value with what is corrected in it; None if that is nothing, or one of them is erased: that is not brought back."""
    if correction is None or held is None:
        return None
    following = held.model_copy(update=correction.model_dump(exclude_none=True))
    return following if following != held else None


async def _sealed(
    kit: Kit, change: Change, identity: Identity | None, contact: Contact | None, *, is_guest: bool
) -> Change:
    me = change.subject_id
    digest = None
    if contact is not None and not is_guest:
        digest = await kit.digest("email", contact.email)
        owner = await store.find_by_email(kit.db, digest)
        if owner is not None and owner["subject_id"] != me:
            return replace(change, refused=Refusal.EMAIL_TAKEN)
    today = kit.clock.now().date()
    if identity is not None and identity.birth_date is not None and not is_birth_date(identity.birth_date, today):
        raise Poison("implausible_birth_date")
    parts = [part for part in (contact, identity) if part is not None]
    index = [] if contact is None else await index_entries(kit, contact, key=0)
    sealed = await kit.seal_many([(part, me, me) for part in parts], index)
    by_type: dict[type, Sealed[Any]] = {type(part): token for part, token in zip(parts, sealed, strict=True)}
    return replace(change, identity=by_type.get(Identity), contact=by_type.get(Contact), email_digest=digest)


async def apply_rectification(
    kit: Kit, tx: Tx, events: Sequence[Received[RectifyHoldings]], changes: Mapping[RecordId, Change]
) -> None:
    """Makes the new versions and answers. Raises `Conflict`, and is tried again, if an account changed meanwhile."""
    for received in events:
        change = changes[received.record_id]
        number = 0 if change.refused else await _apply(kit, tx, change)
        answer = HoldingsRectified(
            request_id=change.request_id,
            subject_id=change.subject_id,
            system=kit.name,
            number=number,
            refused=change.refused,
        )
        await tx.emit(answer)


async def _apply(kit: Kit, tx: Tx, change: Change) -> int:
    """The highest number in force of the parts that were to be corrected; 0 when none of them is held."""
    me = change.subject_id
    locked = await store.lock_account(tx, me)
    if locked is None:
        return 0
    identity_number, contact_number = locked["identity_number"], locked["contact_number"]
    if (change.identity or change.contact) and (identity_number, contact_number) != change.numbers:
        raise Conflict
    if change.identity is not None:
        identity_number += 1
        await store.update_identity(tx, me, identity_number, change.identity)
        await tx.emit(IdentityChanged(subject_id=me, number=identity_number, identity=change.identity))
    if change.contact is not None:
        contact_number += 1
        await store.update_contact(tx, me, contact_number, change.contact)
        if change.email_digest is not None:
            await store.move_sign_in(tx, me, change.email_digest)
        await tx.emit(ContactChanged(subject_id=me, number=contact_number, contact=change.contact))
        if change.leaves_mailbox:
            await tell_old_address(kit, tx, me, locked, contact_number)
    held = (locked["has_identity"], locked["has_contact"])
    numbers = (identity_number, contact_number)
    return max((n for n, a, h in zip(numbers, change.asked, held, strict=True) if a and h), default=0)


def _numbers(row: Record | None) -> tuple[int, int]:
    return (0, 0) if row is None else (row["identity_number"], row["contact_number"])
