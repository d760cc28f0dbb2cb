"""Which anchors the holdings of account and order find past their time, on real Postgres."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from account_service.app import SERVICE as ACCOUNT
from deploy.local.interfaces import PostgresServer
from event_contracts.privacy import ExpiredFound, FindExpired
from order_service.app import SERVICE as ORDER
from servicekit.app.service import Service
from servicekit.core.settings import Settings
from servicekit.db.postgres import Tx
from servicekit.kafka.cloudevents import Received
from servicekit.kit import Kit
from servicekit.participant.participant import participant
from tests.support.infra import postgres_server
from tests.support.kits import open_test_kit

__all__ = ["postgres_server"]

END = datetime.max.replace(tzinfo=UTC)
NOW = datetime(2026, 11, 24, tzinfo=UTC)
TOKEN = bytes(64)


def open_kit(postgres_server: PostgresServer, service: Service) -> AbstractAsyncContextManager[Kit]:
    dsns = postgres_server.create_system_database(f"{service.name}{uuid4().hex[:8]}")
    return open_test_kit(service.name, dsns, Settings(), service.publishes, [service.migrations])


async def insert(kit: Kit, sql: str, *args: Any) -> None:
    async def work(tx: Tx) -> None:
        await tx.execute(sql, *args)

    await kit.run_tx("test", work)


async def find(kit: Kit, service: Service, data_class: str, **more: Any) -> ExpiredFound:
    """The participant's answer."""
    asked = FindExpired(
        **{"request_id": uuid4(), "data_class": data_class, "closed_before": NOW, "limit": 1000, **more}
    )
    received = Received(asked, uuid4(), NOW, "privacy", "privacy.commands", 0, 0)

    async def work(tx: Tx) -> None:
        apply: Any = participant(service.holdings).apply
        await apply(kit, tx, [received], {})

    await kit.run_tx("test", work)
    body = await kit.db.fetchval("SELECT body FROM kit.outbox WHERE key = $1", asked.request_id)
    return ExpiredFound.model_validate_json(body)


async def anchors(kit: Kit, service: Service, data_class: str, **more: Any) -> Sequence[UUID]:
    return [item.anchor for item in (await find(kit, service, data_class, **more)).items]


async def test_orders_that_are_over_expire_and_those_under_way_never_do(postgres_server: PostgresServer) -> None:
    buyer, orders = uuid4(), [uuid4() for _ in range(5)]
    states = ("delivered", "cancelled", "handed_over", "placed", "delivered")
    async with open_kit(postgres_server, ORDER) as kit:
        for days, (order, status) in enumerate(zip(orders, states, strict=True), start=-3):
            at = NOW + timedelta(days=days)  # the last one after the moment that is asked for
            sql = "INSERT INTO orders VALUES ($1, $2, $2, $3, $4, $4)"
            await insert(kit, sql, order, buyer, status, at)
            await insert(kit, "INSERT INTO order_deliveries VALUES ($1, $2, $3)", buyer, order, TOKEN)
        assert await anchors(kit, ORDER, "delivery") == orders[:2]
        assert await anchors(kit, ORDER, "payment") == []
        assert await anchors(kit, ORDER, "delivery", unused=True) == []
        first = await find(kit, ORDER, "delivery", limit=1)
        assert ([item.anchor for item in first.items], first.is_all) == (orders[:1], False)
        place = {"after_closed_at": first.items[0].closed_at, "after_anchor": first.items[0].anchor}
        last = await find(kit, ORDER, "delivery", limit=1, **place)
        assert ([item.anchor for item in last.items], last.is_all) == (orders[1:2], True)


@pytest.mark.fault(29, "a carrier's time long ago, long ahead, or without an end, about an order of today")
@pytest.mark.attack("a carrier's time makes an order look long closed", expected="retention counts from our own time")
async def test_an_order_closes_when_this_service_hears_of_it(postgres_server: PostgresServer) -> None:
    """Whatever a carrier says: also in rows from before there was a time of our own."""
    buyer, orders = uuid4(), [uuid4() for _ in range(4)]
    long_ago, today, past = datetime(2010, 1, 1, tzinfo=UTC), NOW + timedelta(days=1), NOW - timedelta(days=1)
    rows = [(long_ago, today, today), (today, past, past), (END, past, past), (long_ago, today, None)]
    sql = "INSERT INTO orders VALUES ($1, $2, $2, 'delivered', $3, $4, $5)"
    async with open_kit(postgres_server, ORDER) as kit:
        for order, row in zip(orders, rows, strict=True):
            await insert(kit, sql, order, buyer, *row)
            await insert(kit, "INSERT INTO order_deliveries VALUES ($1, $2, $3)", buyer, order, TOKEN)
        assert set(await anchors(kit, ORDER, "delivery")) == set(orders[1:3])
        described = await ORDER.holdings[1].describe(kit.db, [buyer])
        closed = {item.anchor: item.closed_at for item in described[buyer]}
    assert closed == dict(zip(orders, [today, past, past, today], strict=True))


async def test_a_month_of_browsing_expires_as_a_whole(postgres_server: PostgresServer) -> None:
    subject, months = uuid4(), [uuid4(), uuid4()]
    sql = "INSERT INTO browsing VALUES ($1, $2, $3, 'page_viewed', 1, $4, $5)"
    async with open_kit(postgres_server, ACCOUNT) as kit:
        for month, at in [(0, datetime(2026, 9, 1, tzinfo=UTC)), (0, datetime(2026, 9, 30, tzinfo=UTC)), (1, NOW)]:
            await insert(kit, sql, subject, uuid4(), months[month], TOKEN, at)
        found = await find(kit, ACCOUNT, "behaviour")
    assert [(item.anchor, item.closed_at) for item in found.items] == [(months[0], datetime(2026, 10, 1, tzinfo=UTC))]


async def test_abandoned_registrations_and_unused_addresses_are_found(postgres_server: PostgresServer) -> None:
    """S7. An account with anything in it is in use; an address as long as its owner orders something."""
    old, fresh = NOW - timedelta(days=10), NOW + timedelta(days=1)
    async with open_kit(postgres_server, ACCOUNT) as kit:
        abandoned, young, keeper, customer, former = people = [uuid4() for _ in range(5)]
        for subject in people:
            at = fresh if subject == young else old
            sql = "INSERT INTO accounts VALUES ($1, false, NULL, $2, 1, $2, 1, $2, $3)"
            await insert(kit, sql, subject, TOKEN, at)
        await insert(kit, "INSERT INTO favourites VALUES ($1, $2, $3, $4)", keeper, uuid4(), TOKEN, old)
        addresses = {subject: uuid4() for subject in (customer, former)}
        for subject, address in addresses.items():
            await insert(kit, "INSERT INTO addresses VALUES ($1, $2, 1, $3, $4)", subject, address, TOKEN, old)
            notice = "INSERT INTO notices VALUES ($1, $2, 'order_received', $3, $4)"
            ordered = fresh if subject == customer else old
            await insert(kit, notice, subject, uuid4(), uuid4(), ordered)
        for data_class in ("identity", "credentials"):
            assert await anchors(kit, ACCOUNT, data_class, unused=True) == [abandoned]
            assert await anchors(kit, ACCOUNT, data_class) == []
        assert set(await anchors(kit, ACCOUNT, "contact", unused=True)) == {abandoned, addresses[former]}
