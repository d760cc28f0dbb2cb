"""Order events made past the order service: sealed for real, with whatever plaintext a test wants, sent as raw bytes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from confluent_kafka import Producer

from deploy.local.keys import identity_file
from deploy.local.stack import Stack
from event_contracts import Sealed
from servicekit.core.clock import Clock
from servicekit.vault.client import ServiceIdentity, VaultClient
from servicekit.vault.leases import KeyName
from servicekit.vault.token import SealingKey, seal

PARTS = (("delivery", "Delivery"), ("order_record", "OrderRecord"), ("payment", "Payment"))
REGISTRATION = ("registration", "Registration")
OF_CONSIGNEE = ("delivery", "registration")


@dataclass(frozen=True)
class RawOrder:
    """One `OrderPlaced` as it will lie in Kafka."""

    order_id: UUID
    value: bytes
    headers: list[tuple[str, str | bytes | None]]


async def seal_orders(
    stack: Stack,
    deliveries: Sequence[bytes],
    extra: Iterable[dict[str, Any]] = (),
    registrations: Sequence[bytes] = (),
) -> list[RawOrder]:
    """An order for each plaintext of a delivery; `extra` are fields that nobody knows, beside the known ones of the event.
    `registrations`: plaintexts for all orders, or for none."""
    parts = (*PARTS, REGISTRATION) if registrations else PARTS
    clock = Clock()
    identity = ServiceIdentity("order", identity_file(stack.keys, "order").read_bytes(), clock)
    client = VaultClient(stack.url("vault"), identity, clock, patience=30)
    ids = [(uuid4(), uuid4(), uuid4()) for _ in deliveries]
    names = [
        KeyName(consignee if data_class in OF_CONSIGNEE else buyer, data_class, order)
        for order, buyer, consignee in ids
        for data_class, _ in parts
    ]
    keys = await client.ensure(names)
    await client.sign_off()  # or an erasure waits until the leases of this holder are over
    await client.close()
    fields = [*extra] or [{} for _ in deliveries]
    count = len(parts)
    return [
        _raw_order(ids[n], keys[n * count : (n + 1) * count], (delivery, *registrations[n : n + 1]), fields[n])
        for n, delivery in enumerate(deliveries)
    ]


def _raw_order(
    ids: tuple[UUID, UUID, UUID], keys: Sequence[SealingKey], consignees: Sequence[bytes], extra: dict[str, Any]
) -> RawOrder:
    """`consignees`: the delivery and, if there is one, the registration."""
    order, buyer, consignee = ids
    line = {"sku": "MUG", "description": "Mug", "quantity": 1, "unit_price": 900}
    record = {"order_number": "00000-00000", "lines": [line], "currency": "EUR", "total": 900}
    delivery, *registration = consignees
    plaintexts = (delivery, json.dumps(record).encode(), b'{"token":"tok_123456789"}', *registration)
    parts = []
    for (data_class, model), key, plaintext in zip((*PARTS, REGISTRATION), keys, plaintexts, strict=False):
        subject = consignee if data_class in OF_CONSIGNEE else buyer
        token = seal(key, plaintext, data_class=data_class, model_name=model, subject=subject, anchor=order)
        parts.append((data_class, subject, key.key_id, Sealed[Any](token).to_text()))
    now = datetime.now(UTC).isoformat()
    body = {"order_id": str(order), "buyer_id": str(buyer), "consignee_id": str(consignee), "placed_at": now}
    names = ("delivery", "record", "payment", "registration")
    body |= {name: part[3] for name, part in zip(names, parts, strict=False)}
    sealed = [{"class": c, "subject": str(s), "anchor": str(order), "key": str(k)} for c, s, k, _ in parts]
    attributes = {
        "ce_specversion": "1.0",
        "ce_id": str(uuid4()),
        "ce_source": "order",
        "ce_type": "OrderPlaced.v1",
        "ce_time": now,
        "ce_partitionkey": str(order),
        "content-type": "application/json",
        "ce_sealed": json.dumps(sealed),
    }
    headers: list[tuple[str, str | bytes | None]] = [(name, text.encode()) for name, text in attributes.items()]
    return RawOrder(order, json.dumps(extra | body).encode(), headers)


def anew(orders: Iterable[RawOrder]) -> list[RawOrder]:
    """The same orders as other events, that happened now."""
    now = datetime.now(UTC).isoformat().encode()
    found = []
    for order in orders:
        renewed = {"ce_id": str(uuid4()).encode(), "ce_time": now}
        headers = [(name, renewed.get(name, value)) for name, value in order.headers]
        found.append(RawOrder(order.order_id, order.value, headers))
    return found


def produce_orders(
    stack: Stack, orders: Iterable[RawOrder], topic: str = "order.events", login: tuple[str, str] | None = None
) -> None:
    """Sends the records with another client library, as the order service's user or with another (user, password)."""
    user, password = login or stack.kafka_credentials("order")
    producer = Producer(
        {
            "bootstrap.servers": stack.kafka.bootstrap,
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": user,
            "sasl.password": password,
            "partitioner": "murmur2_random",
            "enable.idempotence": True,
        }
    )
    for order in orders:
        producer.produce(topic, key=str(order.order_id), value=order.value, headers=order.headers)
        producer.poll(0)
    if producer.flush(60):
        raise TimeoutError("Kafka did not take all orders within 60 s")
