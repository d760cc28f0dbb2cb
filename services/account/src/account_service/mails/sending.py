"""Sending what is recorded: `recorded` → `sent` | `withheld` (erased before) | `blocked` (cannot be sent).

See docs/protocols.md#leaving-the-system.

A process that dies between the send and its mark has the mail sent again, with the same Message-ID.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

import aiosmtplib

from account_service import registrations_store
from account_service import store as accounts_store
from account_service.codes import Codes
from account_service.domain import REGISTRATION_LIFE
from account_service.mails import store
from account_service.mails.domain import (
    DISCLOSED,
    GIVE_UP_AFTER,
    KEPT,
    MAILS_A_DAY,
    PURPOSE,
    RECIPIENT,
    Language,
    Mail,
    Template,
    pause_after,
)
from account_service.mails.smtp import NOT_SENT, Smtp, Undeliverable, compose, envelope_address
from account_service.mails.templates import Templates
from account_service.settings import AccountSettings
from event_contracts import Erased, Sealed
from event_contracts.account import Contact, ContactDisclosed
from servicekit import Job, Kit, Opening, Record, Tx, get_log
from servicekit.core.errors import Misconfigured, TooMany, Unavailable
from servicekit.core.faults import declare, faultpoint
from servicekit.core.logs import code
from servicekit.core.metrics import MAILS, MAILS_WAITING

log = get_log("mails")
DATA_CLASS: Final = "contact"
AT_ONCE: Final = 20
HAVE_ACCOUNT: Final = "have_account"

declare("mail.claimed", "mail.sent", "mail.marked")


@dataclass
class Mailer:
    """What one process needs for mails. The connection's settings are read when the first mail is due."""

    settings: AccountSettings
    templates: Templates
    codes: Codes
    smtp: Smtp | None = None

    def provider(self) -> Smtp:
        self.smtp = self.smtp or Smtp(self.settings)
        return self.smtp


class State(StrEnum):
    SENT = "sent"
    WITHHELD = "withheld"
    BLOCKED = "blocked"


@dataclass(frozen=True)
class Outcome:
    """What a mail comes to; `reason` is a code. `counted` is under what one that was sent is counted."""

    state: State
    reason: str | None = None
    counted: tuple[bytes, date] | None = None


@asynccontextmanager
async def open_mailer(kit: Kit) -> AsyncIterator[Mailer]:
    """Raises `Misconfigured` for a template outside its allow-list, or a provider whom the policy does not name."""
    if not isinstance(kit.settings, AccountSettings):
        raise Misconfigured("The account service was started without its own settings: see account_service.app.")
    if RECIPIENT not in kit.policy.classes[DATA_CLASS].recipients:
        raise Misconfigured(f"{RECIPIENT} is no recipient of {DATA_CLASS} in the policy: add it there first.")
    yield Mailer(kit.settings, Templates(), Codes(kit.settings.read("mail_key_file")))


async def record(kit: Kit, tx: Tx, mails: Sequence[Mail]) -> None:
    """Records the mails, and for the inventory who will receive the address. Have the people's rows locked before."""
    new = await store.insert_mails(tx, mails, kit.clock.now())
    await tx.emit(
        *(disclosure_of(mail.mail_id, mail.subject_id, mail.template, kit) for mail in mails if mail.mail_id in new)
    )
    tx.wake(kit.wakes[JOB])


def disclosure_of(mail_id: UUID, subject_id: UUID, template: Template, kit: Kit) -> ContactDisclosed:
    return ContactDisclosed(
        mail_id=mail_id,
        subject_id=subject_id,
        recipient=RECIPIENT,
        template=f"mail-{template.value.replace('_', '-')}",
        policy_version=kit.policy.version,
        data_class=DATA_CLASS,
        purpose=PURPOSE,
        fields=DISCLOSED,
    )


