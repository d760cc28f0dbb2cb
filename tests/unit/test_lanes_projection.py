"""L9: what leaves is exactly the lane's fields, whatever the order holds."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import ConfigDict

from event_contracts import Erased
from event_contracts.carrier import CarrierMessage, MessageKind
from event_contracts.order import Consignee, CustomsLine, Delivery, Parcel
from lanes.choice import choose_lane, make_routes
from lanes.loading import load_lanes
from lanes.projection import disclosed_fields, leaf_paths, project
from lanes.refusal import CannotShip
from logistics_gateway.domain import (
    State,
    decide,
    message_id_of,
    recall_message,
    shipment_id_of,
    shipment_message,
)
from servicekit.core.clock import FakeClock
from tests.support.deliveries import deliveries, make_delivery

ROUTES = make_routes(load_lanes(Path(__file__).parents[2] / "shared" / "policy" / "lanes"))
SECRET = "SECRET-4711"


def test_a_delivery_is_projected_onto_its_lane() -> None:
    delivery = make_delivery(country="GB", email=None)
    route = choose_lane(ROUTES, delivery)
    assert route.lane.id == "meridian-world-standard"
    assert project(route, delivery) == {
        "service": "meridian_world",
        "shipper": {
            "company_name": "Maashaven Goods B.V.",
            "person_name": "Dispatch desk",
            "address_line1": "Maashaven 12",
            "street_number": "",
            "city": "Rotterdam",
            "postal_code": "3072 AE",
            "country_code": "NL",
            "phone_number": "+31105550100",
            "federal_tax_id": "NL001234567B01",
            "state_tax_id": "NL001234567",
        },
        "recipient": {
            "person_name": "Ἀλεξάνδρα Παπαδοπούλου-Χατζηγεωργίο",
            "company_name": "Kontor 7",
            "address_line1": "Lange Straße 12 a",
            "address_line2": "Hinterhaus 3. Stock",
            "street_number": "",
            "city": "Rotenburg ob der Tauber",
            "state_code": "Bayern",
            "postal_code": "SW1A 1AA",
            "country_code": "GB",
            "phone_number": "+4915112345678",
        },
        "payment": {"paid_by": "sender"},
        "parcels": [
            {"weight_unit": "KG", "dimension_unit": "CM", "weight": 0.75, "length": 30, "width": 20, "height": 10}
        ],
        "customs": {
            "content_type": "merchandise",
            "incoterm": "DDP",
            "invoice": "R-2026/117",
            "invoice_date": "2026-11-30",
            "duty": {"paid_by": "sender", "currency": "EUR", "declared_value": 51.96},
            "commodities": [
                {
                    "weight_unit": "KG",
                    "description": "Bicycle lamp, LED, with a mount for the handlebar",
                    "quantity": quantity,
                    "weight": weight,
                    "value_amount": amount,
                    "value_currency": "EUR",
                    "origin_country": "NL",
                    "hs_code": "851210",
                }
                for quantity, weight, amount in ((2, 0.09, 12.99), (1, 0.18, 25.98))
            ],
        },
    }


def test_a_missing_optional_field_is_left_out() -> None:
    delivery = make_delivery(company=None, state=None, lines=("One line",))
    route = choose_lane(ROUTES, delivery)
    assert not {"company_name", "state_code", "address_line2"} & project(route, delivery)["recipient"].keys()
    assert disclosed_fields(route, delivery) == (*route.always, "consignee.postal_code")


def test_the_ledger_names_optional_fields_only_when_they_leave() -> None:
    route = choose_lane(ROUTES, make_delivery())
    assert disclosed_fields(route, make_delivery(state=None)) == (
        *route.always,
        "consignee.company",
        "consignee.postal_code",
    )


def test_a_missing_required_field_blocks_with_its_name() -> None:
    decision = decide(ROUTES, make_delivery(country="AR", email=None))
    assert (decision.state, decision.reason, decision.shipment) == (State.BLOCKED, "missing.consignee.email", None)


def test_a_country_without_a_lane_blocks() -> None:
    assert decide(ROUTES, make_delivery(country="AQ")).reason == "no_lane"


def test_an_erased_delivery_is_withheld() -> None:
    decision = decide(ROUTES, Erased(UUID(int=1)))
    assert (decision.state, decision.reason, decision.shipment) == (State.WITHHELD, "erased", None)


class _OpenDelivery(Delivery):
    """The worst case: a model that lets everything through that stands in the bytes."""

    model_config = ConfigDict(extra="allow")


class _OpenConsignee(Consignee):
    model_config = ConfigDict(extra="allow")


class _OpenParcel(Parcel):
    model_config = ConfigDict(extra="allow")


class _OpenLine(CustomsLine):
    model_config = ConfigDict(extra="allow")


class Leaky(_OpenDelivery):
    consignee: _OpenConsignee
    parcels: tuple[_OpenParcel, ...]
    customs: tuple[_OpenLine, ...]


_NAMES = st.sampled_from(
    [
        "email",
        "tax_id",
        "person_name",
        "recipient",
        "payment",
        "customer_id",
        "__class__",
        "buyer",
        "ip",
        "notes",
        "lines2",
        "to",
    ]
) | st.text(max_size=12)
_VALUES = st.recursive(
    st.just(SECRET) | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=3),
    max_leaves=6,
)
_EXTRAS = st.dictionaries(_NAMES, _VALUES, max_size=4)


def _with_extras(body: dict[str, Any], extras: list[dict[str, Any]]) -> dict[str, Any]:
    """Extra fields at every level; a field of the contract keeps its value."""
    top, consignee, parcel, line = extras
    return {
        **top,
        **body,
        "consignee": {**consignee, **body["consignee"]},
        "parcels": [{**parcel, **each} for each in body["parcels"]],
        "customs": [{**line, **each} for each in body["customs"]],
    }


@pytest.mark.parametrize("model", [Delivery, Leaky])
@settings(suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no defect
@given(body=deliveries(), extras=st.lists(_EXTRAS, min_size=4, max_size=4))
def test_no_hostile_or_nested_extra_field_ever_leaves(
    model: type[Delivery], body: dict[str, Any], extras: list[dict[str, Any]]
) -> None:
    # e-mail is a field of the contract; an extra of that name would be a value of it
    for extra in extras:
        extra.pop("email", None), extra.pop("company", None), extra.pop("state", None)
    delivery = model.model_validate_json(json.dumps(_with_extras(body, extras)))
    try:
        route = choose_lane(ROUTES, delivery)
        message = project(route, delivery)
    except CannotShip as error:
        assume(error.reason_code == "outside_lane")
        raise
    assert set(leaf_paths(message)) <= route.lane.paths
    assert SECRET not in json.dumps(message)


@given(body=deliveries())
def test_what_leaves_equals_what_the_lane_takes(body: dict[str, Any]) -> None:
    delivery = Delivery.model_validate_json(json.dumps(body))
    decision = decide(ROUTES, delivery)
    if decision.route is None or decision.shipment is None:
        return
    lane = decision.route.lane
    required = {f.to for f in lane.fields if f.required is True} | lane.constants.keys()
    assert required <= set(leaf_paths(decision.shipment)) <= lane.paths
    assert decision.shipment["recipient"]["city"] == body["consignee"]["city"].strip()


@pytest.mark.parametrize(
    "leak",
    [
        {"email": "x"},
        {"recipient": {"email": "x"}},
        {"recipient": "x"},
        {"recipient": {"city": {"name": "x"}}},
        {"recipient": {"city": ["x"]}},
        {"parcels": {"weight": 1}},
        {"parcels": [{"weight": 1, "owner": "x"}]},
        {"parcels": ["x"]},
        {"service": {"code": "x"}},
        {"service": None},
    ],
)
def test_a_projection_that_lets_something_through_is_refused(leak: dict[str, Any]) -> None:
    """The second net: even with a defect in the projection nothing outside the lane leaves."""
    route = replace(choose_lane(ROUTES, make_delivery()), build=lambda _: leak)
    with pytest.raises(CannotShip, match="outside_lane"):
        project(route, make_delivery())


def test_messages_are_the_contract_and_stay_the_same() -> None:
    order, now = UUID(int=7), FakeClock().now()
    shipment_id = shipment_id_of(order)
    first = shipment_message(shipment_id, now, {"service": "x"})
    assert first == shipment_message(shipment_id_of(order), now, {"service": "x"})
    message = CarrierMessage.model_validate_json(first)
    assert (message.kind, message.shipment_id, message.shipment) == (
        MessageKind.SHIPMENT,
        shipment_id,
        {"service": "x"},
    )
    assert (message.not_after, message.message_id) == (now, message_id_of(shipment_id, "shipment"))
    recall = CarrierMessage.model_validate_json(recall_message(shipment_id, now))
    assert (recall.kind, recall.shipment) == (MessageKind.RECALL, None)
    assert recall.message_id != message.message_id


def test_messages_take_the_database_drivers_uuids() -> None:
    from asyncpg.pgproto.pgproto import UUID as DriverUUID

    now, plain = FakeClock().now(), UUID(int=7)
    assert recall_message(DriverUUID(str(plain)), now) == recall_message(plain, now)


def test_a_shipment_id_does_not_show_the_order_id() -> None:
    assert shipment_id_of(UUID(int=7)) != UUID(int=7)


@given(body=deliveries())
def test_a_lane_reads_its_fields_as_the_contract_does(body: dict[str, Any]) -> None:
    delivery = Delivery.model_validate(body)
    plaintext = delivery.model_dump_json(exclude_none=True).encode()
    assert decide(ROUTES, ROUTES.read(plaintext)) == decide(ROUTES, delivery)


def test_what_no_lane_lists_is_not_even_decoded() -> None:
    read = ROUTES.read(make_delivery(country="DE", email="alexandra@example.org").model_dump_json().encode())
    assert read.consignee.name
    assert not hasattr(read.consignee, "email")
    assert not hasattr(read, "customs")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("name", ""),
        ("name", "x" * 201),
        ("name", 7),
        ("lines", []),
        ("lines", ["x"] * 4),
        ("phone", "+49151\n"),
        ("country", "de"),
    ],
)
def test_what_breaks_the_contract_is_refused(place: str, value: object) -> None:
    body = make_delivery(country="DE", service="express").model_dump(mode="json")
    body["consignee"][place] = value
    with pytest.raises(ValueError, match="breaks its contract"):
        ROUTES.read(json.dumps(body).encode())
