"""How the demo shows what happened: one order in its four forms, and the search for values in clear."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import asyncpg
from confluent_kafka import Consumer, TopicPartition
from rich.columns import Columns
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from deploy.local.scan import Findings
from deploy.local.shop import Placed
from deploy.local.stack import Stack
from event_contracts.order import ORDER_EVENTS
from tests.support.declarations import Declaration, Goods

WIDTH = 72


async def show_order(console: Console, stack: Stack, placed: Placed, at_carrier: Mapping[str, Any]) -> None:
    """As the customer placed it, as Kafka and Postgres have it, and as the carrier opened it."""
    headers, value = read_from_kafka(stack, placed.order_id)
    row = await _read_row(stack, placed.order_id)
    kafka = [f"{name}: {_short(text)}" for name, text in headers.items()] + ["", *_lines(json.loads(value))]
    panels = [
        _panel("as the customer placed it", _lines(placed.body)),
        _panel(f"as it lies in Kafka ({ORDER_EVENTS})", kafka),
        _panel("as it lies in Postgres (order)", [f"{name}: {_short(str(text))}" for name, text in row.items()]),
        _panel("as the carrier opened it", _lines(at_carrier)),
    ]
    console.print(Columns(panels, width=WIDTH))


def _panel(title: str, lines: list[str]) -> Panel:
    return Panel(Text("\n".join(lines)), title=title, width=WIDTH, title_align="left")


def _lines(body: Any, indent: str = "", width: int = 58) -> list[str]:
    """A JSON value the way YAML writes it, texts of `width` characters and more cut."""
    lines: list[str] = []
    items = body.items() if isinstance(body, Mapping) else ((f"{place}", each) for place, each in enumerate(body))
    for name, value in items:
        if isinstance(value, (Mapping, list)):
            lines += [f"{indent}{name}:", *_lines(value, indent + "  ", width)]
        else:
            lines.append(f"{indent}{name}: {_short(str(value), width)}")
    return lines


def _short(text: str, width: int = 58) -> str:
    return text if len(text) < width else f"{text[:46]}… ({len(text)} long)"


def _text(value: str | bytes | None) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def read_from_kafka(stack: Stack, order_id: UUID) -> tuple[dict[str, str], bytes]:
    """Headers and value of the first event of an order, read as the operator can: all bytes, no keys."""
    consumer = Consumer(
        {
            "bootstrap.servers": stack.kafka.bootstrap,
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": stack.kafka.admin_user,
            "sasl.password": stack.kafka.admin_password,
            "group.id": "demo",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
        }
    )
    try:
        partitions = consumer.list_topics(ORDER_EVENTS, timeout=10).topics[ORDER_EVENTS].partitions
        consumer.assign([TopicPartition(ORDER_EVENTS, number, 0) for number in partitions])
        while (message := consumer.poll(10)) is not None:
            if message.key() == str(order_id).encode():
                headers = {str(header[0]): _text(header[1]) for header in message.headers() or ()}
                return headers, message.value() or b""
    finally:
        consumer.close()
    raise LookupError("the order is not in the topic")


async def _read_row(stack: Stack, order_id: UUID) -> dict[str, Any]:
    connection = await asyncpg.connect(stack.dsn("order"))
    try:
        row = await connection.fetchrow(
            """SELECT o.*, d.delivery, r.record, p.payment FROM orders o
            JOIN order_deliveries d USING (order_id, consignee_id) JOIN order_records r USING (order_id, buyer_id)
            JOIN order_payments p USING (order_id, buyer_id) WHERE order_id = $1""",
            order_id,
        )
    finally:
        await connection.close()
    return {} if row is None else {name: v.hex() if isinstance(v, bytes) else v for name, v in row.items()}


def show_refusal(console: Console, refusal: Mapping[str, Any]) -> None:
    """What the shop answers, with the help for each field."""
    console.print(_panel("POST /v1/orders with a phone number that is too short", _lines(refusal, width=WIDTH * 2)))


def show_parcel(console: Console, parcel: Mapping[str, Any]) -> None:
    """As schema.org's `ParcelDelivery`."""
    console.print(_panel("GET /v1/orders/…/tracking", _lines(parcel)))


def show_declarations(console: Console, shipment: Mapping[str, Any], declarations: Mapping[str, Declaration]) -> None:
    """The goods as our message has them, and what each carrier's own request says when karrio builds it from the message."""
    table = Table("request of", "declared", "currency", "goods: pieces × value, weight of one", "to")
    for carrier, declared in declarations.items():
        if declared.customs is not None:
            goods = ", ".join(map(_goods, declared.customs.goods))
            place = f"{declared.postal_code or ''} {declared.country}".strip()
            table.add_row(carrier, f"{declared.customs.total:,.2f}", declared.customs.currency, goods, place)
    console.print(_panel("the message's customs data", _lines(shipment["customs"])))
    console.print(table)


def _goods(goods: Goods) -> str:
    pieces = "" if goods.quantity is None else f"{goods.quantity} × "
    return f"{pieces}{goods.value}, {goods.weight} kg"


def show_search(console: Console, findings: Findings, canaries: set[str], controls: int, control_hits: int) -> None:
    """What was searched, and what was found."""
    table = Table("place", "bytes searched", "values in clear", "controls found")
    for place, size in findings.searched.items():
        hits = findings.hits.get(place, set())
        table.add_row(place, f"{size:,}", str(len(hits & canaries)), str(len(hits - canaries)))
    console.print(table)
    console.print(
        f"  {len(canaries):,} names, streets, phones, e-mails and passwords were searched in every spelling: "
        f"{len(findings.values & canaries)} found."
    )
    console.print(f"  {controls} values were planted in clear to show that the search finds: {control_hits} found.")
