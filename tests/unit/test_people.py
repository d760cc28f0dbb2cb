"""The demo's made-up people are such as the shop and its carriers take: no order of theirs is refused by chance."""

from datetime import date

from deploy.local.people import PLACES, Crowd
from deploy.local.services import ROOT
from lanes.choice import make_routes
from lanes.loading import load_lanes
from order_service.purchases import Purchase
from order_service.quotes import quote

ORDERS = 20 * len(PLACES)


def test_orders_of_made_up_people_fit_their_lanes() -> None:
    routes, crowd = make_routes(load_lanes(ROOT / "shared" / "policy" / "lanes")), Crowd(1)
    refused = []
    for _ in range(ORDERS):
        person = crowd.person()
        purchase = Purchase.model_validate(crowd.order(person, gift=False))
        assert (purchase.consignee.phone, purchase.consignee.postal_code) == (person.phone, person.postal_code)
        refused += [(person.country, problem) for problem in quote(routes, purchase, date(2026, 11, 30)).problems]
    assert not refused
