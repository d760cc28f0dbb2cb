"""What there is of each order in every database and topic, without ids and times, so that two orders can be compared."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg
from confluent_kafka import Consumer, Message, TopicPartition

from deploy.local.stack import Stack
from event_contracts.account import ACCOUNT_EVENTS
from event_contracts.carrier import shipments_topic
from event_contracts.logistics_gateway import SHIPMENT_EVENTS
from event_contracts.order import ORDER_EVENTS
from logistics_gateway.domain import shipment_id_of
from tests.support.carrier import Carrier, Desk

EVENT_TOPICS = (ACCOUNT_EVENTS, ORDER_EVENTS, SHIPMENT_EVENTS)
WITH_OUTBOX = ("account", "order", "logistics-gateway")
WITH_KIT = (*WITH_OUTBOX, "privacy")


@dataclass(frozen=True)
class EndState:
    """One order. Tuples are sorted, and list what stands there twice twice; `events` is in order, each event id once."""

    status: str
    parts: int
    disclosures: tuple[tuple[str, ...], ...]
    notices: tuple[str, ...]
    inventory: tuple[tuple[str, str], ...]
    recipients: int
    shipments: int
    events: tuple[str, ...]


DELIVERED = EndState(
    status="delivered",
    parts=3,
    disclosures=(("sent", "acknowledged", "handed_over", "delivered"),),
    notices=("delivered", "handed_over", "order_received"),
    inventory=(
        ("logistics-gateway", "pseudonym"),
        ("order", "delivery"),
        ("order", "order_record"),
        ("order", "payment"),
    ),
    recipients=1,
    shipments=1,
    events=("OrderPlaced", "OrderConfirmed", "OrderHandedOver", "OrderDelivered"),
)


async def rows(stack: Stack, system: str, sql: str, *args: Any) -> list[asyncpg.Record]:
    """Reads over a connection of its own, which no kill of the database outlives."""
    connection = await asyncpg.connect(stack.dsn(system), timeout=60, command_timeout=120)
    try:
        found: list[asyncpg.Record] = await connection.fetch(sql, *args)
        return found
    finally:
        await connection.close()


async def number(stack: Stack, system: str, sql: str) -> int:
    return int((await rows(stack, system, sql))[0][0] or 0)


async def unpublished(stack: Stack, system: str) -> int:
    """Rows of the outbox that wait for the relay."""
    return await number(stack, system, "SELECT count(*) FROM kit.outbox WHERE published_at IS NULL")


async def quarantined(stack: Stack, system: str) -> int:
    return await number(stack, system, "SELECT count(*) FROM kit.quarantine")


async def under_way(stack: Stack) -> int:
    """Orders that were placed and not delivered."""
    return await number(stack, "order", "SELECT count(*) FROM orders WHERE status <> 'delivered'")


async def end_states(
    stack: Stack, carriers: Iterable[Carrier], order_ids: Collection[UUID] | None = None
) -> dict[UUID, EndState]:
    """Of these orders, or of all that the order service has. The carriers' side is what *they* count as shipments."""
    ids = [row[0] for row in await rows(stack, "order", "SELECT order_id FROM orders")]
    ids = [order_id for order_id in ids if order_ids is None or order_id in order_ids]
    status = await _of_orders(stack, "order", "SELECT order_id, status FROM orders")
    parts = await _of_orders(
        stack,
        "order",
        "SELECT order_id, 1 FROM order_deliveries UNION ALL SELECT order_id, 1 FROM order_records "
        "UNION ALL SELECT order_id, 1 FROM order_payments",
    )
    ledger = await _of_orders(
        stack,
        "logistics-gateway",
        """SELECT order_id, array_remove(ARRAY[state::text,
            CASE WHEN refused_at IS NOT NULL THEN 'refused' END, CASE WHEN recall IS NOT NULL THEN 'recalled' END,
            CASE WHEN acknowledged_at IS NOT NULL THEN 'acknowledged' END,
            CASE WHEN handed_over_at IS NOT NULL THEN 'handed_over' END,
            CASE WHEN delivered_at IS NOT NULL THEN 'delivered' END], NULL) FROM disclosures""",
    )
    notices = await _of_orders(stack, "account", "SELECT order_id, kind FROM notices")
    inventory = await _of_orders(stack, "privacy", "SELECT anchor, ARRAY[system, data_class]::text[] FROM inventory")
    recipients = await _of_orders(stack, "privacy", "SELECT anchor, 1 FROM recipients")
    shipments = Counter(shipment for carrier in carriers for shipment in carrier.desk.shipments)
    events = await asyncio.to_thread(events_of_orders, stack)
    return {
        order_id: EndState(
            status=status[order_id][0],
            parts=len(parts[order_id]),
            disclosures=tuple(sorted(tuple(line) for line in ledger[order_id])),
            notices=tuple(sorted(notices[order_id])),
            inventory=tuple(sorted((system, data_class) for system, data_class in inventory[order_id])),
            recipients=len(recipients[order_id]),
            shipments=shipments[shipment_id_of(order_id)],
            events=tuple(events[order_id]),
        )
        for order_id in ids
    }


