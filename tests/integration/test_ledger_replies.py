"""What carriers say of a parcel, step by step on Postgres: a state never goes back, and tracking is the consignee's."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from event_contracts import Sealed
from event_contracts.carrier import CarrierReply, ReplyKind
from event_contracts.logistics_gateway import Tracking
from logistics_gateway.progress import STEPS
from servicekit.core.errors import Fenced, Poison
from servicekit.kit import Kit, Opening
from tests.support.infra import postgres_server
from tests.support.ledgers import Order, Wire, answer, answer_all, apply, emitted, kit

__all__ = ["kit", "postgres_server"]

WAY = ("acknowledged", "label_created", "handed_over", "in_transit", "out_for_delivery", "failed_attempt")
LINK = "https://track.meridian.example/p/3SABC123"


async def sent(kit: Kit) -> Order:
    kit.own.producer = Wire(kit)
    order = Order(kit)
    await apply(kit, await order.placed())
    return order


async def told(kit: Kit) -> list[str]:
    """What the order service heard of the shipment, in order."""
    rows = await kit.db.fetch("SELECT headers, body FROM kit.outbox ORDER BY number")
    names = [
        json.loads(row["body"]).get("kind") or json.loads(row["headers"])["ce_type"].removesuffix(".v1") for row in rows
    ]
    return [name for name in names if name not in ("DeliveryDisclosed", "ShipmentTracked")]


@pytest.mark.parametrize("end", ["delivered", "returned", "lost"])
async def test_each_kind_of_reply_moves_a_shipment_until_its_end(kit: Kit, end: str) -> None:
    order = await sent(kit)
    for kind in (*WAY, end):
        await answer(kit, order.shipment_id, ReplyKind(kind))
        assert (await order.line())["progress"] == kind
    assert (await order.line())["ended_at"] is not None
    names = {
        "acknowledged": "ShipmentAcknowledged",
        "handed_over": "ShipmentHandedOver",
        "delivered": "ShipmentDelivered",
    }
    assert await told(kit) == [names.get(kind, kind) for kind in (*WAY, end)]


@pytest.mark.fault(30, "each reply comes again, and late, after each other one")
async def test_late_and_doubled_replies_change_nothing(kit: Kit) -> None:
    order = await sent(kit)
    ranks = {kind.value: step.rank for kind, step in STEPS.items()}
    now = 0
    for kind in (
        "in_transit",
        "in_transit",
        "handed_over",
        "acknowledged",
        "failed_attempt",
        "out_for_delivery",
        "refused",
    ):
        before = await order.line()
        await answer(kit, order.shipment_id, ReplyKind(kind), tracking_number="3SABC123")
        line = await order.line()
        if kind != "refused" and ranks[kind] > now:
            now = ranks[kind]
            assert line["progress"] == kind
        else:
            assert line == before
    await answer(kit, order.shipment_id, ReplyKind.DELIVERED)
    for kind in ("lost", "returned", "in_transit", "delivered"):
        await answer(kit, order.shipment_id, ReplyKind(kind), tracking_number="3SABC123")
    assert await told(kit) == ["in_transit", "failed_attempt", "ShipmentDelivered"]
    assert len(await emitted(kit, "ShipmentTracked")) == 2


async def test_the_replies_of_one_batch_count_in_their_order(kit: Kit) -> None:
    order = await sent(kit)
    kinds = ("delivered", "in_transit", "acknowledged", "handed_over")
    at = datetime.now(UTC)
    await answer_all(
        kit,
        [CarrierReply(reply_id=uuid4(), kind=ReplyKind(k), shipment_id=order.shipment_id, at=at) for k in kinds],
    )
    assert await told(kit) == ["ShipmentAcknowledged", "ShipmentHandedOver", "in_transit", "ShipmentDelivered"]


@pytest.mark.parametrize(("stated", "reason"), [("customs", "customs"), ("dog bites", "other"), (None, "other")])
async def test_a_refusal_has_a_reason_of_a_closed_list(kit: Kit, stated: Any, reason: str) -> None:
    order = await sent(kit)
    await answer(kit, order.shipment_id, ReplyKind.REFUSED, reason=stated)
    (event,) = await emitted(kit, "ShipmentRefused")
    assert event["reason"] == reason
    line = await order.line()
    assert (line["refusal"], line["progress"]) == (reason if stated else None, "refused")


async def test_tracking_leaves_sealed_for_the_consignee(kit: Kit) -> None:
    order = await sent(kit)
    number = "3S-ABC 123"
    await answer(kit, order.shipment_id, ReplyKind.LABEL_CREATED, tracking_number=number, tracking_url=LINK)
    (event,) = await emitted(kit, "ShipmentTracked")
    assert (event["subject_id"], event["carrier"]) == (str(order.subject_id), "meridian")
    sealed: Sealed[Tracking] = Sealed.from_text(event["tracking"])
    opening = Opening(sealed, Tracking, order.subject_id, order.order_id)
    assert await kit.open(opening, purpose="own_access") == Tracking(number="3S-ABC123", url=LINK)
    assert "ABC" not in str(await kit.db.fetch("SELECT * FROM disclosures"))


@pytest.mark.attack("a carrier links to a page of somebody else", expected="the link is dropped, the number stays")
@pytest.mark.parametrize(
    "url",
    [
        "https://elsewhere.example/p/1",
        "https://track.pacifica.example/p/1",
        "http://track.meridian.example/p/1",
        "https://track.meridian.example.elsewhere.example/",
        "https://track.meridian.example:8443/p/1",
        "https://track.meridian.example@elsewhere.example/p/1",
        "https://track.meridian.example/" + "p" * 300,
        "https://track.meridian.example/<script>",
        "javascript:alert(1)",
    ],
)
async def test_a_link_that_is_not_its_carriers_is_dropped(kit: Kit, url: str) -> None:
    order = await sent(kit)
    await answer(kit, order.shipment_id, ReplyKind.IN_TRANSIT, tracking_number="3SABC123", tracking_url=url)
    (event,) = await emitted(kit, "ShipmentTracked")
    opening: Opening[Tracking] = Opening(
        Sealed.from_text(event["tracking"]), Tracking, order.subject_id, order.order_id
    )
    assert await kit.open(opening, purpose="own_access") == Tracking(number="3SABC123")


@pytest.mark.parametrize("number", ["Jane Canary", "JANECANARY", "", "123", "3SABC123\n", 3512, "3" * 41, ["3SABC123"]])
async def test_what_is_no_tracking_number_is_dropped_and_the_reply_counts(kit: Kit, number: Any) -> None:
    order = await sent(kit)
    await answer(kit, order.shipment_id, ReplyKind.IN_TRANSIT, tracking_number=number)
    assert (await order.line())["progress"] == "in_transit"
    assert await emitted(kit, "ShipmentTracked") == []


async def test_nothing_is_sealed_for_a_person_who_is_erased_and_others_do_not_wait(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, other = await sent(kit), await sent(kit)
    vault: Any = kit.vault
    ensure = type(vault).ensure

    async def fenced(self: Any, wanted: Any, index: Any = (), new: Any = None) -> Any:
        assert new is not None, "a key that is gone must not be made anew"
        if any(name.subject == gone.subject_id for name in wanted):
            raise Fenced
        return await ensure(self, wanted, index, new)

    monkeypatch.setattr(type(vault), "ensure", fenced)
    now = datetime.now(UTC)
    await answer_all(
        kit,
        [
            CarrierReply(
                reply_id=uuid4(),
                kind=ReplyKind.IN_TRANSIT,
                shipment_id=o.shipment_id,
                at=now,
                tracking_number="3SABC123",
            )
            for o in (gone, other)
        ],
    )
    assert [event["order_id"] for event in await emitted(kit, "ShipmentTracked")] == [str(other.order_id)]
    assert [(await o.line())["progress"] for o in (gone, other)] == ["in_transit"] * 2


async def test_a_reply_that_does_not_count_makes_no_key(kit: Kit) -> None:
    """A key that no event names is destroyed after a day, and the parcel's next reply could not be sealed any more."""
    order = await sent(kit)
    vault: Any = kit.vault
    late = {"at": datetime.now(UTC) + timedelta(hours=1)}
    for carrier, more in (("meridian", late), ("pacifica", {})):
        with pytest.raises(Poison):
            await answer(kit, order.shipment_id, ReplyKind.IN_TRANSIT, carrier, tracking_number="3SABC123", **more)
    assert [name for name in vault.keys if name.data_class == "tracking"] == []


async def test_a_parcel_that_is_recalled_or_erased_gets_no_tracking(kit: Kit) -> None:
    order = await sent(kit)
    await order.erase(uuid4())
    await answer(kit, order.shipment_id, ReplyKind.IN_TRANSIT, tracking_number="3SABC123")
    assert await emitted(kit, "ShipmentTracked") == []
