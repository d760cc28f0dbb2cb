"""A buyer follows a parcel; staff see and end what is stuck. On a real Postgres."""

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from event_contracts import Event
from event_contracts.logistics_gateway import (
    Progress,
    ShipmentBlocked,
    ShipmentProgressed,
    ShipmentTracked,
    ShipmentUnblocked,
    Tracking,
)
from order_service.holdings import DELIVERIES, TRACKING
from servicekit.db.postgres import Tx
from servicekit.participant.holdings import Erasure
from servicekit.vault.leases import KeyName
from tests.support.infra import postgres_server
from tests.support.orders import (
    CANARY,
    HANDED_OVER_AT,
    Shop,
    acknowledged,
    delivered,
    handed_over,
    order_dsns,
    order_keys,
    shop,
)

__all__ = ["order_dsns", "order_keys", "postgres_server", "shop"]  # fixtures

LINK = "https://track.meridian.example/p/3SABC123"


def progressed(order_id: str, kind: str) -> Event:
    at = HANDED_OVER_AT + timedelta(hours=1)
    return ShipmentProgressed(order_id=UUID(order_id), shipment_id=uuid4(), kind=Progress(kind), at=at)


def blocked(order_id: str, reason: str = "no_lane") -> Event:
    return ShipmentBlocked(order_id=UUID(order_id), shipment_id=uuid4(), reason=reason)


async def tracked(shop: Shop, order_id: str, consignee_id: UUID, number: str = "3SABC123") -> Event:
    value = Tracking(number=number, url=LINK)
    sealed = await shop.kit.seal(value, subject=consignee_id, anchor=UUID(order_id))
    return ShipmentTracked(
        order_id=UUID(order_id), shipment_id=uuid4(), subject_id=consignee_id, carrier="meridian", tracking=sealed
    )


async def consignee_of(shop: Shop, order_id: str) -> UUID:
    found: UUID = await shop.kit.db.fetchval("SELECT consignee_id FROM orders WHERE order_id = $1", UUID(order_id))
    return found


async def is_open(shop: Shop, order_id: str) -> bool:
    consignee_id = await consignee_of(shop, order_id)
    (item,) = (await DELIVERIES.describe(shop.kit.db, [consignee_id]))[consignee_id]
    return item.is_open


WAY = ("label_created", "in_transit", "out_for_delivery", "failed_attempt")


@pytest.mark.parametrize("end", ["returned", "lost", "unknown"])
async def test_a_parcel_moves_its_order_to_each_end_and_never_back(shop: Shop, end: str) -> None:
    buyer = shop.buyer()
    order_id = await buyer.placed()
    for kind in (*WAY, end):
        await shop.receive(progressed(order_id, kind))
        assert await buyer.status(order_id) == kind
        assert await is_open(shop, order_id) == (kind != end)
    for event in (handed_over(order_id), acknowledged(order_id), progressed(order_id, "in_transit")):
        await shop.receive(event)
    assert await buyer.status(order_id) == end
    said = [body["status"] for name, body in await shop.events(order_id) if name == "OrderProgressed.v1"]
    assert said == [*WAY, end]


@pytest.mark.fault(6, "the kinds of one batch in another order")
async def test_the_kinds_of_one_batch_are_taken_in_their_order(shop: Shop) -> None:
    buyer = shop.buyer()
    order_id = await buyer.placed()
    await shop.receive(*(progressed(order_id, kind) for kind in ("lost", "in_transit", "label_created", "in_transit")))
    said = [body["status"] for name, body in await shop.events(order_id) if name == "OrderProgressed.v1"]
    assert said == ["label_created", "in_transit", "lost"]


async def test_a_late_word_counts_after_silence(shop: Shop) -> None:
    buyer = shop.buyer()
    order_id = await buyer.placed()
    await shop.receive(progressed(order_id, "unknown"))
    await shop.receive(delivered(order_id))
    assert await buyer.status(order_id) == "delivered"


async def test_a_block_is_shown_to_the_buyer_until_it_ends(shop: Shop) -> None:
    buyer = shop.buyer()
    order_id = await buyer.placed()
    await shop.receive(blocked(order_id))
    await shop.receive(blocked(order_id, "missing.consignee.email"))
    shown = (await buyer.get(f"/v1/orders/{order_id}")).json()
    assert (shown["status"], shown["blocked"]) == ("placed", "missing.consignee.email")
    await shop.receive(ShipmentUnblocked(order_id=UUID(order_id), shipment_id=uuid4()))
    assert "blocked" not in (await buyer.get(f"/v1/orders/{order_id}")).json()


async def test_an_order_that_is_blocked_too_long_ends_as_undeliverable(shop: Shop) -> None:
    buyer = shop.buyer()
    order_id = await buyer.placed()
    await shop.receive(blocked(order_id))
    await shop.receive(progressed(order_id, "undeliverable"))
    shown = (await buyer.get(f"/v1/orders/{order_id}")).json()
    assert shown["status"] == "cancelled"
    assert "blocked" not in shown
    assert (await shop.events(order_id))[-1][1]["reason"] == "undeliverable"
    assert not await is_open(shop, order_id)
    await shop.receive(blocked(order_id))
    assert "blocked" not in (await buyer.get(f"/v1/orders/{order_id}")).json()


