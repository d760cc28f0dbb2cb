"""What does not fit a lane: each reason with its field and what the lane takes; and a border chooses the lane."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from event_contracts.order import Delivery
from lanes.choice import check, make_routes
from lanes.lane import Lane
from lanes.loading import load_lanes
from tests.support.deliveries import make_delivery

ROUTES = make_routes(load_lanes(Path(__file__).parents[2] / "shared" / "policy" / "lanes"))
PARCEL = {"weight_g": 750, "length_cm": 30, "width_cm": 20, "height_cm": 10}


def changed(delivery: Delivery, **parts: Any) -> Delivery:
    return Delivery.model_validate(delivery.model_dump() | parts)


def world(**consignee: Any) -> Delivery:
    """To where customs data is needed, in one currency."""
    delivery = make_delivery(country="GB", **consignee)
    return delivery.model_copy(update={"customs": delivery.customs[:1]})


def line(**fields: Any) -> dict[str, Any]:
    return world().customs[0].model_dump() | fields


@pytest.mark.parametrize(
    ("delivery", "code", "field", "expected"),
    [
        (make_delivery(city="x" * 36), "too_long.consignee.city", "consignee.city", "35 characters"),
        (make_delivery(company="x" * 36), "too_long.consignee.company", "consignee.company", "35 characters"),
        (
            make_delivery(postal_code="9" * 150),
            "too_long.consignee.postal_code",
            "consignee.postal_code",
            "10 characters",
        ),
        # `ß` is two letters in capitals, and that is what leaves
        (
            make_delivery(postal_code="ß" * 6),
            "too_long.consignee.postal_code",
            "consignee.postal_code",
            "10 characters",
        ),
        (
            make_delivery(city="x" * 35, state="y" * 30, postal_code="12345"),
            "too_long.consignee.postal_code",
            "consignee.postal_code",
            "70 characters",
        ),
        (make_delivery(postal_code=None), "missing.consignee.postal_code", "consignee.postal_code", "Send it"),
        (make_delivery(country="US", state=None), "missing.consignee.state", "consignee.state", "Send it"),
        (world(phone=None), "missing.consignee.phone", "consignee.phone", "in GB:"),
        (changed(world(), customs=()), "missing.customs", "customs", "at least 1"),
        (
            changed(world(), customs=(line(), line(value=0))),
            "too_small.customs.value",
            "customs.1.value",
            "at least 1 in the smallest unit of the currency, such as cents",
        ),
        (
            make_delivery(country="AR", email=None),
            "missing.consignee.email",
            "consignee.email",
            "such as ann@example.org",
        ),
        (
            changed(world(), customs=(line(), line(currency="JPY"))),
            "mixed.customs.currency",
            "customs.currency",
            "another value",
        ),
        (
            changed(world(), parcels=(PARCEL, PARCEL | {"weight_g": 31_501})),
            "too_large.parcels.weight_g",
            "parcels.1.weight_g",
            "at most 31,500 grams",
        ),
        (
            changed(world(), parcels=(PARCEL | {"weight_g": 9},)),
            "too_small.parcels.weight_g",
            "parcels.0.weight_g",
            "at least 10 grams",
        ),
        (
            changed(world(), parcels=(PARCEL | {"width_cm": 9},)),
            "too_small.parcels.width_cm",
            "parcels.0.width_cm",
            "at least 10 centimetres",
        ),
        (make_delivery(country="VE"), "no_lane", "consignee.country", "NL, US or JP"),
    ],
)
def test_what_does_not_fit_is_named(delivery: Delivery, code: str, field: str, expected: str) -> None:
    (misfit,) = check(ROUTES, delivery).misfits
    assert (misfit.code, misfit.field) == (code, field)
    assert expected in misfit.expected


def test_all_that_does_not_fit_is_named_at_once() -> None:
    misfits = check(ROUTES, world(city="x" * 36, phone=None, lines=("y" * 36,))).misfits
    assert {misfit.code for misfit in misfits} == {
        "too_long.consignee.city",
        "missing.consignee.phone",
        "too_long.consignee.lines",
    }


@pytest.mark.parametrize("name", ["weight_g", "length_cm", "width_cm", "height_cm"])
def test_the_bounds_themselves_fit(name: str) -> None:
    limits = {limit.of: limit for lane in [ROUTES.find(world())] if lane for limit in lane.lane.limits}
    limit = limits[f"parcels[].{name}"]
    for bound in (limit.least, limit.most):
        assert check(ROUTES, changed(world(), parcels=(PARCEL | {name: bound},))).misfits == ()


@pytest.mark.parametrize(
    ("country", "postal_code", "lane"),
    [
        ("ES", "28001", "meridian-eu-standard"),
        ("ES", "51001", "meridian-world-standard"),  # Ceuta
        ("ES", "35001", "meridian-world-standard"),  # Canary Islands
        ("DE", "27498", "meridian-world-standard"),  # Heligoland
        ("DE", "78266", "meridian-world-standard"),  # Büsingen
        ("FR", "97400", "meridian-world-standard"),  # Réunion
        ("RE", "97400", "meridian-world-standard"),
        ("FI", "22100", "meridian-world-standard"),  # Åland
        ("IT", "23041", "meridian-world-standard"),  # Livigno
        ("GR", "63087", "meridian-world-standard"),  # Mount Athos
        ("MC", "98000", "meridian-eu-standard"),
        ("IM", "IM1 1AA", "meridian-world-standard"),
        ("GB", "SW1A 1AA", "meridian-world-standard"),
        ("GB", "BT1 1AA", "meridian-eu-standard"),  # Northern Ireland
    ],
)
def test_the_lane_follows_the_border_and_not_the_country(country: str, postal_code: str, lane: str) -> None:
    delivery = make_delivery(country=country, postal_code=postal_code)
    assert (found := ROUTES.find(delivery)) is not None
    assert found.lane.id == lane
    read = ROUTES.read(delivery.model_dump_json().encode())
    assert hasattr(read, "customs") == (lane == "meridian-world-standard")


def test_a_service_that_goes_there_is_named() -> None:
    lanes = [
        lane for lane in load_lanes(Path(__file__).parents[2] / "shared" / "policy" / "lanes") if lane.version == 2
    ]
    routes = make_routes([lane for lane in lanes if lane.id != "meridian-eu-standard"])
    (misfit,) = check(routes, make_delivery()).misfits
    assert (misfit.code, "express" in misfit.expected) == ("no_lane", True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"wrap": {"from": "consignee.name", "to": ["a.b"], "length": 35}}, "wrap.from consignee.name"),
        ({"wrap": {"from": "parcels", "to": ["a.b"], "length": 35}}, "wrap.from parcels"),
        ({"wrap": {"from": "consignee.lines", "to": ["a.b", "c.d"], "length": 35}}, "wrap.to must name single fields"),
        ({"wrap": {"from": "consignee.lines", "to": ["to.name"], "length": 35}}, "to.name is filled twice"),
        ({"limits": [{"of": "parcels"}]}, "neither `least` nor `most`"),
        ({"limits": [{"of": "consignee", "most": 1}]}, "consignee is no list"),
        ({"limits": [{"of": "customs[].description", "most": 1}]}, "is no number"),
        ({"limits": [{"of": "goods", "most": 1}]}, "goods is not a field of Delivery"),
        ({"joined": [{"of": ["to.name", "to.city"], "length": 9}]}, "to.city is no single text"),
        ({"fields": [{"to": "a", "from": "consignee.name", "shorten": True}]}, "shorten needs a length"),
        ({"fields": [{"to": "a[].b", "from": "parcels[].weight_g", "length": 3}]}, "length is for texts"),
        ({"fields": [{"to": "a", "from": "consignee.phone", "required": "by_country"}]}, "required: by_country is for"),
        ({"border": "open"}, "border"),
    ],
)
def test_a_mistake_in_a_lane_is_refused(changes: dict[str, Any], said: str) -> None:
    lane: dict[str, Any] = {
        "id": "north",
        "version": 1,
        "carrier": "meridian",
        "services": ["standard"],
        "destinations": ["NO"],
        "not_after_hours": 24,
        "handling": {"disposal": "deletion", "retention_days": 30, "recall": "message"},
        "fields": [{"to": "to.name", "from": "consignee.name"}],
    }
    with pytest.raises(ValidationError) as refused:
        Lane.model_validate(lane | changes)
    assert said in str(refused.value)
