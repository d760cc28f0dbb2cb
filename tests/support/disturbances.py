"""Everything at once that must hold nobody up (law L13): garbage of a carrier, poisoned people, a silent holder of keys, a
forgotten transaction and silent connections."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import asyncpg
from confluent_kafka import Producer

from deploy.local.keys import identity_file
from deploy.local.stack import Stack
from event_contracts.carrier import replies_topic
from event_contracts.topics import system_replies
from servicekit.core.clock import Clock
from servicekit.core.errors import KitError
from servicekit.vault.client import LeaseName, ServiceIdentity, VaultClient
from servicekit.vault.leases import KeyName

GARBAGE = 1_100
SOCKETS = 200
STRANGER = "127.0.0.9"
RENEW_SECONDS = 1.0
HALF_A_HEAD = b"GET / HTTP/1.1\r\nHost: shop\r\nX-Slow: "


@asynccontextmanager
async def disturbed(stack: Stack, poisoned: Sequence[UUID]) -> AsyncIterator[None]:
    """While it is open all of it is there; `poisoned` are people whose participants answer with what cannot be read."""
    async with AsyncExitStack() as running:
        await asyncio.to_thread(send_garbage, stack, "pacifica", replies_topic("pacifica"), [uuid4()] * GARBAGE)
        await asyncio.to_thread(send_garbage, stack, "order", system_replies("order"), poisoned)
        await running.enter_async_context(silent_holder(stack))
        await running.enter_async_context(idle_transaction(stack))
        for system in ("account", "privacy", "vault"):
            await running.enter_async_context(silent_sockets(stack.url(system), SOCKETS))
        yield


def send_garbage(stack: Stack, user: str, topic: str, keys: Sequence[UUID]) -> None:
    """A record that is neither sealed nor an event for each key, written by the topic's own user."""
    name, password = stack.kafka_credentials(user)
    login = {"sasl.username": name, "sasl.password": password, "sasl.mechanism": "SCRAM-SHA-512"}
    producer = Producer(
        {"bootstrap.servers": stack.kafka.bootstrap, "security.protocol": "SASL_PLAINTEXT", "acks": "all", **login}
    )
    for place, key in enumerate(keys):
        producer.produce(topic, key=str(key).encode(), value=b'{"garbage": %d}' % place)
    left = producer.flush(60)
    assert not left, f"{left} of {len(keys)} records were not taken"


@asynccontextmanager
async def silent_holder(stack: Stack) -> AsyncIterator[None]:
    """A process of the order service that renews its lease of one key and never says that its work has ended."""
    clock = Clock()
    identity = ServiceIdentity("order", identity_file(stack.keys, "order").read_bytes(), clock)
    client = VaultClient(stack.url("vault"), identity, clock)
    name = KeyName(uuid4(), "order_record", uuid4())
    (key,) = await client.ensure([name])

    async def renew() -> None:
        while True:
            # A vault that has enough of it refuses: that is its right.
            with suppress(KitError):
                client.drop([key.key_id])
                await client.lease("own_access", [LeaseName(key.key_id, *name)])
            await asyncio.sleep(RENEW_SECONDS)

    renewing = asyncio.create_task(renew())
    try:
        yield
    finally:
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)
        await client.sign_off()
        await client.close()


@asynccontextmanager
async def idle_transaction(stack: Stack) -> AsyncIterator[None]:
    """An operator's shell on another database of the server: it has drawn a transaction id, and waits."""
    connection = await asyncpg.connect(stack.postgres.admin_dsn)
    try:
        async with connection.transaction():
            await connection.fetchval("SELECT pg_current_xact_id()")
            yield
    finally:
        await connection.close()


@asynccontextmanager
async def silent_sockets(url: str, count: int) -> AsyncIterator[None]:
    """Connections of a stranger from another address: every second one says nothing, the others half a head.

    Those that the server closes or refuses are not opened again.
    """
    parts = urlsplit(url)
    assert parts.hostname is not None
    opened = list[socket.socket]()
    try:
        for place in range(count):
            with suppress(OSError):
                connection = socket.create_connection((parts.hostname, parts.port or 80), 5, (STRANGER, 0))
                opened.append(connection)
                if place % 2:
                    connection.sendall(HALF_A_HEAD)
        yield
    finally:
        for connection in opened:
            connection.close()
