"""Rows of many people, put into every database that holds something of them; and rows of old events.

Per person: six keys, three digests, seven holdings, one recipient; an account, an address, a delivered order with its three parts,
and its line of the ledger. The keys of class `delivery` are really wrapped and the
digests of the e-mail addresses are right, so that any of them can be leased and found; the other bytes are random.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import asyncpg
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

from deploy.local.databases import Dsn
from deploy.local.stack import Stack
from servicekit.vault.leases import KeyName
from tests.bench.population import client_of, digest_of
from vault_service.domain import bound

EPOCH = 1
CHUNK = 50_000
OLD_DAYS = 10
STAGE = "CREATE UNLOGGED TABLE bench_people (subject uuid, order_id uuid, key_id uuid, wrapped bytea, digest bytea)"
RANDOM = "uuid_send(gen_random_uuid())"
KEYS = f"""
INSERT INTO keys (subject_id, data_class, anchor, key_id, generation, epoch, wrapped, created_at, maker)
SELECT subject, k.data_class, k.anchor, k.key_id, 1, {EPOCH}, k.wrapped, now() - random() * interval '700 days',
       CASE WHEN k.data_class IN ('identity', 'contact', 'credentials') THEN 'account' ELSE 'order' END
FROM (TABLE bench_people ORDER BY 1) p, LATERAL (VALUES
    ('identity', subject, gen_random_uuid(), {RANDOM} || {RANDOM} || {RANDOM} || '\\x000000000000000000000000'::bytea),
    ('contact', subject, key_id, {RANDOM} || {RANDOM} || {RANDOM} || '\\x000000000000000000000000'::bytea),
    ('credentials', subject, gen_random_uuid(), {RANDOM} || {RANDOM} || {RANDOM} || '\\x000000000000000000000000'::bytea),
    ('delivery', order_id, order_id, wrapped),
    ('order_record', order_id, gen_random_uuid(), {RANDOM} || {RANDOM} || {RANDOM} || '\\x000000000000000000000000'::bytea),
    ('payment', order_id, gen_random_uuid(), {RANDOM} || {RANDOM} || {RANDOM} || '\\x000000000000000000000000'::bytea)
) AS k (data_class, anchor, key_id, wrapped)"""
DIRECTORY = f"""
INSERT INTO directory (subject_id, key_id, kind, digest)
SELECT subject, d.key_id, d.kind::index_kind, d.digest
FROM (TABLE bench_people ORDER BY 1) p, LATERAL (VALUES
    (key_id, 'email', digest), (key_id, 'phone', {RANDOM} || {RANDOM}), (order_id, 'order_number', {RANDOM} || {RANDOM})
) AS d (key_id, kind, digest)"""
INVENTORY = """
INSERT INTO inventory (subject_id, system, data_class, anchor, key_id, first_seen, last_seen)
SELECT subject, i.system, i.data_class, i.anchor, i.key_id, seen.at, seen.at
FROM (TABLE bench_people ORDER BY 1) p, LATERAL (SELECT now() - random() * interval '700 days' AS at) seen, LATERAL (VALUES
    ('account', 'identity', subject, gen_random_uuid()), ('account', 'contact', subject, key_id),
    ('account', 'credentials', subject, gen_random_uuid()), ('order', 'delivery', order_id, order_id),
    ('order', 'order_record', order_id, gen_random_uuid()), ('order', 'payment', order_id, gen_random_uuid()),
    ('logistics-gateway', 'pseudonym', order_id, NULL)
) AS i (system, data_class, anchor, key_id)"""
RECIPIENTS = """
INSERT INTO recipients (subject_id, anchor, data_class, carrier, lane, lane_version, fields, first_seen, last_seen)
SELECT subject, order_id, 'delivery', 'meridian', 'meridian-eu-standard', 1,
       ARRAY['consignee.name', 'consignee.lines', 'consignee.city', 'consignee.postal_code'], now(), now()
FROM (TABLE bench_people ORDER BY 1) p"""
# What is sealed here has no key and is shorter than in life: nobody opens it, and the tables need not fill the memory.
TOKEN = f"{RANDOM} || {RANDOM}"
ACCOUNTS = (
    f"""INSERT INTO accounts (subject_id, guest, email_digest, identity, contact, credentials, registered_at)
    SELECT subject, false, digest, {TOKEN}, {TOKEN}, {TOKEN}, now() - interval '700 days' FROM bench_people""",
    f"""INSERT INTO addresses (subject_id, address_id, address, added_at)
    SELECT subject, gen_random_uuid(), {TOKEN}, now() - interval '700 days' FROM bench_people""",
)
ORDERS = (
    """INSERT INTO orders (order_id, buyer_id, consignee_id, status, status_at, placed_at)
    SELECT order_id, subject, subject, 'delivered', now(), now() - interval '30 days' FROM bench_people""",
    *(
        f"INSERT INTO order_{table} ({owner}, order_id, {column}) SELECT subject, order_id, {TOKEN} FROM bench_people"
        for table, owner, column in (
            ("deliveries", "consignee_id", "delivery"),
            ("records", "buyer_id", "record"),
            ("payments", "buyer_id", "payment"),
        )
    ),
)
LEDGER = """
INSERT INTO disclosures (shipment_id, order_id, subject_id, state, carrier, lane, lane_version, policy_version, data_class,
    purpose, fields, digest, not_after, topic, partition, position, recorded_at, sent_at, delivered_at, key_id)