@pytest.mark.parametrize("gift", [False, True])
async def test_the_buyer_follows_the_parcel(shop: Shop, gift: bool) -> None:
    buyer = shop.buyer()
    order_id = await buyer.placed(gift=gift)
    consignee_id = await consignee_of(shop, order_id)
    await shop.receive(await tracked(shop, order_id, consignee_id, "3SOLD0001"))
    await shop.receive(await tracked(shop, order_id, consignee_id))
    await shop.receive(progressed(order_id, "in_transit"))
    answer = await buyer.get(f"/v1/orders/{order_id}/tracking")
    assert answer.headers["content-type"].startswith("application/ld+json")
    shown: dict[str, Any] = answer.json()
    number = (await buyer.get(f"/v1/orders/{order_id}/confirmation")).json()["order_number"]
    placed_at = shown["partOfOrder"].pop("orderDate")
    assert placed_at
    assert shown == {
        "@context": "https://schema.org",
        "@type": "ParcelDelivery",
        "trackingNumber": "3SABC123",
        "trackingUrl": LINK,
        "deliveryStatus": {"@type": "DeliveryEvent", "name": "in_transit", "startDate": "2026-03-01T13:00:00Z"},
        "partOfOrder": {
            "@type": "Order",
            "identifier": order_id,
            "orderNumber": number,
            "orderStatus": "https://schema.org/OrderInTransit",
        },
    }
    assert CANARY not in answer.text
    assert (await shop.buyer().get(f"/v1/orders/{order_id}/tracking")).status_code == 404
    assert "3SABC" not in str(await shop.kit.db.fetch("SELECT * FROM order_tracking"))


async def test_tracking_goes_with_its_key_and_is_for_its_consignee_only(shop: Shop) -> None:
    buyer = shop.buyer()
    order_id = await buyer.placed()
    await shop.receive(await tracked(shop, order_id, uuid4()))
    assert await shop.kit.db.fetchval("SELECT count(*) FROM order_tracking WHERE order_id = $1", UUID(order_id)) == 0
    await shop.receive(await tracked(shop, order_id, buyer.subject_id))
    key = shop.vault.keys[KeyName(buyer.subject_id, "tracking", UUID(order_id))]

    async def work(tx: Tx) -> int:
        erasure = Erasure(uuid4(), buyer.subject_id, [key.key_id], is_final=False)
        return (await TRACKING.erase(tx, [erasure])).get(buyer.subject_id, 0)

    assert await shop.kit.run_tx("erase", work) == 1
    shown = (await buyer.get(f"/v1/orders/{order_id}/tracking")).json()
    assert "trackingNumber" not in shown
    assert shown["deliveryStatus"]["name"] == "placed"


@pytest.mark.parametrize(
    ("before", "reason", "status", "code"),
    [
        ([], "undeliverable", "cancelled", 200),
        ([blocked], "undeliverable", "cancelled", 200),
        ([blocked], "lost", "placed", 409),
        ([handed_over], "lost", "lost", 200),
        ([handed_over], "returned", "returned", 200),
        ([handed_over], "delivered", "delivered", 200),
        ([handed_over], "undeliverable", "handed_over", 409),
        ([delivered], "lost", "delivered", 409),
    ],
)
async def test_staff_end_a_stuck_order_on_record(
    shop: Shop, before: list[Any], reason: str, status: str, code: int
) -> None:
    buyer, support = shop.buyer(), shop.staff("support")
    order_id = await buyer.placed()
    for event in before:
        await shop.receive(event(order_id))
    answers = [await support.post(f"/v1/orders/{order_id}/close", {"reason": reason}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [code] * 2, answers[0].text
    assert await buyer.status(order_id) == status
    closings = [body for name, body in await shop.events(order_id) if name == "OrderClosed.v1"]
    assert [(c["staff_id"], c["role"], c["reason"]) for c in closings] == (
        [(str(support.subject_id), "support", reason)] if code == 200 else []
    )
    assert await is_open(shop, order_id) == (status in ("placed", "handed_over"))


async def test_only_support_may_end_or_find_an_order(shop: Shop) -> None:
    buyer = shop.buyer()
    order_id = await buyer.placed()
    number = {"order_number": "7ZK3M-0Q9XA"}
    for who, code in ((buyer, 401), (shop.staff("auditor"), 403)):
        assert (await who.post(f"/v1/orders/{order_id}/close", {"reason": "lost"})).status_code == code
        assert (await who.post("/v1/orders/find", number)).status_code == code
    support = shop.staff("support")
    assert (await support.post(f"/v1/orders/{uuid4()}/close", {"reason": "lost"})).status_code == 404
    assert (await support.post(f"/v1/orders/{order_id}/close", {"reason": "boredom"})).status_code == 422


async def test_support_finds_an_order_by_its_number_and_sees_nothing_personal(shop: Shop) -> None:
    buyer, support = shop.buyer(), shop.staff("support")
    order_id = await buyer.placed()
    await shop.receive(blocked(order_id))
    number = (await buyer.get(f"/v1/orders/{order_id}/confirmation")).json()["order_number"]
    (found,) = (await support.post("/v1/orders/find", {"order_number": number.lower()})).json()
    assert (found["order_id"], found["status"], found["blocked"]) == (order_id, "placed", "no_lane")
    assert set(found) == {"order_id", "status", "status_at", "placed_at", "blocked", "blocked_since"}
    assert (await support.post("/v1/orders/find", {"order_number": "00000-00000"})).json() == []
