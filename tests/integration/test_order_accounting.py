"""Accounting reads the record of an order that the law keeps: with a reason, on record, and nothing else of the order."""

from typing import get_args
from uuid import UUID, uuid4

import pytest

from deploy.local.keys import StaffRole
from event_contracts.order import ReadReason
from order_service.holdings import DELIVERIES, PAYMENTS
from servicekit.participant.holdings import Erasure
from servicekit.vault.leases import KeyName
from tests.support.infra import postgres_server
from tests.support.orders import CANARY, Buyer, Shop, a_line, delivered, order_dsns, order_keys, shop

__all__ = ["order_dsns", "order_keys", "postgres_server", "shop"]  # fixtures


def path(order_id: object, reason: str = "tax_audit") -> str:
    return f"/v1/tax-records/{order_id}?reason={reason}"


async def an_order(buyer: Buyer) -> str:
    lines = [a_line(description="Tea pot", tax=638)]
    return await buyer.placed(lines=lines, shop_order_number="#42", shipping=490, registration={"vat": "PL5260250995"})


async def test_accounting_reads_the_record_and_nothing_of_whom_it_is_about(shop: Shop) -> None:
    buyer, accountant = shop.buyer(), shop.staff("accounting")
    order_id = await an_order(buyer)
    answer = await accountant.get(path(order_id))
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body.keys() == {"order_id", "placed_at", "record"}
    shown = (await buyer.get(f"/v1/orders/{order_id}")).json()["record"]
    assert body["record"] == shown
    assert (body["record"]["total"], body["record"]["tax"], body["record"]["shop_order_number"]) == (4488, 638, "#42")
    for personal in (CANARY, "tok_verified", "PL5260250995", "Street", str(buyer.subject_id)):
        assert personal not in answer.text


@pytest.mark.parametrize("reason", list(ReadReason))
async def test_the_look_is_on_record_with_who_why_and_about_whom(shop: Shop, reason: ReadReason) -> None:
    buyer, accountant = shop.buyer(), shop.staff("accounting")
    order_id = await an_order(buyer)
    await accountant.get(path(order_id, reason))
    kind, look = (await shop.events(order_id))[-1]
    assert kind == "TaxRecordRead.v1"
    assert look == {
        "order_id": order_id,
        "buyer_id": str(buyer.subject_id),
        "staff_id": str(accountant.subject_id),
        "role": "accounting",
        "reason": reason,
    }


async def test_the_record_is_read_after_everything_else_is_erased(shop: Shop) -> None:
    """As the law keeps it, until it is erased too."""
    buyer, accountant = shop.buyer(), shop.staff("accounting")
    order_id = await an_order(buyer)
    await shop.receive(delivered(order_id))
    for holding, data_class in ((DELIVERIES, "delivery"), (PAYMENTS, "payment")):
        key = shop.vault.keys[KeyName(buyer.subject_id, data_class, UUID(order_id))].key_id
        gone = Erasure(uuid4(), buyer.subject_id, [key], is_final=False)
        await shop.kit.run_tx("erase", lambda tx, holding=holding, gone=gone: holding.erase(tx, [gone]))
    assert (await accountant.get(path(order_id))).json()["record"]["total"] == 4488
    shop.vault.erased.add(shop.vault.keys[KeyName(buyer.subject_id, "order_record", UUID(order_id))].key_id)
    events = len(await shop.events(order_id))
    assert (await accountant.get(path(order_id))).status_code == 410
    assert len(await shop.events(order_id)) == events


async def test_an_unknown_order_and_a_reason_that_is_none_are_refused(shop: Shop) -> None:
    order_id, accountant = await an_order(shop.buyer()), shop.staff("accounting")
    assert (await accountant.get(path(uuid4()))).status_code == 404
    for wrong in (f"/v1/tax-records/{order_id}", path(order_id, "curious"), path(order_id, "")):
        assert (await accountant.get(wrong)).status_code == 422
    assert await shop.types(order_id) == ["OrderPlaced"]


@pytest.mark.attack("read a tax record with another role", expected="403, or 401 for a customer; nothing on record")
async def test_only_accounting_reads_it(shop: Shop) -> None:
    buyer = shop.buyer()
    order_id = await an_order(buyer)
    for role in get_args(StaffRole):
        if role != "accounting":
            assert (await shop.staff(role).get(path(order_id))).status_code == 403
    assert (await buyer.get(path(order_id))).status_code == 401
    assert (await shop.http.get(path(order_id))).status_code == 401
    assert (await shop.staff("accounting").get(f"/v1/orders/{order_id}")).status_code == 401
    assert await shop.types(order_id) == ["OrderPlaced"]
