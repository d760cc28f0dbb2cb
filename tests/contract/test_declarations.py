"""karrio, the judge of what carriers declare: what it reads of a message, and that nothing is dropped unseen."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from event_contracts.order import Delivery
from lanes.choice import choose_lane, make_routes
from lanes.lane import Border, Lane, in_force
from lanes.loading import load_lanes
from lanes.projection import project
from tests.support.arrivals import differences
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


# Case: three pieces at 10.00, 1500 g together. And what divides badly, in currencies with 0, 3 and 4 decimals.
ORDERS = {
    "USD": [(3, 1000, 1500)],
    "EUR": [(7, 1999, 1000), (1, 1, 1), (999, 5, 999_001)],
    "JPY": [(2, 129_900, 360)],
    "KWD": [(6, 12_345, 1250)],
    "CLF": [(2, 12_345, 700)],
}
ROUTES = make_routes(load_lanes(Path(__file__).parents[2] / "shared" / "policy" / "lanes"))
IN_FORCE = in_force(route.lane for route in ROUTES.versions.values())
BEYOND = {
    "DE": ("78266", "Büsingen"),
    "ES": ("51001", "Ceuta"),
    "FR": ("97400", "Saint-Denis"),
    "IT": ("23041", "Livigno"),
}


def a_body(country: str, service: str, currency: str = "EUR", **consignee: str) -> dict[str, Any]:
    """A purchase whose address takes two lines of the three that are stated."""
    person = {
        "name": "Ana Ejemplo",
        "company": "Kontor 7",
        "lines": ["Eerste Jan van der Heijdenstraat 157 H", "3rd floor", "4B"],
        "city": "Somewhere",
        "state": "CA",
        "postal_code": "12345",
        "country": country,
        "phone": "+31101234567",
        "email": "ana@example.org",
    }
    line = {"description": "Green tea, loose, in a tin", "origin_country": "JP", "hs_code": "090210"}
    return {
        "lines": [
            line | {"quantity": quantity, "unit_price": price, "net_weight_g": grams}
            for quantity, price, grams in ORDERS[currency]
        ],
        "currency": currency,
        "consignee": person | consignee,
        "service": service,
        "parcels": [{"weight_g": grams, "length_cm": 30, "width_cm": 20, "height_cm": 10} for grams in (1700, 29_999)],
        "invoice": {"number": "R-2026/117", "issued_on": "2026-11-30"},
    }


def delivery_of(body: Mapping[str, Any]) -> Delivery:
    customs = [
        {name: line[name] for name in ("description", "quantity", "net_weight_g", "origin_country", "hs_code")}
        | {"value": line["quantity"] * line["unit_price"], "currency": body["currency"]}
        for line in body["lines"]
    ]
    parts = {name: body[name] for name in ("consignee", "service", "parcels", "invoice")}
    return Delivery.model_validate_json(json.dumps(parts | {"customs": customs}))


def sent(body: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The lane's id and what leaves on it."""
    delivery = delivery_of(body)
    route = choose_lane(ROUTES, delivery)
    return route.lane.id, json.loads(json.dumps(project(route, delivery)))


@pytest.mark.parametrize("currency", ORDERS)
@pytest.mark.parametrize("lane", IN_FORCE, ids=lambda lane: lane.id)
def test_every_carrier_is_told_what_was_ordered(lane: Lane, currency: str) -> None:
    """To the minor unit and the gram, every address line, the currency included."""
    for country in (lane.destinations[0], lane.destinations[-1]):
        code, city = BEYOND.get(country, ("12345", "Somewhere")) if lane.border is Border.CROSSED else ("12345", "X")
        code = "BT1 1AA" if country == "GB" and lane.border is Border.NONE else code
        body = a_body(country, lane.services[0].value, currency, postal_code=code, city=city)
        chosen, shipment = sent(body)
        assert chosen == lane.id
        assert differences(body, shipment) == []


def test_a_piece_a_kilogram_and_the_sum_are_declared() -> None:
    _, shipment = sent(a_body("US", "standard", "USD"))
    (line,) = shipment["customs"]["commodities"]
    assert (line["quantity"], line["value_amount"], line["weight"], line["weight_unit"]) == (3, 10.0, 0.5, "KG")
    assert shipment["customs"]["duty"] == {"currency": "USD", "declared_value": 30.0, "paid_by": "sender"}


def test_what_is_ordered_and_told_otherwise_is_seen() -> None:
    """The comparison can fail: totals for pieces, grams for kilograms, a line that is gone, another currency."""
    body = a_body("US", "standard", "USD")
    _, shipment = sent(body)
    for change in (
        lambda s: s["customs"]["commodities"][0].update(value_amount=30.0),
        lambda s: s["customs"]["commodities"][0].update(weight=1.5),
        lambda s: s["customs"]["duty"].update(currency="EUR"),
        lambda s: s["customs"]["duty"].update(declared_value=29.99),
        lambda s: s["recipient"].pop("address_line2"),
        lambda s: s["parcels"][0].update(weight=1.71),
    ):
        changed = copy.deepcopy(shipment)
        change(changed)
        assert differences(body, changed) != []
