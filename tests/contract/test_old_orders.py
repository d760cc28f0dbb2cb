"""Orders from before 2026-12 lie in the topics and tables: today's code reads them, with today's defaults."""

import json
from typing import Any
from uuid import UUID

import pytest

from event_contracts import PersonalData
from event_contracts.order import Delivery, OrderPlaced, OrderRecord
from lanes.reading import reader_of
from servicekit.vault.token import SealingKey, open_token, seal

SUBJECT, ANCHOR = UUID("0717f531-922a-4bce-a582-483d97447ed1"), UUID("5d9ae674-8fcb-47e6-b483-f8de9114acc7")
KEY = SealingKey.derive(UUID("01890000-0000-7000-8000-000000000001"), bytes(range(32)))
# As they were sealed then, member by member.
OLD_DELIVERY: dict[str, Any] = {
    "consignee": {
        "name": "Zoë Canary", "company": None, "lines": ["Canary Wharf 1"], "city": "London", "state": None,
        "postal_code": "E14 5AB", "country": "GB", "phone": "+442071234567", "email": None,
    },
    "service": "standard",
    "parcels": [{"weight_g": 1650, "length_cm": 21, "width_cm": 21, "height_cm": 21}],
    "customs": [{
        "description": "Tea pot", "quantity": 2, "net_weight_g": 1500, "value": 3998, "currency": "EUR",
        "origin_country": "JP", "hs_code": "691110",
    }],
}  # fmt: skip
OLD_RECORD: dict[str, Any] = {
    "order_number": "7ZK3M-0Q9XA",
    "lines": [{"sku": "TEA-POT-1", "description": "Tea pot", "quantity": 2, "unit_price": 1999}],
    "currency": "EUR",
    "total": 3998,
}


def sealed_then(model: type[PersonalData], body: dict[str, Any]) -> bytes:
    """The plaintext of a token that was sealed with what the model was then."""
    names = {"data_class": str(model.data_class), "model_name": model.__name__}
    token = seal(KEY, json.dumps(body).encode(), **names, subject=SUBJECT, anchor=ANCHOR)
    return open_token(token, KEY, **names, subject=SUBJECT, anchor=ANCHOR)


def test_an_old_delivery_is_opened_and_has_no_invoice() -> None:
    delivery = Delivery.model_validate_json(sealed_then(Delivery, OLD_DELIVERY))
    assert delivery.model_dump(mode="json", exclude={"invoice"}) == OLD_DELIVERY
    assert delivery.invoice is None


def test_an_old_record_is_opened_and_its_total_has_no_other_parts() -> None:
    record = OrderRecord.model_validate_json(sealed_then(OrderRecord, OLD_RECORD))
    assert record.model_dump(mode="json", exclude_defaults=True) == OLD_RECORD
    assert (record.shop_order_number, record.shipping, record.discount, record.tax) == (None, 0, 0, 0)


def test_an_old_event_is_read_and_names_no_registration() -> None:
    tokens = dict.fromkeys(("delivery", "record", "payment"), "AQ" + "A" * 108)
    placed = OrderPlaced.model_validate(
        {
            "order_id": ANCHOR,
            "buyer_id": SUBJECT,
            "consignee_id": SUBJECT,
            "placed_at": "2026-11-23T09:30:00Z",
            **tokens,
        }
    )
    assert placed.registration is None


@pytest.mark.parametrize("absent", ["customs", "postal_code", "phone"])
def test_the_gateway_reads_old_deliveries_and_those_that_lack_what_is_optional_now(absent: str) -> None:
    read = reader_of(("consignee.postal_code", "consignee.phone", "customs[].value", "service"))
    old = read(sealed_then(Delivery, OLD_DELIVERY))
    assert (old.consignee.postal_code, old.consignee.phone, old.customs[0].value) == ("E14 5AB", "+442071234567", 3998)
    consignee = {name: value for name, value in OLD_DELIVERY["consignee"].items() if name != absent}
    body = {name: value for name, value in OLD_DELIVERY.items() if name != absent} | {"consignee": consignee}
    new = read(sealed_then(Delivery, body))
    found = {"customs": new.customs, "postal_code": new.consignee.postal_code, "phone": new.consignee.phone}
    assert not found[absent]
