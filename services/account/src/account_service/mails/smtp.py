"""Messages and the connection to the mail provider. Nothing of it prints an address: the library's errors contain them."""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from email.errors import MessageError
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from email.utils import format_datetime
from ipaddress import ip_address
from typing import Final
from uuid import UUID

import aiosmtplib

from account_service.mails.domain import Language
from account_service.mails.templates import Rendered
from account_service.settings import AccountSettings
from servicekit.core.errors import Misconfigured

# A dot-atom of RFC 5322 §3.2.3, with the letters of RFC 6532; anything else could break the command line of SMTP.
_ATOM: Final = r"[^\x00-\x20\x7f-\x9f()<>\[\]:;@\\,.\"\s]+"
_ADDRESS: Final = re.compile(rf"{_ATOM}(\.{_ATOM})*@{_ATOM}(\.{_ATOM})+")
NOT_SENT: Final = (aiosmtplib.SMTPException, OSError, TimeoutError)


class Undeliverable(Exception):
    """This mail can never be sent; `reason` is a code."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason


class Smtp:
    """How the mail provider is reached. Raises `Misconfigured` where mail would cross a network in clear."""

    def __init__(self, settings: AccountSettings) -> None:
        settings.require("smtp_host", "mail_from")
        if not settings.smtp_starttls and not _is_loopback(settings.smtp_host):
            raise Misconfigured("SMTP_STARTTLS may be off for a loopback address only: switch it on and start again.")
        self._settings = settings
        self._password = settings.read("smtp_password_file").decode() if settings.smtp_password_file else None
        ca_file = settings.smtp_ca_file
        self._tls = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[aiosmtplib.SMTP]:
        """Signed in, over TLS unless that is off. Raises one of `NOT_SENT`."""
        settings = self._settings
        client = aiosmtplib.SMTP(
            hostname=settings.smtp_host,
            port=settings.smtp_port,
            timeout=settings.smtp_seconds,
            start_tls=settings.smtp_starttls,
            tls_context=self._tls,
            username=settings.smtp_user or None,
            password=self._password,
            local_hostname="localhost",
        )
        try:
            async with asyncio.timeout(3 * settings.smtp_seconds):
                await client.connect()
            yield client
        finally:
            client.close()

    async def send(self, client: aiosmtplib.SMTP, message: EmailMessage, address: str) -> None:
        """Raises `Undeliverable` when the provider refuses it for good, else one of `NOT_SENT`."""
        options = [] if address.isascii() else ["SMTPUTF8"]
        policy = SMTP if address.isascii() else SMTPUTF8
        try:
            content = message.as_bytes(policy=policy)
        except (ValueError, LookupError, MessageError):
            raise Undeliverable("address_not_supported") from None
        try:
            async with asyncio.timeout(self._settings.smtp_seconds):
                await client.sendmail(self._settings.mail_from, [address], content, mail_options=options)
        except aiosmtplib.SMTPRecipientsRefused as error:
            if all(refusal.code >= 500 for refusal in error.recipients):
                raise Undeliverable("recipient_refused") from None
            raise
        except aiosmtplib.SMTPDataError as error:
            if error.code >= 500:
                raise Undeliverable("message_refused") from None
            raise
        except aiosmtplib.SMTPNotSupported:
            raise Undeliverable("address_not_supported") from None


def compose(
    settings: AccountSettings, mail_id: UUID, address: str, rendered: Rendered, language: Language, now: datetime
) -> EmailMessage:
    """Raises `Undeliverable` for an address that no mail server takes. A mail that is sent again has the same Message-ID."""
    message = EmailMessage(policy=SMTPUTF8)
    message["From"] = settings.mail_from
    _set_to(message, address)
    message["Subject"] = rendered.subject
    message["Date"] = format_datetime(now)
    message["Message-ID"] = f"<{mail_id}@{settings.mail_from.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"
    message["Content-Language"] = language.value
    message.set_content(rendered.text)
    message.add_alternative(rendered.html, subtype="html")
    return message


def _set_to(message: EmailMessage, address: str) -> None:
    """The library decodes encoded words (RFC 2047) of what it is given: the mail goes to what it reads, or nowhere."""
    if not _ADDRESS.fullmatch(address):
        raise Undeliverable("address_not_supported")
    try:
        message["To"] = address
        read = [each.addr_spec for each in message["To"].addresses]
    except (ValueError, LookupError, MessageError):  # its own faults with what is malformed
        read = []
    if read != [address]:
        raise Undeliverable("address_not_supported")


def envelope_address(address: str) -> str:
    """The domain in ASCII where the mailbox is, so that servers without SMTPUTF8 take it."""
    mailbox, _, domain = address.rpartition("@")
    if not mailbox.isascii():
        return address
    try:
        return f"{mailbox}@{domain.encode('idna').decode()}"
    except UnicodeError:
        raise Undeliverable("address_not_supported") from None


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