SELECT gen_random_uuid(), order_id, subject, 'sent', 'meridian', 'meridian-eu-standard', 1, '2026-11-23', 'delivery',
    'delivery', ARRAY['consignee.name'], digest, now(), 'order.events', 0, 0, now(), now(), now(), order_id
FROM bench_people"""
TABLES: dict[str, tuple[str, ...]] = {
    "vault": (KEYS, DIRECTORY),
    "privacy": (INVENTORY, RECIPIENTS),
    "account": ACCOUNTS,
    "order": ORDERS,
    "logistics-gateway": (LEDGER,),
}
# Of which the size of a person is told: what the product's own systems keep.
KEPT = ("vault", "privacy")
SIZE = """
SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class
WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"""
# Short, so that ten million of them fit beside everything else: nobody reads the bodies of what was published.
OUTBOX = """
INSERT INTO kit.outbox (day, slot, event_id, topic, key, headers, body, published_at)
SELECT current_date - $1::int, n % 16, gen_random_uuid(), 'order.events', gen_random_uuid(), '{}'::bytea, '\\x00', now()
FROM generate_series(1, $2::int) n"""
# Ids as the outbox makes them, those of each day from midnight until the time that it is now.
INBOX = """
INSERT INTO kit.inbox (day, event_id, reader)
SELECT current_date - $1::int, uuidv7((current_date - now()) * (1 - n / $2::float) - $1 * interval '1 day'), 'participant'
FROM generate_series(1, $2::int) n"""


@dataclass(frozen=True)
class Loaded:
    """Somebody whose delivery key can be leased (its id is the order's) and whose address can be found."""

    subject: UUID
    order_id: UUID
    email: str


async def load_people(stack: Stack, count: int, wanted: int) -> tuple[list[Loaded], float]:
    """`wanted` of the people, spread over all of them, and how many bytes of tables and indexes each one takes."""
    databases = {name: await _administrator(stack, name) for name in TABLES}
    async with client_of(stack, "account") as client:
        secret = await client.index_key("email")
    empty = sum([await databases[name].fetchval(SIZE) for name in KEPT])
    kept: list[Loaded] = []
    try:
        for connection in databases.values():
            # the rows fit each other, so that the foreign keys need not be looked up
            await connection.execute(STAGE + "; SET synchronous_commit = off; SET session_replication_role = replica")
        for start in range(0, count, CHUNK):
            size = min(CHUNK, count - start)
            rows = list(_people(stack, secret, start, size))
            step = max(1, count // wanted)
            kept += [Loaded(row[0], row[1], _email(n)) for n, row in enumerate(rows, start) if n % step == 0]
            await asyncio.gather(*(_insert(databases[name], rows, *TABLES[name]) for name in TABLES))
        for connection in databases.values():
            await connection.execute("DROP TABLE bench_people")
            await connection.execute("VACUUM ANALYZE")
        taken = sum([await databases[name].fetchval(SIZE) for name in KEPT]) - empty
    finally:
        for connection in databases.values():
            await connection.close()
    secrets.SystemRandom().shuffle(kept)
    return kept[:wanted], taken / count


async def load_old_rows(stack: Stack, count: int) -> None:
    """Published events and known event ids of the order service, spread over the last days with partitions of their own."""
    connection = await asyncpg.connect(stack.owner_dsn("order"))
    try:
        await connection.execute("SET synchronous_commit = off")
        for parent in ("outbox", "inbox"):
            await connection.execute(
                f"""DO $$ DECLARE d date; BEGIN FOR d IN SELECT generate_series(current_date - {OLD_DAYS - 1},
                    current_date - 3, interval '1 day')::date LOOP
                    EXECUTE format('CREATE TABLE kit.%I PARTITION OF kit.{parent} FOR VALUES FROM (%L) TO (%L)',
                                   '{parent}_' || to_char(d, 'YYYYMMDD'), d, d + 1); END LOOP; END $$"""
            )
        for day in range(OLD_DAYS):
            await connection.execute(OUTBOX, day, count // OLD_DAYS)
            await connection.execute(INBOX, day, count // OLD_DAYS)
        await connection.execute("VACUUM ANALYZE kit.outbox")
        await connection.execute("VACUUM ANALYZE kit.inbox")
    finally:
        await connection.close()


async def _administrator(stack: Stack, system: str) -> Any:
    database = Dsn.parse(stack.owner_dsn(system)).database
    return await asyncpg.connect(str(replace(Dsn.parse(stack.postgres.admin_dsn), database=database)))


async def _insert(connection: Any, rows: list[tuple[Any, ...]], *statements: str) -> None:
    await connection.execute("TRUNCATE bench_people")
    await connection.copy_records_to_table("bench_people", records=rows)
    for statement in statements:
        await connection.execute(statement)


def _people(stack: Stack, secret: bytes, start: int, count: int) -> Iterator[tuple[UUID, UUID, UUID, bytes, bytes]]:
    """(subject, order, contact's key, wrapped key of the delivery, digest); the delivery's key has the order's id."""
    kek = AESGCMSIV((stack.keys / "kek" / f"epoch-{EPOCH}.key").read_bytes())
    for n in range(start, start + count):
        noise = os.urandom(92)
        subject, order, key_id = (UUID(bytes=noise[at : at + 16]) for at in (0, 16, 32))
        nonce, key = noise[48:60], noise[60:92]
        name = KeyName(subject, "delivery", order)
        wrapped = nonce + kek.encrypt(nonce, key, bound(order, name, 1, EPOCH))
        yield subject, order, key_id, wrapped, digest_of(secret, _email(n))


def _email(n: int) -> str:
    return f"growth.{n}@shop.example"
