"""People who have an account, an address and a delivered order, put into the databases in bulk: with keys from the vault
and sealed values, as if they had come through the services."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from deploy.local.keys import identity_file
from deploy.local.stack import Stack
from event_contracts import PersonalData
from event_contracts.account import Address, Contact, Credentials, Identity
from event_contracts.order import OrderLine, OrderRecord, Payment
from servicekit.core.clock import Clock
from servicekit.kit import normalise
from servicekit.vault.client import IndexEntry, ServiceIdentity, VaultClient
from servicekit.vault.leases import KeyName
from servicekit.vault.token import SealingKey, seal
from tests.support.deliveries import make_delivery

AT_ONCE = 250  # people a call of the vault
LINE = OrderLine.model_validate(
    {"sku": "MUG", "description": "Mug", "quantity": 1, "unit_price": 900, "net_weight_g": 300, "origin_country": "DE",
     "hs_code": "691200"}
)  # fmt: skip


@dataclass
class Settled:
    """One person, with the ids of what is held about them."""

    subject_id: UUID = field(default_factory=uuid4)
    order_id: UUID = field(default_factory=uuid4)
    address_id: UUID = field(default_factory=uuid4)
    tag: str = field(default_factory=lambda: secrets.token_hex(8).translate(str.maketrans("0123456789", "ghijklmnop")))

    @property
    def email(self) -> str:
        return f"bench.{self.tag}@shop.example"

    @property
    def parts(self) -> tuple[tuple[str, PersonalData, UUID], ...]:
        """(holder, value, anchor) of each sealed value."""
        name, me, order = f"Bench {self.tag.title()}", self.subject_id, self.order_id
        home = {"name": name, "lines": ("Lange Straße 12",), "city": "Bremen", "postal_code": "28195", "country": "DE"}
        record = {"order_number": "00000-00000", "lines": (LINE,), "currency": "EUR", "total": 900}
        return (
            ("account", Identity(name=name), me),
            ("account", Contact(email=self.email, phone="+4915112345678"), me),
            ("account", Credentials(password_hash="$argon2id$" + "x" * 80), me),
            ("account", Address.model_validate(home), self.address_id),
            ("order", make_delivery(country="DE", name=name, email=self.email), order),
            ("order", OrderRecord.model_validate(record), order),
            ("order", Payment(token="tok_" + self.tag), order),
        )


Sealed = tuple[UUID, bytes]  # the key's id and the token


async def settle(stack: Stack, count: int) -> list[Settled]:
    """So many new people, whom every database knows. Nothing is published."""
    people = [Settled() for _ in range(count)]
    async with client_of(stack, "account") as account, client_of(stack, "order") as order:
        for start in range(0, count, AT_ONCE):
            group = people[start : start + AT_ONCE]
            sealed = {id(who): list[Sealed]() for who in group}
            for client, holder in ((account, "account"), (order, "order")):
                await _seal(client, holder, group, sealed)
            await _write(stack, [(who, sealed[id(who)]) for who in group])
    return people


@asynccontextmanager
async def client_of(stack: Stack, system: str) -> AsyncIterator[VaultClient]:
    """The vault as this system sees it. It signs off at the end, so that no erasure waits for its leases."""
    clock = Clock()
    identity = ServiceIdentity(system, identity_file(stack.keys, system).read_bytes(), clock)
    client = VaultClient(stack.url("vault"), identity, clock, patience=30)
    try:
        yield client
        await client.sign_off()
    finally:
        await client.close()


async def copy_rows(dsn: str, table: str, columns: str, rows: Iterable[Sequence[Any]], schema: str = "public") -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.copy_records_to_table(table, schema_name=schema, columns=columns.split(), records=rows)
    finally:
        await connection.close()


async def _seal(client: VaultClient, holder: str, people: Sequence[Settled], sealed: dict[int, list[Sealed]]) -> None:
    parts = [(who, value, anchor) for who in people for of, value, anchor in who.parts if of == holder]
    names = [KeyName(who.subject_id, str(value.data_class), anchor) for who, value, anchor in parts]
    index = []
    if holder == "account":
        secret = await client.index_key("email")
        digests = {who.subject_id: digest_of(secret, who.email) for who in people}
        index = [
            IndexEntry("email", digests[who.subject_id], place)
            for place, (who, value, _) in enumerate(parts)
            if isinstance(value, Contact)
        ]
    for key, name, (who, value, _) in zip(await client.ensure(names, index), names, parts, strict=True):
        sealed[id(who)].append((key.key_id, token_of(key, name, value)))


def digest_of(secret: bytes, email: str) -> bytes:
    return hmac.digest(secret, normalise("email", email).encode(), "sha256")


def token_of(key: SealingKey, name: KeyName, value: PersonalData) -> bytes:
    return seal(
        key, value.model_dump_json(exclude_none=True).encode(), data_class=name.data_class,
        model_name=type(value).__name__, subject=name.subject, anchor=name.anchor,
    )  # fmt: skip


async def _write(stack: Stack, people: Sequence[tuple[Settled, Sequence[Sealed]]]) -> None:
    """Rows of everybody in account, order, logistics-gateway and the inventory."""
    now = datetime.now(UTC)
    then, account, order = now - timedelta(days=30), stack.owner_dsn("account"), stack.owner_dsn("order")
    await copy_rows(
        account, "accounts", "subject_id guest email_digest identity contact credentials registered_at",
        [(w.subject_id, False, secrets.token_bytes(32), s[0][1], s[1][1], s[2][1], then) for w, s in people],
    )  # fmt: skip
    await copy_rows(
        account, "addresses", "subject_id address_id address added_at",
        [(w.subject_id, w.address_id, s[3][1], then) for w, s in people],
    )  # fmt: skip
    await copy_rows(
        order, "orders", "order_id buyer_id consignee_id status status_at placed_at",
        [(w.order_id, w.subject_id, w.subject_id, "delivered", now, then) for w, _ in people],
    )  # fmt: skip
    for table, owner, column, place in (
        ("order_deliveries", "consignee_id", "delivery", 4),
        ("order_records", "buyer_id", "record", 5),
        ("order_payments", "buyer_id", "payment", 6),
    ):
        rows = [(w.subject_id, w.order_id, s[place][1]) for w, s in people]
        await copy_rows(order, table, f"{owner} order_id {column}", rows)
    await copy_rows(
        stack.owner_dsn("logistics-gateway"), "disclosures",
        "shipment_id order_id subject_id state carrier lane lane_version policy_version data_class purpose fields digest "
        "not_after topic partition position recorded_at sent_at delivered_at key_id",
        [
            (uuid4(), w.order_id, w.subject_id, "sent", "meridian", "meridian-eu-standard", 1, "2026-11-23", "delivery",
             "delivery", ["consignee.name"], bytes(32), now + timedelta(days=30), "order.events", 0, 0, then, then, now,
             s[4][0])
            for w, s in people
        ],
    )  # fmt: skip
    await copy_rows(
        stack.owner_dsn("privacy"), "inventory", "subject_id system data_class anchor key_id first_seen last_seen",
        [
            *((w.subject_id, holder, str(value.data_class), anchor, key_id, then, then)
              for w, s in people for (holder, value, anchor), (key_id, _) in zip(w.parts, s, strict=True)),
            *((w.subject_id, "logistics-gateway", "pseudonym", w.order_id, None, then, then) for w, _ in people),
        ],
    )  # fmt: skip
