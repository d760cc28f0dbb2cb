"""Orders as people make them, checked as the order service checks them, and what karrio would declare of each that is accepted.

The same through the whole system, with 10,000 of them, is in tests/acceptance/test_generated_orders.py.
"""

import json
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any
from uuid import UUID

from pydantic import ValidationError

from lanes.choice import check, choose_lane, make_routes
from lanes.lane import in_force
from lanes.loading import load_lanes
from lanes.projection import project
from order_service.domain import split_purchase
from order_service.purchases import Purchase
from tests.support.arrivals import differences
from tests.support.purchases import Purchases

ROUTES = make_routes(load_lanes(Path(__file__).parents[2] / "shared" / "policy" / "lanes"))
LANES = in_force(route.lane for route in ROUTES.versions.values())
COUNT = 500
DAY = date(2026, 11, 30)


def leaves(body: dict[str, Any]) -> dict[str, Any] | list[str]:
    """What the carrier gets of an accepted order; the reasons of a refused one."""
    try:
        purchase = Purchase.model_validate_json(json.dumps(body))
    except ValidationError as refused:
        return [f"{error['loc']} {error['type']}" for error in refused.errors(include_input=False)]
    delivery = split_purchase(UUID(int=1), purchase, DAY).delivery
    if misfits := check(ROUTES, delivery).misfits:
        return [misfit.code for misfit in misfits]
    shipment: dict[str, Any] = json.loads(json.dumps(project(choose_lane(ROUTES, delivery), delivery)))
    return shipment


def test_nearly_all_are_accepted_and_each_is_declared_as_it_was_ordered() -> None:
    refused: Counter[str] = Counter()
    for body in Purchases(LANES, seed=4).take(COUNT):
        left = leaves(body)
        if isinstance(left, list):
            assert left
            refused.update(left[:1])
        else:
            assert differences(body, left) == []
    assert refused.total() <= COUNT // 100, refused


def test_every_country_of_every_lane_is_tried() -> None:
    served = {(country, service.value) for lane in LANES for country in lane.destinations for service in lane.services}
    tried = {(body["consignee"]["country"], body["service"]) for body in Purchases(LANES, seed=4).take(len(served))}
    assert tried == served
