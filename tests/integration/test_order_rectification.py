"""Support's corrections of whom an order goes to, on the privacy service's command: the order service on a real Postgres."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from event_contracts.order import Consignee, DeliveryCorrection
from event_contracts.privacy import PRIVACY_COMMANDS, RectifyDelivery
from order_service.app import RECTIFICATION
from servicekit.kafka.batches import Applier, Batch
from servicekit.kafka.cloudevents import RawRecord, to_headers
from tests.support.infra import postgres_server
from tests.support.orders import CANARY, Buyer, Shop, a_purchase, handed_over, order_dsns, order_keys, shop

__all__ = ["order_dsns", "order_keys", "postgres_server", "shop"]  # fixtures


async def rectify(shop: Shop, subject_id: UUID, order_id: str, *, times: int = 1, **fields: Any) -> list[Any]:
    """The command, as the privacy service sends it, `times` over. Returns (number, refused) of each answer."""
    consignee = a_purchase()["consignee"] | fields
    right = DeliveryCorrection(consignee=Consignee(**{**consignee, "lines": tuple(consignee["lines"])}))
    sealed = await shop.kit.seal(right, subject=subject_id, anchor=UUID(order_id))
    command = RectifyDelivery(request_id=uuid4(), subject_id=subject_id, order_id=UUID(order_id), delivery=sealed)
    reader = RECTIFICATION.reader
    await shop.kit.db.fetch(
        "INSERT INTO kit.positions VALUES ($1, $2, 0, 0) ON CONFLICT DO NOTHING", reader, PRIVACY_COMMANDS
    )
    begin: int = await shop.kit.db.fetchval("SELECT next FROM kit.positions WHERE reader = $1", reader)
    records = []
    for position in range(begin, begin + times):
        headers = to_headers(command, event_id=uuid4(), source="privacy", time=datetime.now(UTC))
        key, body = str(command.request_id).encode(), command.model_dump_json().encode()
        records.append(RawRecord(PRIVACY_COMMANDS, 0, position, key, body, tuple(headers)))
    applier = Applier(shop.kit, RECTIFICATION)
    applier.next = {(PRIVACY_COMMANDS, 0): begin}
    batch = Batch(records)
    await applier.apply(batch, applier.prepare(batch))
    return [(body["number"], body["refused"]) for _, body in await shop.events(str(command.request_id))]


async def placed(buyer: Buyer, **fields: Any) -> tuple[str, UUID]:
    """An order, and whom it goes to."""
    order_id = await buyer.placed(**fields)
    ((_, event),) = await buyer.shop.events(order_id)
    return order_id, UUID(event["consignee_id"])


@pytest.mark.parametrize("gift", [False, True])
async def test_a_correction_is_a_version_that_is_shown_announced_and_answered(shop: Shop, gift: bool) -> None:
    """R1: the consignee of a gift is corrected as the buyer is; a command that comes twice makes one version."""
    buyer = shop.buyer()
    order_id, consignee = await placed(buyer, gift=gift)
    assert await rectify(shop, consignee, order_id, times=2, city="Gda\u0144sk") == [(2, None), (2, None)]
    shown = await shop.http.get(f"/v1/orders/{order_id}", headers=buyer.headers)
    assert shown.json()["delivery"]["consignee"]["city"] == "Gda\u0144sk"
    _, (kind, event) = await shop.events(order_id)
    assert (kind, event["number"], event["consignee_id"]) == ("DeliveryCorrected.v1", 2, str(consignee))
    assert CANARY not in str(event)


async def test_what_cannot_be_corrected_is_refused_with_a_reason_and_changes_nothing(shop: Shop) -> None:
    buyer = shop.buyer()
    (order_id, consignee), (gone, receiver) = await placed(buyer), await placed(buyer)
    await shop.receive(handed_over(gone))
    no = [(0, "not_under_way")]
    assert await rectify(shop, receiver, gone, city="Gda\u0144sk") == no
    assert await rectify(shop, consignee, order_id, country="DE") == no
    assert await rectify(shop, uuid4(), order_id, city="Gda\u0144sk") == no
    assert await rectify(shop, consignee, str(uuid4()), city="Gda\u0144sk") == no
    assert await shop.types(order_id) == ["OrderPlaced"]


async def test_a_correction_that_the_lane_does_not_take_names_what_does_not_fit(shop: Shop) -> None:
    order_id, consignee = await placed(shop.buyer())
    assert await rectify(shop, consignee, order_id, lines=["x" * 36], city="y" * 36) == [(0, "not_under_way")]
    rows = await shop.kit.db.fetch("SELECT body FROM kit.outbox")
    (answer,) = [body for row in rows if (body := json.loads(row["body"])).get("subject_id") == str(consignee)]
    assert answer["misfits"] == ["too_long.consignee.city", "too_long.consignee.lines"]
    assert await shop.types(order_id) == ["OrderPlaced"]


async def test_an_erased_delivery_is_not_brought_back(shop: Shop) -> None:
    order_id, consignee = await placed(shop.buyer())
    shop.vault.erased |= {key.key_id for name, key in shop.vault.keys.items() if name.data_class == "delivery"}
    assert await rectify(shop, consignee, order_id, city="Gda\u0144sk") == [(0, None)]
    assert await shop.types(order_id) == ["OrderPlaced"]