async def tell_owner(kit: Kit, tx: Tx, email_digest: bytes, registration_id: UUID) -> bool:
    """A mail to the account of this address: somebody registered with it. False when there is no account."""
    owner = await accounts_store.lock_by_email(tx, email_digest)
    if owner is None or owner["contact"] is None:
        return False
    language, contact = Language(owner["language"]), Sealed[Contact](owner["contact"])
    await record(kit, tx, [Mail(Template.HAVE_ACCOUNT, owner["subject_id"], registration_id, 1, language, contact)])
    return True


async def send_mails(kit: Kit) -> None:
    """Job: sends what is due, over one connection. A provider that is away or slow delays mails and nothing else."""
    mailer = kit.context(Mailer)
    MAILS_WAITING.set(await store.count_recorded(kit.db))
    while claimed := await _claim(kit, mailer):
        faultpoint("mail.claimed")
        left = [*claimed]
        try:
            async with mailer.provider().connected() as client:
                await _send_all(kit, mailer, client, left)
        except NOT_SENT as error:
            log.warning("provider_unavailable", mails=len(left), error=error)
            await _postpone(kit, mailer, left)
            return


async def _claim(kit: Kit, mailer: Mailer) -> list[Record]:
    now, lease = kit.clock.now(), timedelta(seconds=mailer.settings.mail_lease_seconds)

    async def work(tx: Tx) -> list[Record]:
        return await store.claim(tx, now, lease, AT_ONCE)

    return await kit.run_tx("claim_mails", work)


async def _send_all(kit: Kit, mailer: Mailer, client: aiosmtplib.SMTP, left: list[Record]) -> None:
    """Takes from `left` what is done with. What would take longer than half of the lease is for the next run.

    A mail that fails waits alone, also where the connection fails with it: a mail that always fails stops no other.
    Raises `Unavailable`, `TooMany`.
    """
    stop_at = kit.clock.boottime() + mailer.settings.mail_lease_seconds / 2
    while left and kit.clock.boottime() < stop_at:
        claimed = left.pop(0)
        try:
            await _send(kit, mailer, client, claimed["mail_id"])
        except (Unavailable, TooMany):
            await _release(kit, [claimed, *left])
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the other mails go on
            log.warning("mail_postponed", mail_id=claimed["mail_id"], tries=claimed["tries"] + 1, error=error)
            await _postpone(kit, mailer, [claimed])
            if not client.is_connected:
                break
    await _release(kit, left)
    left.clear()


async def _release(kit: Kit, claimed: Sequence[Record]) -> None:
    """Not tried: due at once."""
    if claimed:

        async def work(tx: Tx) -> None:
            await store.release(tx, [row["mail_id"] for row in claimed], kit.clock.now())

        await kit.run_tx("release_mails", work)


async def _postpone(kit: Kit, mailer: Mailer, claimed: Sequence[Record]) -> None:
    """Tried in vain: each waits longer after each try."""
    now, first = kit.clock.now(), timedelta(seconds=mailer.settings.mail_retry_seconds)
    until = [now + pause_after(row["tries"] + 1, first) for row in claimed]

    async def work(tx: Tx) -> None:
        await store.postpone(tx, [row["mail_id"] for row in claimed], until)

    await kit.run_tx("postpone_mails", work)


async def _send(kit: Kit, mailer: Mailer, client: aiosmtplib.SMTP, mail_id: UUID) -> None:
    """One mail: an erasure waits for it no longer than one send may take. Raises one of `NOT_SENT`."""
    async with kit.work():
        row = await store.find_recorded(kit.db, mail_id)
        if row is None:
            return
        try:
            outcome = await _send_row(kit, mailer, client, row)
        except Undeliverable as error:
            outcome = Outcome(State.BLOCKED, error.reason)
    if outcome is None:
        return

    async def work(tx: Tx) -> None:
        await store.finish(tx, mail_id, outcome.state, outcome.reason, kit.clock.now())
        if outcome.counted is not None:
            await registrations_store.count_mail(tx, *outcome.counted, MAILS_A_DAY)

    faultpoint("mail.sent")
    await kit.run_tx("finish_mail", work)
    faultpoint("mail.marked")
    if outcome.reason == HAVE_ACCOUNT:
        return  # counted as the mail that stands for it: no count tells whether an address has an account
    MAILS.labels(outcome.state).inc()
    if outcome.state is not State.SENT:
        log.warning("mail_not_sent", state=outcome.state, reason=code(outcome.reason or "none"), mail_id=mail_id)


