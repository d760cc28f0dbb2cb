"""What an erasure does to the ledger and to carriers, step by step on Postgres, with a wire in the place of Kafka."""

from uuid import uuid4

import pytest

from event_contracts.carrier import ReplyKind
from event_contracts.order import CancelReason, OrderCancelled
from logistics_gateway.sending import idle, send_erasures
from servicekit.kit import Kit
from tests.support.infra import postgres_server
from tests.support.ledgers import Order, Wire, answer, apply, ask, desk_of, emitted, kit

__all__ = ["kit", "postgres_server"]


@pytest.fixture
def wire(kit: Kit) -> Wire:
    kit.own.producer = Wire(kit)
    wire: Wire = kit.own.producer
    return wire


async def test_the_carrier_of_a_sent_shipment_is_told_and_its_answer_is_passed_on(kit: Kit, wire: Wire) -> None:
    """L9: who received it is told of the erasure; who asked hears the whole state at every change."""
    order, request = Order(kit), uuid4()
    await apply(kit, await order.placed())
    await idle(kit)
    assert await order.erase(request) == 1
    assert await order.erase(request) == 0
    await ask(kit, request, order.subject_id)
    await send_erasures(kit)
    desk = desk_of(kit, wire)
    assert (desk.erased, desk.shipments) == ({order.shipment_id}, {})
    await answer(kit, order.shipment_id, ReplyKind.ERASED)
    await answer(kit, order.shipment_id, ReplyKind.ERASED)
    told = [body["recipients"][0] for body in await emitted(kit, "RecipientsTold")]
    assert [(t["recipient"], t["shipments"], t["told"], t["answered"]) for t in told] == [
        ("meridian", 1, 0, 0),
        ("meridian", 1, 1, 0),
        ("meridian", 1, 1, 1),
    ]
    assert [t["topic_clean_at"] is None for t in told] == [True, False, False]
    line = await order.line()
    assert (line["state"], line["erasure"], line["erasure_request"]) == ("sent", "sent", request)
    assert line["erased_at"] is not None


async def test_who_asks_about_somebody_without_shipments_is_answered_too(kit: Kit, wire: Wire) -> None:
    """L5: an empty answer is an answer."""
    request, subject = uuid4(), uuid4()
    await ask(kit, request, subject)
    (told,) = await emitted(kit, "RecipientsTold")
    assert (told["request_id"], told["system"], told["recipients"]) == (str(request), "logistics-gateway", [])


@pytest.mark.fault(16, "an erasure between a disclosure and its send")
async def test_what_may_have_left_is_withheld_and_its_carrier_told(kit: Kit, wire: Wire) -> None:
    """A line is `recorded` when nobody knows whether its message left."""
    order = Order(kit)
    wire.is_cut = True
    with pytest.raises(OSError, match=r"^$"):
        await apply(kit, await order.placed())
    wire.is_cut = False
    await order.erase(uuid4())
    line = await order.line()
    assert (line["state"], line["reason"], line["delivery"], line["erasure"]) == ("withheld", "erased", None, "due")
    await idle(kit)
    desk = desk_of(kit, wire)
    assert [message.kind for message in desk.opened] == ["erasure"]
    assert (await order.line())["erasure"] == "sent"


async def test_what_has_never_left_is_withheld_without_a_word(kit: Kit, wire: Wire) -> None:
    order = Order(kit)
    await apply(kit, await order.placed(country="AQ"))
    assert (await order.line())["state"] == "blocked"
    assert await order.erase(uuid4()) == 1
    line = await order.line()
    assert (line["state"], line["reason"], line["delivery"], line["erasure"]) == ("withheld", "erased", None, None)
    await idle(kit)
    assert wire.sent == []


@pytest.mark.fault(15, "a late order of somebody erased")
async def test_a_late_order_of_somebody_erased_is_recorded_as_withheld(kit: Kit, wire: Wire) -> None:
    """Once by the vault, which no longer opens it, and once by the list, for a batch that was opened before."""
    by_vault, by_list = Order(kit), Order(kit)
    late = [await by_vault.placed(), await by_list.placed()]
    kit.vault.erased.add(by_vault.key_id)  # type: ignore[attr-defined] # the fake's own
    await kit.db.fetch(
        "INSERT INTO kit.revoked_keys (key_id, subject_id, number) VALUES ($1, $2, 1)",
        by_list.key_id,
        by_list.subject_id,
    )
    await apply(kit, *late)
    for order in (by_vault, by_list):
        line = await order.line()
        assert (line["state"], line["reason"], line["delivery"], line["carrier"]) == ("withheld", "erased", None, None)
    assert wire.sent == []
    assert await emitted(kit, "DeliveryDisclosed") == []


