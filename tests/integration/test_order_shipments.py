"""What moves an order: its shipment's events and its buyer; then as a process, with a real vault and Kafka."""

import asyncio
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from deploy.local import keys
from deploy.local.services import SERVICES
from deploy.local.stack import Stack
from event_contracts import Event
from order_service.holdings import RECORDS
from servicekit.core.settings import Settings
from servicekit.http.tls import tls_of
from servicekit.kafka.client import OutRecord, Producer
from servicekit.kafka.cloudevents import to_headers
from tests.support.infra import postgres_server
from tests.support.orders import (
    CANARY,
    HANDED_OVER_AT,
    Shop,
    a_purchase,
    acknowledged,
    delivered,
    handed_over,
    order_dsns,
    order_keys,
    refused,
    shop,
)

__all__ = ["order_dsns", "order_keys", "postgres_server", "shop"]  # fixtures


async def test_a_shipment_moves_its_order(shop: Shop) -> None:
    buyer = shop.buyer()
    order_id = await buyer.placed()
    for event, status in (
        (acknowledged(order_id), "confirmed"),
        (handed_over(order_id), "handed_over"),
        (delivered(order_id), "delivered"),
    ):
        await shop.receive(event, event)
        await shop.receive(event)
        assert await buyer.status(order_id) == status
    assert await shop.types(order_id) == ["OrderPlaced", "OrderConfirmed", "OrderHandedOver", "OrderDelivered"]
    assert datetime.fromisoformat((await shop.events(order_id))[2][1]["at"]) == HANDED_OVER_AT


@pytest.mark.fault(29, "a carrier's time in an event")
async def test_an_order_closes_by_our_own_clock_and_shows_the_carriers_time(shop: Shop) -> None:
    buyer = shop.buyer()
    order_id = await buyer.placed()
    before = shop.kit.clock.now()
    await shop.receive(delivered(order_id))
    stated = HANDED_OVER_AT + timedelta(days=2)
    shown = (await buyer.get(f"/v1/orders/{order_id}")).json()
    assert datetime.fromisoformat(shown["status_at"]) == stated
    (item,) = (await RECORDS.describe(shop.kit.db, [buyer.subject_id]))[buyer.subject_id]
    assert item.closed_at is not None
    assert before <= item.closed_at <= shop.kit.clock.now()


@pytest.mark.fault(6, "a shipment's events in another order")
async def test_the_later_state_wins_over_late_events(shop: Shop) -> None:
    buyer = shop.buyer()
    order_id = await buyer.placed()
    for event in (delivered(order_id), handed_over(order_id), acknowledged(order_id), refused(order_id)):
        await shop.receive(event)
    assert await buyer.status(order_id) == "delivered"
    assert await shop.types(order_id) == ["OrderPlaced", "OrderDelivered"]


async def test_a_refused_shipment_cancels_the_order(shop: Shop) -> None:
    buyer = shop.buyer()
    order_id = await buyer.placed()
    await shop.receive(acknowledged(order_id))
    await shop.receive(refused(order_id))
    await shop.receive(acknowledged(order_id))
    assert (await buyer.post(f"/v1/orders/{order_id}/cancel")).status_code == 200
    assert await buyer.status(order_id) == "cancelled"
    assert (await shop.events(order_id))[-1][1]["reason"] == "undeliverable"
    assert await shop.types(order_id) == ["OrderPlaced", "OrderConfirmed", "OrderCancelled"]


async def test_a_batch_moves_exactly_the_orders_that_it_can(shop: Shop) -> None:
    """One statement for the batch; an unknown order, one twice and one that is done are no trouble."""
    buyer = shop.buyer()
    fresh, done = [await buyer.placed() for _ in range(3)], await buyer.placed()
    await shop.receive(handed_over(done))
    later = handed_over(fresh[0], HANDED_OVER_AT + timedelta(hours=1))
    await shop.receive(*map(handed_over, fresh), later, handed_over(done), handed_over(str(uuid4())))
    for order_id in (*fresh, done):
        assert await shop.types(order_id) == ["OrderPlaced", "OrderHandedOver"]
    assert datetime.fromisoformat((await shop.events(fresh[0]))[1][1]["at"]) == HANDED_OVER_AT


async def test_cancelling_twice_cancels_once(shop: Shop) -> None:
    buyer = shop.buyer()
    order_id = await buyer.placed()
    answers = await asyncio.gather(*(buyer.post(f"/v1/orders/{order_id}/cancel") for _ in range(6)))
    assert {(answer.status_code, answer.json()["status"]) for answer in answers} == {(200, "cancelled")}
    assert await shop.types(order_id) == ["OrderPlaced", "OrderCancelled"]
    assert (await shop.events(order_id))[1][1]["reason"] == "by_buyer"


