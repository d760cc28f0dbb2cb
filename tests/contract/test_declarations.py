"""karrio, the judge of what carriers declare: what it reads of a message, and that nothing is dropped unseen."""

import copy
from typing import Any

import pytest

from tests.support.declarations import CARRIERS, UnknownArgument, declared, shipment_request

MESSAGE: dict[str, Any] = {
    "service": "parcel",
    "shipper": {"company_name": "Shop", "address_line1": "Kade 1", "city": "Rotterdam", "country_code": "NL"},
    "recipient": {
        "person_name": "Ana Ejemplo",
        "address_line1": "Calle Ficticia 12",
        "street_number": "",
        "address_line2": "2º 12",
        "city": "Ceuta",
        "postal_code": "51001",
        "country_code": "ES",
    },
    "payment": {"paid_by": "sender"},
    "parcels": [{"weight": 1.7, "weight_unit": "KG", "length": 30, "width": 20, "height": 10, "dimension_unit": "CM"}],
    "customs": {
        "content_type": "merchandise",
        "duty": {"currency": "EUR", "declared_value": 30.0, "paid_by": "sender"},
        "commodities": [
            {
                "description": "Tea pot",
                "quantity": 3,
                "value_amount": 10.0,
                "value_currency": "EUR",
                "weight": 0.5,
                "weight_unit": "KG",
                "origin_country": "JP",
                "hs_code": "691110",
            }
        ],
    },
}


@pytest.mark.parametrize("carrier", CARRIERS)
def test_values_and_weights_are_of_one_piece(carrier: str) -> None:
    customs = declared(carrier, MESSAGE).customs
    assert customs is not None
    assert (customs.currency, customs.total, customs.goods[0].value, customs.goods[0].weight) == ("EUR", 30.0, 10, 0.5)


@pytest.mark.parametrize("carrier", CARRIERS)
def test_address_lines_stay_as_they_are(carrier: str) -> None:
    """Without `street_number`, karrio takes the number out of the line and puts it in front for UPS and FedEx."""
    assert declared(carrier, MESSAGE).lines == ("Calle Ficticia 12", "2º 12")


def test_what_karrio_would_drop_is_an_error() -> None:
    message = copy.deepcopy(MESSAGE)
    message["recipient"]["address_line3"] = "Rear building"
    message["customs"]["commodities"][0]["net_weight"] = 1
    with pytest.raises(UnknownArgument, match=r"customs\.commodities\.net_weight, recipient\.address_line3$"):
        shipment_request(message)