async def _send_row(kit: Kit, mailer: Mailer, client: aiosmtplib.SMTP, row: Record) -> Outcome | None:
    """The state that the mail comes to, with a reason; None when it has to wait for a fresh lease."""
    now = kit.clock.now()
    if row["recorded_at"] + GIVE_UP_AFTER < now:
        return Outcome(State.BLOCKED, "gave_up")
    sealed: Sealed[Contact] = Sealed(row["contact"])
    subject_id = row["subject_id"]
    contact = await kit.open(Opening(sealed, Contact, subject_id, subject_id), purpose=PURPOSE)
    if isinstance(contact, Erased):
        return Outcome(State.WITHHELD, "erased")
    template, language = Template(row["template"]), Language(row["language"])
    if template is Template.CONFIRM and (other := await _instead_of_confirmation(kit, row, contact)) is not None:
        return other
    counted = await _counted(kit, mailer, template, contact)
    if counted is not None and await registrations_store.mails_of_day(kit.db, *counted) >= MAILS_A_DAY:
        return Outcome(State.WITHHELD, "too_many")
    rendered = mailer.templates.render(template, language, fields_of(mailer, template, row))
    address = envelope_address(contact.email)
    message = compose(mailer.settings, row["mail_id"], address, rendered, language, now)
    # Right before the send: what was opened may still be used (docs/protocols.md#asking-the-vault).
    if not kit.vault.is_live(PURPOSE, [sealed.key_id]):
        return None
    await mailer.provider().send(client, message, address)
    return Outcome(State.SENT, counted=counted)


async def _counted(kit: Kit, mailer: Mailer, template: Template, contact: Contact) -> tuple[bytes, date] | None:
    """None for what a registration causes: that was counted before anything was sealed."""
    if template in (Template.CONFIRM, Template.HAVE_ACCOUNT):
        return None
    day = kit.clock.now().date()
    return mailer.codes.count_digest(await kit.digest("email", contact.email), day, template), day


async def _instead_of_confirmation(kit: Kit, row: Record, contact: Contact) -> Outcome | None:
    """If an account has the address, its owner gets a mail that says so. None: the code is sent."""
    after = kit.clock.now() - REGISTRATION_LIFE
    if await registrations_store.find_registration(kit.db, row["subject_id"], after) is None:
        return Outcome(State.WITHHELD, "expired")
    digest = await kit.digest("email", contact.email)
    if not await kit.run_tx("have_account", lambda tx: tell_owner(kit, tx, digest, row["about"])):
        return None
    return Outcome(State.WITHHELD, HAVE_ACCOUNT)


def fields_of(mailer: Mailer, template: Template, row: Record) -> dict[str, str]:
    shop, about = mailer.settings.shop_url.rstrip("/"), row["about"]
    match template:
        case Template.CONFIRM:
            code_ = mailer.codes.code(about)
            # Behind the #, so that no server's log has it.
            return {"code": code_, "link": f"{shop}/confirm#{about}.{code_}"}
        case Template.HAVE_ACCOUNT:
            return {"link": f"{shop}/sign-in"}
        case Template.EMAIL_CHANGED:
            return {"day": row["recorded_at"].date().isoformat()}
        case Template.DELIVERY_CHANGED:
            return {"order_link": f"{shop}/orders/{about}"}


async def forget_mails(kit: Kit) -> None:
    """Job: rows of mails that ended a while ago go."""

    async def work(tx: Tx) -> None:
        await store.delete_ended(tx, kit.clock.now() - KEPT)

    await kit.run_tx("forget_mails", work)


JOB: Final = "mails"
JOBS: Final = (
    Job(JOB, timedelta(seconds=1), send_mails, is_work=False),
    Job("forget_mails", timedelta(hours=1), forget_mails),
)
