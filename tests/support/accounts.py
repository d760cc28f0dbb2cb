"""The account service in this process, on a real Postgres and with a fake vault.

Fixtures: import `dsns`, `settings`, `shop`, and `postgres_server` of `tests.support.infra`.
"""

import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

import httpx
import pytest
from fastapi import FastAPI

from account_service.app import SERVICE
from account_service.mails.sending import open_mailer, send_mails
from account_service.settings import AccountSettings
from deploy.local import keys
from deploy.local.interfaces import PostgresServer
from deploy.local.mail import MailServer, code_in, read_mails, text_of
from deploy.local.stack import POLICY_DIR
from servicekit.core.errors import UnknownKey
from servicekit.core.health import Health
from servicekit.core.policy import Policy
from servicekit.http.app import make_app
from servicekit.kit import Kit
from servicekit.vault.client import IndexEntry
from servicekit.vault.leases import KeyName
from servicekit.vault.token import SealingKey
from tests.support.asgi import open_client
from tests.support.kits import FakeVault, open_test_kit

PASSWORD = "correct horse battery staple"
BURST = 5


@dataclass
class Vault(FakeVault):
    """Remembers the index entries and hands out index keys; it does not know the keys in `unknown`."""

    index: list[tuple[KeyName, str, bytes]] = field(default_factory=list)
    unknown: set[UUID] = field(default_factory=set)

    async def ensure(self, wanted: Any, index: Any = (), new: Any = None) -> list[SealingKey]:
        entry: IndexEntry
        for entry in index:
            self.index.append((wanted[entry.key], entry.kind, entry.digest))
        return await super().ensure(wanted, index, new)

    async def lease(self, purpose: str, wanted: Any) -> Any:
        if not self.unknown.isdisjoint(each.key_id for each in wanted):
            raise UnknownKey
        return await super().lease(purpose, wanted)

    async def index_key(self, kind: str) -> bytes:
        return hashlib.sha256(kind.encode()).digest()


@dataclass
class Shop:
    """The service in this process, and a client of it."""

    kit: Kit
    http: httpx.AsyncClient
    openapi: dict[str, Any]
    mail: MailServer
    app: FastAPI

    @property
    def vault(self) -> Vault:
        return cast(Vault, self.kit.vault)

    def from_peer(self, address: str) -> httpx.AsyncClient:
        """A client at another address."""
        transport = httpx.ASGITransport(self.app, client=(address, 1))
        return httpx.AsyncClient(transport=transport, base_url="http://test")

    async def begin(self, **fields: Any) -> tuple[UUID, str]:
        """A registration that nobody has confirmed yet: its id and its e-mail address."""
        body = {"email": f"jane.{uuid4().hex[:12]}@example.org", "password": PASSWORD, "name": "Jane Canary"} | fields
        answer = await self.http.post("/v1/accounts", json=body)
        assert answer.status_code == 202, answer.text
        return UUID(answer.json()["registration_id"]), body["email"]

    async def confirm(self, registration_id: UUID, code: str, password: str = PASSWORD) -> httpx.Response:
        body = {"code": code, "password": password}
        return await self.http.post(f"/v1/accounts/{registration_id}/confirmation", json=body)

    async def register(self, **fields: Any) -> tuple[UUID, str]:
        """A new customer's id and e-mail address, confirmed with the code from the mail."""
        registration_id, email = await self.begin(**fields)
        code = code_in((await self.mails_to(email))[-1])
        answer = await self.confirm(registration_id, code, fields.get("password", PASSWORD))
        assert answer.status_code == 200, answer.text
        return registration_id, email

    async def mails_to(self, email: str) -> list[str]:
        """Sends what is due; the subject and the text of each mail to the address, the oldest first."""
        await send_mails(self.kit)
        return [f"{mail['subject']}\n{text_of(mail)}" for mail in read_mails(self.mail.folder, email)]

    async def sign_in(self, email: str, password: str = PASSWORD) -> httpx.Response:
        return await self.http.post("/v1/sign-in", json={"email": email, "password": password})

    async def member(self, **fields: Any) -> tuple[UUID, dict[str, str]]:
        """A new customer's id, and the headers of a request of theirs."""
        subject_id, email = await self.register(**fields)
        return subject_id, bearer((await self.sign_in(email)).json()["access_token"])

    async def events(self, subject_id: UUID) -> list[tuple[str, dict[str, Any]]]:
        """Type and body of what was emitted about a person, in order."""
        rows = await self.kit.db.fetch(
            "SELECT headers, body FROM kit.outbox WHERE key = $1 ORDER BY number", subject_id
        )
        return [(json.loads(row["headers"])["ce_type"], json.loads(row["body"])) for row in rows]


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture(scope="module")
def dsns(postgres_server: PostgresServer) -> tuple[str, str]:
    return postgres_server.create_system_database("account")


# The mail server of each module, by the folder of its keys.
_SERVERS: dict[Path, MailServer] = {}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AccountSettings]:
    folder = tmp_path_factory.mktemp("stack") / "keys"
    keys.write_keys(folder, ["account"], [])
    server = MailServer(folder.parent / "mail", folder)
    server.start()
    _SERVERS[folder] = server
    given: dict[str, Any] = {name.lower(): value for name, value in server.environment.items()}
    yield AccountSettings(
        **given,
        mail_retry_seconds=0.001,
        mail_key_file=keys.mail_key_file(folder),
        customer_key_file=folder / "customer.pem",
        customer_public_key_file=folder / "customer.pub.pem",
        id_key_file=keys.id_key_file(folder, "account"),
        argon2_time_cost=1,
        argon2_memory_kib=8,
        argon2_lanes=1,
        limits_factor=BURST,
        sign_in_per_minute=1,
        sign_in_refusal_seconds=0,
    )
    server.close()


@pytest.fixture
async def shop(dsns: tuple[str, str], settings: AccountSettings) -> AsyncIterator[Shop]:
    async with open_test_kit("account", dsns, settings, SERVICE.emits, [SERVICE.migrations]) as opened:
        policy = Policy.load([POLICY_DIR / "policy.yaml"])
        kit = replace(opened, vault=cast(Any, Vault()), policy=policy)
        # This test's vault cannot open what the tests before it left.
        await kit.db.fetch("DELETE FROM mails WHERE state = 'recorded'")
        assert SERVICE.router is not None
        assert settings.smtp_ca_file is not None
        async with open_mailer(kit) as mailer:
            kit = replace(kit, own=mailer)
            app = make_app(
                settings, kit.clock, Health("account", "api", "0", kit.clock), [SERVICE.router(kit)], limits=kit.limits
            )
            async with open_client(app) as client:
                yield Shop(kit, client, app.openapi(), _SERVERS[settings.smtp_ca_file.parent], app)