@pytest.mark.fault(16, "a cancellation beside an erasure")
async def test_a_recall_stays_final_beside_an_erasure(kit: Kit, wire: Wire) -> None:
    order = Order(kit)
    await apply(kit, await order.placed())
    await apply(kit, OrderCancelled(order_id=order.order_id, buyer_id=uuid4(), reason=CancelReason.BY_BUYER))
    await idle(kit)
    await order.erase(uuid4())
    await idle(kit)
    line = await order.line()
    assert (line["recall"], line["erasure"]) == ("sent", "sent")
    assert [message.kind for message in desk_of(kit, wire).opened] == ["shipment", "recall", "erasure"]


@pytest.mark.fault(5, "a notice to a carrier is sent twice")
async def test_a_notice_that_is_sent_twice_has_one_id(kit: Kit, wire: Wire) -> None:
    order = Order(kit)
    await apply(kit, await order.placed())
    await idle(kit)
    await order.erase(uuid4())
    await send_erasures(kit)
    await kit.db.fetch("UPDATE disclosures SET erasure = 'due' WHERE order_id = $1", order.order_id)
    await send_erasures(kit)
    assert desk_of(kit, wire).duplicates == 1


async def test_a_correction_of_what_was_sent_reaches_its_carrier(kit: Kit, wire: Wire) -> None:
    """R1: the carrier that has the old value gets the new one, under the same shipment id, and that is recorded."""
    order = Order(kit)
    await apply(kit, await order.placed(city="Leeds"))
    before = await order.line()
    corrected = await order.corrected(2, city="Bath")
    await apply(kit, corrected)
    await apply(kit, corrected)
    await idle(kit)
    desk, line = desk_of(kit, wire), await order.line()
    assert desk.shipments[order.shipment_id]["recipient"]["city"] == "Bath"
    assert [(message.kind, message.number) for message in desk.opened] == [("shipment", 1), ("correction", 2)]
    assert (line["state"], line["number"], line["delivery"]) == ("sent", 2, None)
    assert line["digest"] != before["digest"]
    assert len(await emitted(kit, "DeliveryDisclosed")) == 2


@pytest.mark.fault(6, "corrections in another order")
async def test_the_highest_version_wins_whatever_comes_last(kit: Kit, wire: Wire) -> None:
    order = Order(kit)
    third, first, second = await order.corrected(3, city="York"), await order.placed(), await order.corrected(2)
    await apply(kit, first, third)
    await apply(kit, second)
    await apply(kit, first)
    await idle(kit)
    desk = desk_of(kit, wire)
    assert desk.shipments[order.shipment_id]["recipient"]["city"] == "York"
    assert [message.number for message in desk.opened] == [3]
    assert (await order.line())["number"] == 3


@pytest.mark.fault(18, "the send of a correction fails")
async def test_a_correction_whose_send_fails_is_made_up(kit: Kit, wire: Wire) -> None:
    """What marks the version before as sent does not mark this one."""
    order = Order(kit)
    await apply(kit, await order.placed(city="Leeds"))
    wire.is_cut = True
    with pytest.raises(OSError, match=r"^$"):
        await apply(kit, await order.corrected(2, city="Bath"))
    assert (await order.line())["state"] == "recorded"
    wire.is_cut = False
    kit.own.places = [("order.events", 0)]
    await idle(kit)
    assert desk_of(kit, wire).shipments[order.shipment_id]["recipient"]["city"] == "Bath"
    assert (await order.line())["state"] == "sent"


async def test_a_blocked_order_leaves_as_corrected(kit: Kit, wire: Wire) -> None:
    """The southern cone's lane needs an e-mail address: the buyer adds it."""
    order = Order(kit)
    await apply(kit, await order.placed(country="CL", email=None))
    assert (await order.line())["reason"] == "missing.consignee.email"
    await apply(kit, await order.corrected(2, country="CL"))
    await idle(kit)
    assert (await order.line())["state"] == "sent"
    assert order.shipment_id in desk_of(kit, wire).shipments
