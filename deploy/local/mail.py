"""A mail provider for this machine: an SMTP server with STARTTLS and a sign-in, which keeps each mail as a file.

`<folder>/<address>/<number>.eml`, one folder per address. The mailbox is outside the system: what stands in it has left.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import ssl
import time
from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, Session

from deploy.local.processes import HOST, Port, StackError

# The library warns of an attribute of its own at each sign-in.
logging.getLogger("mail.log").setLevel(logging.ERROR)
USER = "shop"
SENDER = "shop@shop.example"
SHOP_URL = "https://shop.example"


def mailbox_of(folder: Path, address: str) -> Path:
    """Where the mails to an address lie."""
    return folder / quote(address.lower(), safe="@+")


def read_mails(folder: Path, address: str) -> list[EmailMessage]:
    """All mails to the address, the oldest first."""
    files = sorted(mailbox_of(folder, address).glob("*.eml"))
    return [message_from_bytes(file.read_bytes(), policy=policy.default) for file in files]


def text_of(mail: EmailMessage) -> str:
    """The plain part of a mail."""
    part = mail.get_body(("plain",))
    return "" if part is None else str(part.get_content()).replace("\r\n", "\n")


async def wait_for_mail(folder: Path, address: str, number: int = 1, timeout: float = 60) -> EmailMessage:
    """The `number`-th mail to the address, as soon as it is there. Raises `StackError`."""
    give_up = time.monotonic() + timeout
    while len(found := read_mails(folder, address)) < number:
        if time.monotonic() > give_up:
            raise StackError(
                f"Mail number {number} did not come within {timeout:.0f} s: see the account service's log."
            )
        await asyncio.sleep(0.02)
    return found[number - 1]


_CODE = re.compile(r"^[0-9A-Z]{5}-[0-9A-Z]{5}$", re.MULTILINE)


def code_in(text: str) -> str:
    """The code of a confirmation. Raises `StackError` when the mail has none."""
    found = _CODE.search(text)
    if found is None:
        raise StackError("The mail has no code: the address has an account already.")
    return found[0]


async def confirm(
    http: httpx.AsyncClient, folder: Path, registration_id: str, email: str, password: str, number: int = 1
) -> None:
    """Waits for the `number`-th mail to the address, and confirms the registration with its code and the password."""
    code = code_in(text_of(await wait_for_mail(folder, email, number)))
    body = {"code": code, "password": password}
    (await http.post(f"/v1/accounts/{registration_id}/confirmation", json=body)).raise_for_status()


class MailServer:
    """Listens on one port of the loopback address from `start` to `stop`, and again.

    `refusals` are SMTP replies, such as `450 4.2.0 busy`, that the next messages get in turn; `pause` is how many seconds it
    takes to accept one.
    """

    def __init__(self, folder: Path, keys: Path) -> None:
        """Makes `folder` for mails, and in `keys` the files that a client needs."""
        self.folder, self.refusals, self.pause = folder, list[str](), 0.0
        self.ca_file, self.password_file = keys / "mail-ca.pem", keys / "smtp.password"
        self._port, self._numbers = Port(), count(1)
        self._password = secrets.token_hex(16)
        folder.mkdir(mode=0o700)
        self.password_file.touch(mode=0o600)
        self.password_file.write_text(self._password)
        ca = trustme.CA()
        ca.cert_pem.write_to_path(self.ca_file)
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        ca.issue_cert(HOST).configure_cert(self._tls)
        self._controller: Controller | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What the account service is told."""
        return {
            "SMTP_HOST": HOST,
            "SMTP_PORT": str(self._port.number),
            "SMTP_USER": USER,
            "SMTP_PASSWORD_FILE": str(self.password_file),
            "SMTP_CA_FILE": str(self.ca_file),
            "MAIL_FROM": SENDER,
            "SHOP_URL": SHOP_URL,
        }

    def start(self) -> None:
        self._controller = Controller(
            self,
            HOST,
            self._port.number,
            tls_context=self._tls,
            require_starttls=True,
            authenticator=self._authenticate,
            auth_required=True,
            enable_SMTPUTF8=True,
        )
        self._controller.start()

    def stop(self) -> None:
        """Harmless when repeated."""
        if self._controller is not None:
            self._controller.stop()
            self._controller = None

    def close(self) -> None:
        self.stop()
        self._port.release()

    def all_mails(self) -> Iterator[Path]:
        """The files of all mails."""
        return self.folder.glob("*/*.eml")

    async def handle_DATA(self, server: Any, session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
        """aiosmtpd calls it with each message."""
        if self.pause:
            await asyncio.sleep(self.pause)
        if self.refusals:
            return self.refusals.pop(0)
        for address in envelope.rcpt_tos:
            box = mailbox_of(self.folder, address)
            box.mkdir(mode=0o700, exist_ok=True)
            new = box / f"{next(self._numbers):09d}"
            new.write_bytes(envelope.content if isinstance(envelope.content, bytes) else b"")
            new.rename(new.with_suffix(".eml"))
        return "250 2.0.0 kept"

    def _authenticate(self, server: Any, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        right = (data.login, data.password) == (USER.encode(), self._password.encode())
        return AuthResult(success=right, handled=False)
