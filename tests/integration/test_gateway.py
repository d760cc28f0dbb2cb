"""The gateway on real Kafka and Postgres: recorded before it is sent, sent once in effect, recalled, and answered."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from joserfc.jwk import OKPKey

from deploy.local.interfaces import KafkaServer, PostgresServer
from event_contracts.order import CancelReason, OrderCancelled
from event_contracts.topics import TOPICS
from lanes.loading import load_lanes
from logistics_gateway.app import ORDERS, REPLIES, SERVICE
from logistics_gateway.domain import shipment_id_of
from logistics_gateway.handlers import retry_blocked
from logistics_gateway.replies import retry_early
from logistics_gateway.sending import make_gateway, send_stale
from logistics_gateway.settings import GatewaySettings
from servicekit.core.policy import Policy
from servicekit.core.settings import Settings
from servicekit.kafka.client import OutRecord, Producer
from tests.support.carrier import Carrier
from tests.support.deliveries import make_delivery
from tests.support.gateways import (
    CARRIERS,
    PASSWORD,
    LeasingVault,
    World,
    accounts_of,
    placed,
    running,
    skip_to_end,
    until,
)
from tests.support.infra import kafka_server, postgres_server
from tests.support.kits import open_test_kit

__all__ = ["kafka_server", "postgres_server"]

POLICY = Path(__file__).parents[2] / "shared" / "policy"
GATEWAY = "logistics-gateway"
USERS = ("order", GATEWAY, *CARRIERS)
_END = datetime.max.replace(tzinfo=UTC)


@pytest.fixture(scope="module")
def settings(kafka_server: KafkaServer, tmp_path_factory: pytest.TempPathFactory) -> GatewaySettings:
    """Topics, users and keys that all tests of this module share."""
    folder = tmp_path_factory.mktemp("keys")
    (folder / "password").write_text(PASSWORD)
    kafka_server.create_users(dict.fromkeys(USERS, PASSWORD))
    topics = [topic for topic in TOPICS if topic.owner in USERS]
    kafka_server.create_topics(topics)
    kafka_server.create_acls(topics)
    for name in ("gateway", *CARRIERS):
        key = OKPKey.generate_key("X25519", parameters={"kid": f"{name}-1"}, private=True)
        (folder / f"{name}.private").write_text(json.dumps(key.as_dict(private=True)))
        (folder / f"{name}.json").write_text(json.dumps(key.as_dict(private=False)))
    return GatewaySettings(
        kafka_bootstrap=kafka_server.bootstrap,
        kafka_user=GATEWAY,
        kafka_password_file=folder / "password",
        lanes_dir=POLICY / "lanes",
        carriers_dir=folder,
        reply_key_file=folder / "gateway.private",
        blocked_retry_seconds=1,
        stale_seconds=1,
    )


@pytest.fixture
async def world(
    kafka_server: KafkaServer, postgres_server: PostgresServer, settings: GatewaySettings
) -> AsyncIterator[World]:
    dsns = postgres_server.create_system_database(f"gateway{uuid4().hex[:8]}")
    vault: Any = LeasingVault()
    assert settings.kafka_password_file is not None
    orders = Producer(
        Settings(
            kafka_bootstrap=settings.kafka_bootstrap,
            kafka_user="order",
            kafka_password_file=settings.kafka_password_file,
        )
    )
    async with open_test_kit(GATEWAY, dsns, settings, SERVICE.emits, [SERVICE.migrations]) as kit:
        own = make_gateway(settings, load_lanes(POLICY / "lanes"), kit.clock.boottime)
        kit = replace(kit, vault=vault, policy=Policy.load([POLICY / "policy.yaml"]), own=own)
        await skip_to_end(kit, kafka_server)
        yield World(kit, vault, orders, accounts_of(settings))
        await own.producer.stop()
        await orders.stop()


async def test_an_order_is_recorded_sent_answered_and_published(world: World) -> None:
    async with running(world), Carrier(world.accounts["meridian"]) as carrier:
        order = await world.order(country="GB")
        shipment = shipment_id_of(order)
        await carrier.wait_until(lambda desk: shipment in desk.shipments)
        await until(lambda: _has(world, order, "delivered_at"))
        await until(lambda: _is(world, order, "sent"))
    line = await world.line(order)
    assert carrier.desk.shipments[shipment]["recipient"]["country_code"] == "GB"
    assert (line["lane"], line["lane_version"], line["purpose"]) == ("meridian-world-standard", 2, "delivery")
    assert line["delivery"] is None
    assert "consignee.name" in line["fields"]
    assert line["policy_version"] == world.kit.policy.version
    assert await world.emitted() == [
        "DeliveryDisclosed.v1",
        "ShipmentAcknowledged.v1",
        "ShipmentHandedOver.v1",
        "ShipmentDelivered.v1",
    ]


async def test_a_batch_is_one_vault_call_and_each_order_arrives_once(world: World) -> None:
    orders = await world.order_many([uuid4() for _ in range(200)])
    world.vault.calls = 0
    async with running(world, ORDERS), Carrier(world.accounts["meridian"]) as carrier:
        wanted = {shipment_id_of(order) for order in orders}
        await carrier.wait_until(lambda desk: wanted <= desk.shipments.keys())
    assert world.vault.calls <= 6  # as many as there are partitions, at worst
    assert sum(message.shipment_id in wanted for message in carrier.desk.opened) == 200


@pytest.mark.fault(6, "an order is read again")
async def test_a_replayed_order_leaves_once(world: World) -> None:
    order = uuid4()
    sealed = await world.kit.seal_many([(make_delivery(), UUID(int=5), order)])
    event = placed(order, UUID(int=5), sealed[0])
    async with running(world, ORDERS), Carrier(world.accounts["meridian"]) as carrier:
        await world.publish(event)
        await until(lambda: _is(world, order, "sent"))
        await world.publish(event)
        last = await world.order()
        # Two orders are two partitions of the carrier's topic: neither waits for the other.
        both = {shipment_id_of(order), shipment_id_of(last)}
        await carrier.wait_until(lambda desk: both <= set(desk.shipments))
    assert sum(m.shipment_id == shipment_id_of(order) for m in carrier.desk.opened) == 1
    assert carrier.desk.duplicates == 0
    assert (await world.emitted()).count("DeliveryDisclosed.v1") == 2


@pytest.mark.fault(10, "an order whose delivery's key is destroyed")
async def test_an_erased_delivery_is_withheld(world: World) -> None:
    order = uuid4()
    (sealed,) = await world.kit.seal_many([(make_delivery(), UUID(int=6), order)])
    world.vault.erased.add(sealed.key_id)
    async with running(world, ORDERS):
        await world.publish(placed(order, UUID(int=6), sealed))
        await until(lambda: _is(world, order, "withheld"))
    line = await world.line(order)
    assert (line["reason"], line["delivery"], line["carrier"]) == ("erased", None, None)
    assert await world.emitted() == []


async def test_a_cancelled_order_is_recalled(world: World) -> None:
    async with running(world, ORDERS, *REPLIES), Carrier(world.accounts["meridian"], ["acknowledged"]) as carrier:
        order = await world.order()
        shipment = shipment_id_of(order)
        await carrier.wait_until(lambda desk: shipment in desk.shipments)
        await world.publish(OrderCancelled(order_id=order, buyer_id=uuid4(), reason=CancelReason.BY_BUYER))
        await carrier.wait_until(lambda desk: shipment in desk.recalled)
        await until(lambda: _has(world, order, "recalled_at"))
    assert (await world.line(order))["state"] in ("sent", "withheld")
    assert (await world.line(order))["reason"] == "cancelled"


async def test_an_order_cancelled_before_it_was_read_never_leaves(world: World) -> None:
    order = uuid4()
    (sealed,) = await world.kit.seal_many([(make_delivery(), UUID(int=7), order)])
    cancelled = OrderCancelled(order_id=order, buyer_id=uuid4(), reason=CancelReason.BY_BUYER)
    await world.publish(placed(order, UUID(int=7), sealed), cancelled)
    async with running(world, ORDERS), Carrier(world.accounts["meridian"]) as carrier:
        await until(lambda: _is(world, order, "withheld"))
        last = await world.order()
        await carrier.wait_until(lambda desk: shipment_id_of(last) in desk.shipments)
    assert not any(m.shipment_id == shipment_id_of(order) for m in carrier.desk.opened)


@pytest.mark.fault(1, "a crash between a disclosure and its send")
@pytest.mark.fault(22, "a lane changes between a disclosure and its send")
async def test_what_a_crash_left_recorded_is_sent_under_the_same_id_by_its_stored_lane(
    world: World, tmp_path: Path
) -> None:
    world.gateway.producer.send = _fails  # type: ignore[method-assign]
    async with running(world, ORDERS):
        order = await world.order()
        await until(lambda: _is(world, order, "recorded"))
    line = await world.line(order)
    lane, version = line["lane"], line["lane_version"]
    lanes = shutil.copytree(POLICY / "lanes", tmp_path / "lanes")
    text = (lanes / f"{lane}-{version}.yaml").read_text().replace(f"version: {version}", f"version: {version + 1}")
    (lanes / f"{lane}-{version + 1}.yaml").write_text(text)
    # a new process: nothing in memory, its own producer, and a lane that has changed meanwhile
    fresh = make_gateway(world.gateway.settings, load_lanes(lanes), world.kit.clock.boottime)
    again = World(replace(world.kit, own=fresh), world.vault, world.orders, world.accounts)
    async with running(again, ORDERS), Carrier(world.accounts["meridian"]) as carrier:
        await carrier.wait_until(lambda desk: shipment_id_of(order) in desk.shipments)
        await until(lambda: _is(world, order, "sent"))
        later = await again.order()
        await until(lambda: _is(world, later, "sent"))
    await fresh.producer.stop()
    assert [(await world.line(each))["lane_version"] for each in (order, later)] == [version, version + 1]


@pytest.mark.fault(18, "a send to a carrier fails")
async def test_a_failed_send_is_made_up_by_the_next_turn(world: World) -> None:
    send, failures = world.gateway.producer.send, [1, 1]

    async def fails_twice(records: Sequence[OutRecord]) -> None:
        if failures:
            failures.pop()
            raise OSError
        await send(records)

    world.gateway.producer.send = fails_twice  # type: ignore[method-assign]
    async with running(world, ORDERS), Carrier(world.accounts["meridian"]) as carrier:
        order = await world.order()
        await carrier.wait_until(lambda desk: shipment_id_of(order) in desk.shipments)
        await until(lambda: _is(world, order, "sent"))


@pytest.mark.fault(21, "a lease runs out before the send")
async def test_a_lease_that_ran_out_before_the_send_is_asked_for_again(world: World) -> None:
    world.vault.live = False
    async with running(world, ORDERS), Carrier(world.accounts["meridian"]) as carrier:
        order = await world.order()
        await carrier.wait_until(lambda desk: shipment_id_of(order) in desk.shipments)
        await until(lambda: _is(world, order, "sent"))


@pytest.mark.fault(1, "a reader that died for good over its batch")
async def test_lines_that_nobody_sent_are_sent_by_a_job(world: World) -> None:
    send = world.gateway.producer.send
    world.gateway.producer.send = _fails  # type: ignore[method-assign]
    async with running(world, ORDERS):
        order = await world.order()
        await until(lambda: _is(world, order, "recorded"))
    world.gateway.producer.send = send  # type: ignore[method-assign]
    await asyncio.sleep(1.1)
    async with Carrier(world.accounts["meridian"]) as carrier:
        await send_stale(world.kit)
        await carrier.wait_until(lambda desk: shipment_id_of(order) in desk.shipments)
    assert await _is(world, order, "sent")


async def test_a_blocked_order_leaves_once_there_is_a_lane(world: World) -> None:
    serving = world.gateway.routes.serving
    world.gateway.routes = replace(world.gateway.routes, serving={})
    async with running(world, ORDERS):
        order = await world.order()
        await until(lambda: _is(world, order, "blocked"))
    assert (await world.line(order))["reason"] == "no_lane"
    assert await world.emitted() == ["ShipmentBlocked.v1"]
    world.gateway.routes = replace(world.gateway.routes, serving=serving)
    await asyncio.sleep(1.1)
    await retry_blocked(world.kit)
    assert await _is(world, order, "recorded")
    assert await world.emitted() == ["ShipmentBlocked.v1", "DeliveryDisclosed.v1", "ShipmentUnblocked.v1"]
    await asyncio.sleep(1.1)
    async with Carrier(world.accounts["meridian"]) as carrier:
        await send_stale(world.kit)
        await carrier.wait_until(lambda desk: shipment_id_of(order) in desk.shipments)


@pytest.mark.fault(9, "carriers' replies that are clear, foreign or broken")
async def test_clear_or_foreign_replies_are_quarantined_and_the_rest_goes_on(world: World) -> None:
    async with running(world), Carrier(world.accounts["meridian"], []) as carrier:
        order = await world.order()
        shipment = shipment_id_of(order)
        await carrier.wait_until(lambda desk: shipment in desk.shipments)
        await carrier.send_raw(b'{"consignee": "Jane Canary"}', b"x")
        async with Carrier(world.accounts["pacifica"], []) as other:
            await other.reply(shipment, "delivered")
        await carrier.reply(shipment, "acknowledged", driver="Jane Canary")
        await carrier.reply(shipment, "acknowledged")
        await until(lambda: _has(world, order, "acknowledged_at"))
        await until(lambda: _quarantined(world, 2))
    rows = await world.kit.db.fetch("-- test\nSELECT reason, record FROM kit.quarantine ORDER BY reason")
    assert [row["reason"] for row in rows] == ["reply_not_sealed_to_us", "wrong_carrier"]
    assert not any(b"Canary" in row["record"] for row in rows)
    assert (await world.line(order))["delivered_at"] is None
    assert (await world.emitted()).count("ShipmentAcknowledged.v1") == 1


@pytest.mark.fault(29, "a carrier states a time before the order, or one to come")
@pytest.mark.attack("a carrier says that today's order was delivered in 2010", expected="quarantined: implausible_time")
async def test_a_reply_of_a_time_that_nobody_can_know_is_quarantined(world: World) -> None:
    now = datetime.now(UTC)
    wrong = [datetime(2010, 1, 1, tzinfo=UTC), now - timedelta(hours=1), now + timedelta(hours=1), _END]
    async with running(world), Carrier(world.accounts["meridian"], []) as carrier:
        order, other = await world.order(), await world.order()
        shipment, second = shipment_id_of(order), shipment_id_of(other)
        await carrier.wait_until(lambda desk: {shipment, second} <= desk.shipments.keys())
        for at in wrong:
            await carrier.reply(second, "delivered", at)
        await carrier.reply(shipment, "delivered")
        await until(lambda: _has(world, order, "delivered_at"))
        await until(lambda: _quarantined(world, len(wrong)))
    reasons = await world.kit.db.fetch("-- test\nSELECT reason FROM kit.quarantine ORDER BY position")
    assert reasons[0]["reason"] == "implausible_time"
    assert (await world.line(other))["delivered_at"] is None
    assert now < (await world.line(order))["delivered_at"] < now + timedelta(minutes=5)
    assert (await world.emitted()).count("ShipmentDelivered.v1") == 1


@pytest.mark.fault(29, "a carrier states a time before an order that is not yet read")
async def test_an_early_reply_of_such_a_time_is_dropped(world: World) -> None:
    order = uuid4()
    async with running(world, *REPLIES), Carrier(world.accounts["meridian"], []) as carrier:
        await carrier.reply(shipment_id_of(order), "delivered", datetime.now(UTC) - timedelta(days=1))
        await until(lambda: _early(world, 1))
    async with running(world, ORDERS):
        await world.order(order)
        await until(lambda: _is(world, order, "sent"))
    await retry_early(world.kit)
    assert await _early(world, 0)
    assert (await world.line(order))["delivered_at"] is None


@pytest.mark.fault(6, "a reply comes before its shipment")
async def test_a_reply_that_is_earlier_than_its_shipment_is_kept_for_it(world: World) -> None:
    order = uuid4()
    async with running(world, *REPLIES), Carrier(world.accounts["meridian"], []) as carrier:
        await carrier.reply(shipment_id_of(order), "acknowledged")
        await until(lambda: _early(world, 1))
    async with running(world, ORDERS):
        await world.order(order)
        await until(lambda: _is(world, order, "sent"))
    await retry_early(world.kit)
    assert await _has(world, order, "acknowledged_at")
    assert await _early(world, 0)
    assert (await world.emitted())[-1] == "ShipmentAcknowledged.v1"


@pytest.mark.fault(6, "replies of one parcel in another order")
async def test_a_reply_waits_behind_an_early_one_of_its_parcel(world: World) -> None:
    """Else the order would be delivered before it was handed over, and nobody would be told of the hand-over."""
    order = uuid4()
    async with Carrier(world.accounts["meridian"], []) as carrier:
        async with running(world, *REPLIES):
            await carrier.reply(shipment_id_of(order), "handed_over")
            await until(lambda: _early(world, 1))
        async with running(world, ORDERS):
            await world.order(order)
            await until(lambda: _is(world, order, "sent"))
        async with running(world, *REPLIES):
            await carrier.reply(shipment_id_of(order), "delivered")
            await until(lambda: _early(world, 2))
    await retry_early(world.kit)
    assert await _early(world, 0)
    assert (await world.emitted())[-2:] == ["ShipmentHandedOver.v1", "ShipmentDelivered.v1"]


async def _fails(records: Sequence[OutRecord]) -> None:
    raise OSError


async def _is(world: World, order_id: UUID, state: str) -> bool:
    return bool((await world.line(order_id)).get("state") == state)


async def _has(world: World, order_id: UUID, column: str) -> bool:
    return (await world.line(order_id)).get(column) is not None


async def _quarantined(world: World, count: int) -> bool:
    return bool(await world.kit.db.fetchval("-- test\nSELECT count(*) FROM kit.quarantine") == count)


async def _early(world: World, count: int) -> bool:
    return bool(await world.kit.db.fetchval("-- test\nSELECT count(*) FROM early_replies") == count)


@pytest.mark.fault(7, "what a stopped process had begun to send comes after the recall")
async def test_a_send_that_comes_after_its_recall_is_refused_by_the_carrier(world: World) -> None:
    """The last test here: every carrier that comes after it refuses that parcel again."""
    send, late = world.gateway.producer.send, list[OutRecord]()

    async def stops(records: Sequence[OutRecord]) -> None:
        late.extend(records)
        world.gateway.producer.send = send  # type: ignore[method-assign]

    world.gateway.producer.send = stops  # type: ignore[method-assign]
    async with running(world, ORDERS, *REPLIES), Carrier(world.accounts["meridian"], ["acknowledged"]) as carrier:
        order = await world.order()
        shipment = shipment_id_of(order)
        await until(lambda: _is(world, order, "sent"))
        await world.publish(OrderCancelled(order_id=order, buyer_id=uuid4(), reason=CancelReason.BY_BUYER))
        await carrier.wait_until(lambda desk: shipment in desk.recalled)
        await send(late)
        await carrier.wait_until(lambda desk: shipment in desk.refused)
    assert shipment not in carrier.desk.shipments