async def test_an_order_with_the_carrier_cannot_be_cancelled(shop: Shop) -> None:
    buyer = shop.buyer()
    order_id = await buyer.placed()
    await shop.receive(handed_over(order_id))
    answer = await buyer.post(f"/v1/orders/{order_id}/cancel")
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/conflict")
    assert await shop.types(order_id) == ["OrderPlaced", "OrderHandedOver"]


@pytest.mark.fault(25, "cancelling and handing over at once")
async def test_cancelling_and_handing_over_at_once_ends_in_one_of_the_two(shop: Shop) -> None:
    buyer = shop.buyer()
    for _ in range(8):
        order_id = await buyer.placed()
        answer, _ = await asyncio.gather(
            buyer.post(f"/v1/orders/{order_id}/cancel"), shop.receive(handed_over(order_id))
        )
        status = await buyer.status(order_id)
        kinds = await shop.types(order_id)
        assert (answer.status_code, status, kinds[1:]) in (
            (200, "cancelled", ["OrderCancelled"]),
            (409, "handed_over", ["OrderHandedOver"]),
        )


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """The vault and the order service as processes, with Kafka and Postgres."""
    services = [spec for spec in SERVICES if spec.system in ("vault", "order")]
    with Stack(services, progress=lambda line: None) as running:
        yield running


def request(stack: Stack, method: str, path: str, buyer_id: UUID, **options: Any) -> httpx.Response:
    token = keys.customer_token(stack.keys, buyer_id, scope="guest")
    headers = {"Authorization": f"Bearer {token}"} | options.pop("headers", {})
    return httpx.request(
        method,
        stack.url("order") + path,
        headers=headers,
        trust_env=False,
        verify=tls_of(stack.url("order")),
        **options,
    )


@pytest.mark.fault(1, "kill -9 between seal and commit")
def test_a_kill_between_seal_and_commit_leaves_no_order(stack: Stack) -> None:
    """The real process dies at that place; after its restart the same key places the order, once."""
    buyer_id, order_id = uuid4(), uuid4()
    order, chosen = stack.process("order"), {"Idempotency-Key": str(order_id)}
    order.restart({"FAULTPOINTS": "order.sealed=kill@1"})
    with pytest.raises(httpx.TransportError):
        request(stack, "POST", "/v1/orders", buyer_id, json=a_purchase(gift=True), headers=chosen)
    order.restart()
    assert request(stack, "GET", "/v1/orders", buyer_id).json() == {"items": []}
    answers = [
        request(stack, "POST", "/v1/orders", buyer_id, json=a_purchase(gift=True), headers=chosen) for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [201, 200]
    assert answers[0].json() == answers[1].json()


async def test_an_order_follows_its_shipment_over_kafka(stack: Stack, tmp_path: Path) -> None:
    """What the gateway publishes moves the order; the real vault opens it; all it emitted is published; no log tells."""
    buyer_id = uuid4()
    answer = request(stack, "POST", "/v1/orders", buyer_id, json=a_purchase())
    assert answer.status_code == 201
    order_id = answer.json()["order_id"]
    events = [acknowledged(order_id), acknowledged(order_id), handed_over(order_id), delivered(order_id)]
    await publish(gateway_settings(stack, tmp_path / "password"), *events)
    detail: dict[str, Any] = {"status": ""}
    for _ in range(200):
        detail = request(stack, "GET", f"/v1/orders/{order_id}", buyer_id).json()
        if detail["status"] == "delivered":
            break
        await asyncio.sleep(0.1)
    assert detail["status"] == "delivered"
    assert detail["delivery"]["consignee"]["name"] == CANARY
    while stack.process("order").health()["outbox_depth"]:
        await asyncio.sleep(0.1)
    for log in stack.logs.iterdir():
        assert CANARY not in log.read_text()


def gateway_settings(stack: Stack, password: Path) -> Settings:
    """The gateway as a Kafka user: this stack does not run it."""
    password.write_text("a-password-of-a-test")
    stack.kafka.create_users({"logistics-gateway": password.read_text()})
    return Settings(kafka_bootstrap=stack.kafka.bootstrap, kafka_user="logistics-gateway", kafka_password_file=password)


async def publish(settings: Settings, *events: Event) -> None:
    producer = Producer(settings)
    try:
        await producer.send([record(event) for event in events])
    finally:
        await producer.stop()


def record(event: Event) -> OutRecord:
    headers = to_headers(event, event_id=uuid4(), source="logistics-gateway", time=HANDED_OVER_AT)
    return OutRecord(event.topic, str(event.partition_key).encode(), event.model_dump_json().encode(), headers)
