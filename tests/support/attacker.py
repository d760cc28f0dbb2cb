"""The reader of docs/proofs.md, 8: all bytes of all topics and databases, every carrier's private key, a vault dump, all KEKs.

It asks nobody: no service, no grant, no lease, none of our code. What it opens is what *could* be opened.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import asyncpg
from confluent_kafka import Consumer, TopicPartition

from deploy.local.stack import Stack
from event_contracts.carrier import shipments_topic
from event_contracts.topics import CARRIERS
from tests.support.forced_opening import JWE, CarrierKey, KeyRing, StolenKey, open_token, tokens_in, unwrap

OWN_TOPICS = frozenset(map(shipments_topic, CARRIERS))
PAGE = 1000
PATIENCE = 60.0


@dataclass
class Loot:
    """What was found and opened.

    `values` are all texts inside everything that opened, but for the messages in the carriers' own topics: those stand in
    `in_carrier_topics`, because a carrier's key opens them until the topic forgets them, and the certificate says until when.
    `opened` counts sealed values by subject, class and anchor; `tokens` and `envelopes` are what was tried, each once.
    """

    keys: KeyRing
    carrier_keys: Sequence[CarrierKey]
    tokens: int = 0
    envelopes: int = 0
    opened: Counter[tuple[UUID, str, UUID]] = field(default_factory=Counter)
    values: set[str] = field(default_factory=set)
    in_carrier_topics: set[str] = field(default_factory=set)
    _seen: set[bytes] = field(default_factory=set)

    def search(self, place: str, content: bytes) -> None:
        """Opens whatever is sealed in these bytes, and whatever is sealed inside of that."""
        for token in tokens_in(content):
            self._try_token(place, token)
        for match in JWE.finditer(content):
            self._try_envelope(place, match[0])

    def of(self, subject: UUID) -> set[tuple[str, UUID]]:
        """Class and anchor of all sealed values of this person that opened."""
        return {(data_class, anchor) for owner, data_class, anchor in self.opened if owner == subject}

    def _try_token(self, place: str, token: bytes) -> None:
        if token[17:61] in self._seen:  # nonce and commitment: the same value lies in outbox, topic and row
            return
        self._seen.add(token[17:61])
        self.tokens += 1
        key = self.keys.of(token)
        found = None if key is None else _object(open_token(token, key.key))
        if key is None or found is None:
            return
        self.opened[key.subject, key.data_class, key.anchor] += 1
        self._take(place, found, self.values)

    def _try_envelope(self, place: str, text: bytes) -> None:
        self.envelopes += 1
        for key in self.carrier_keys:
            content = key.open(text)
            if content is not None:
                own = place in OWN_TOPICS
                self._take(place, _object(content), self.in_carrier_topics if own else self.values)
                return

    def _take(self, place: str, content: Any, into: set[str]) -> None:
        for text in _texts(content):
            into.add(text)
            self.search(place, text.encode())
            inner = _decoded(text)
            if inner:
                self.search(place, inner)
                self._take(place, _object(inner), into)


async def raid(stack: Stack) -> Loot:
    """Takes everything that the stack has stored, as it is at this moment, and opens what opens."""
    carrier_keys = [CarrierKey(stack.carrier_key_file(carrier).read_text()) for carrier in CARRIERS]
    loot = Loot(KeyRing(await dump_vault(stack)), carrier_keys)
    for system in stack.specs:
        await _search_rows(loot, stack.owner_dsn(system))
    await asyncio.to_thread(_search_topics, loot, stack)
    return loot


async def dump_vault(stack: Stack) -> list[StolenKey]:
    """Every wrapped key of the vault's database, tried with every KEK that lies about."""
    keks = [path.read_bytes() for path in sorted((stack.keys / "kek").glob("epoch-*.key"))]
    connection = await asyncpg.connect(stack.owner_dsn("vault"))
    try:
        rows = await connection.fetch(
            "SELECT key_id, subject_id, data_class, anchor, wrapped FROM keys WHERE wrapped IS NOT NULL"
        )
    finally:
        await connection.close()
    return [
        StolenKey(unwrap(row["wrapped"], kek), row["key_id"], row["subject_id"], row["data_class"], row["anchor"])
        for row in rows
        for kek in keks
    ]


async def _search_rows(loot: Loot, owner_dsn: str) -> None:
    """Every field of every row of every table that can hold bytes."""
    connection = await asyncpg.connect(owner_dsn)
    try:
        tables = await connection.fetch(
            """SELECT c.oid::regclass::text AS name, string_agg(quote_ident(a.attname), ', ') AS columns
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
            WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema')
              AND a.attnum > 0 AND NOT a.attisdropped
              AND a.atttypid IN ('bytea'::regtype, 'text'::regtype, 'varchar'::regtype, 'json'::regtype, 'jsonb'::regtype)
            GROUP BY c.oid"""
        )
        async with connection.transaction(readonly=True):
            for table in tables:
                query = f"SELECT {table['columns']} FROM {table['name']}"
                async for row in connection.cursor(query, prefetch=PAGE):
                    for content in row.values():
                        loot.search(table["name"], _bytes(content))
    finally:
        await connection.close()


def _search_topics(loot: Loot, stack: Stack) -> None:
    """Every record of every topic, from its first byte: key, headers and value."""
    consumer = Consumer(
        {
            "bootstrap.servers": stack.kafka.bootstrap,
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": stack.kafka.admin_user,
            "sasl.password": stack.kafka.admin_password,
            "group.id": "attacker",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 50,
            "log_level": 0,
        }
    )
    try:
        ends: dict[tuple[str | None, int | None], int] = {}
        for name, topic in consumer.list_topics(timeout=30).topics.items():
            for partition in () if name.startswith("__") else topic.partitions:
                low, high = consumer.get_watermark_offsets(TopicPartition(name, partition), timeout=30)
                if low < high:
                    ends[name, partition] = high
        consumer.assign([TopicPartition(str(name), partition or 0, 0) for name, partition in ends])
        deadline = time.monotonic() + PATIENCE
        while ends:
            assert time.monotonic() < deadline, f"topics cannot be read to their ends: {sorted(ends)}"
            for message in consumer.consume(PAGE, timeout=0.1):
                deadline = time.monotonic() + PATIENCE
                assert not message.error(), message.error()
                headers: Any = message.headers() or ()
                for content in (message.key(), message.value(), *(value for _, value in headers)):
                    loot.search(message.topic() or "", _bytes(content))
                place = message.topic(), message.partition()
                if (message.offset() or 0) + 1 >= ends.get(place, 0):
                    ends.pop(place, None)
    finally:
        consumer.close()


def _bytes(content: Any) -> bytes:
    return content if isinstance(content, bytes) else str(content or "").encode()


def _object(content: bytes) -> Any:
    """The JSON in these bytes; None for noise, which is what a wrong key leaves."""
    try:
        found = json.loads(content)
    except ValueError:
        return None
    return found if isinstance(found, (dict, list)) else None


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, (dict, list)):
        inner: Iterable[Any] = content.values() if isinstance(content, dict) else content
        for each in inner:
            yield from _texts(each)


def _decoded(text: str) -> bytes | None:
    """What a longer text holds that is JSON itself (a part of an export) or base64 (a record in quarantine)."""
    if text[:1] in ("{", "["):
        return text.encode()
    try:
        return base64.b64decode(text, validate=True) if len(text) >= 16 else None
    except (binascii.Error, ValueError):
        return None