async def _of_orders(stack: Stack, system: str, sql: str) -> dict[UUID, list[Any]]:
    """The second column by the first."""
    found: dict[UUID, list[Any]] = defaultdict(list)
    for order_id, value in await rows(stack, system, sql):
        found[order_id].append(value)
    return found


def events_of_orders(stack: Stack) -> dict[UUID, list[str]]:
    """The types of each order's events in their order, an event that was produced twice counted where it came first."""
    found: dict[UUID, dict[str, str]] = defaultdict(dict)
    for message in read_topic(stack, ORDER_EVENTS):
        headers = _headers(message)
        found[UUID((message.key() or b"").decode())].setdefault(headers["ce_id"], headers["ce_type"])
    # `OrderPlaced.v1` is the first version of `OrderPlaced`.
    names = {order_id: [kind.partition(".")[0] for kind in by_id.values()] for order_id, by_id in found.items()}
    return defaultdict(list, names)


def twice_in_topics(stack: Stack, desks: Mapping[str, Desk]) -> Counter[str]:
    """Surplus copies on the wire: events by their id, messages to each carrier by the id inside; by topic."""
    surplus: Counter[str] = Counter()
    for topic in EVENT_TOPICS:
        copies = Counter(_headers(message)["ce_id"] for message in read_topic(stack, topic))
        surplus[topic] = copies.total() - len(copies)
    for carrier, desk in desks.items():
        topic = shipments_topic(carrier)
        contents = [desk.open(message.value() or b"") for message in read_topic(stack, topic)]
        surplus[topic] = len(contents) - len({_message_id(content) for content in contents})
    return surplus


def read_topic(stack: Stack, topic: str) -> list[Message]:
    """All records, partition by partition in order. Blocks."""
    consumer = Consumer(
        {
            "bootstrap.servers": stack.kafka.bootstrap,
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": stack.kafka.admin_user,
            "sasl.password": stack.kafka.admin_password,
            "group.id": "unused",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 50,
            "log_level": 0,
        }
    )
    try:
        partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
        ends = {n: consumer.get_watermark_offsets(TopicPartition(topic, n), timeout=30) for n in partitions}
        consumer.assign([TopicPartition(topic, n, low) for n, (low, high) in ends.items() if low < high])
        left = sum(high - low for low, high in ends.values())
        found: list[Message] = []
        while len(found) < left:
            messages = consumer.consume(left - len(found), timeout=10)
            assert messages, f"{topic} cannot be read to its end"
            assert not any(message.error() for message in messages)
            found += messages
        return sorted(found, key=lambda message: (message.partition() or 0, message.offset() or 0))
    finally:
        consumer.close()


def _headers(message: Message) -> dict[str, str]:
    headers: Any = message.headers() or ()
    return {name: (value or b"").decode() for name, value in headers}


def _message_id(content: bytes) -> str:
    return str(json.loads(content)["message_id"])
