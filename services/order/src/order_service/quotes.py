"""Whether a carrier's lane takes what a buyer states. The route of orders asks before it stores; that of quotes asks only."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date
from typing import Final
from uuid import UUID

from event_contracts.order import Delivery
from lanes.choice import Check, Routes, check, make_routes
from lanes.fitting import Misfit
from lanes.loading import load_lanes
from order_service.domain import delivery_of, missing_customs, order_number, order_total
from order_service.purchases import QuotePurchase
from order_service.settings import OrderSettings
from servicekit import Kit
from servicekit.core.errors import FieldProblem, InvalidFields, Misconfigured

NO_LANE: Final = "no_lane"
_NO_CUSTOMS: Final = "missing.customs"
_CUSTOMS: Final = {
    "net_weight_g": "Send the weight of all pieces of the line in grams, such as 1500: customs needs it there.",
    "origin_country": "Send the country where the goods were made, such as JP: customs needs it there.",
    "hs_code": "Send the HS code of the goods, six to ten digits such as 691110: customs needs it there.",
}
_OTHER_SIDE: Final = (
    "Send an address that this parcel can go to: cancel the order and place another one for this address."
)


@dataclass(frozen=True, slots=True)
class OrderContext:
    """What a process of the order service holds: the lanes."""

    routes: Routes


@asynccontextmanager
async def open_context(kit: Kit) -> AsyncIterator[OrderContext]:
    """Loads the lanes. Raises `Misconfigured`."""
    settings = kit.settings
    if not isinstance(settings, OrderSettings) or settings.lanes_dir is None:
        raise Misconfigured("The environment lacks LANES_DIR: set it and start again.")
    yield OrderContext(make_routes(load_lanes(settings.lanes_dir)))


class NoLane(InvalidFields):
    """No carrier of ours takes parcels to this destination with this service. Choose another service or destination."""

    code = NO_LANE


@dataclass(frozen=True, slots=True)
class Quote:
    """What would happen to an order. `fields` are those that would leave; it would be accepted when `problems` is empty."""

    lane: str | None
    carrier: str | None
    fields: tuple[str, ...]
    problems: tuple[FieldProblem, ...]


def quote(routes: Routes, purchase: QuotePurchase, today: date) -> Quote:
    """Raises `Invalid` and `InvalidFields` as placing the order does for what no lane is asked about."""
    order_total(purchase)
    checked = check(routes, delivery_of(purchase, order_number(UUID(int=0)), today))
    lane = checked.lane
    fields = dict.fromkeys(_in_purchase(field, purchase) for field in checked.fields)
    return Quote(
        lane=None if lane is None else lane.id,
        carrier=None if lane is None else lane.carrier,
        fields=tuple(fields),
        problems=tuple(_problems(checked, purchase)),
    )


def check_delivery(routes: Routes, purchase: QuotePurchase, delivery: Delivery) -> None:
    """Raises `NoLane`, or `InvalidFields` with all that does not fit its lane."""
    checked = check(routes, delivery)
    if checked.misfits:
        problems = list(_problems(checked, purchase))
        raise NoLane(problems) if checked.lane is None else InvalidFields(problems)


def check_correction(routes: Routes, held: Delivery, delivery: Delivery) -> None:
    """Raises `NoLane` or `InvalidFields` for what the correction makes unfit: what did not fit before may stay so."""
    before = {misfit.code for misfit in check(routes, held).misfits}
    checked = check(routes, delivery)
    problems = [_of_consignee(misfit) for misfit in checked.misfits if misfit.code not in before]
    if problems:
        raise NoLane(problems) if checked.lane is None else InvalidFields(problems)


def _of_consignee(misfit: Misfit) -> FieldProblem:
    part, _, field = misfit.field.partition(".")
    if part == "consignee":
        return FieldProblem(at=field, code=misfit.code, expected=misfit.expected)
    # What the order has does not go to that side of a customs border.
    return FieldProblem(at="postal_code", code=misfit.code, expected=_OTHER_SIDE)


def _problems(checked: Check, purchase: QuotePurchase) -> Iterator[FieldProblem]:
    for misfit in checked.misfits:
        if misfit.code == _NO_CUSTOMS:
            for path in missing_customs(purchase):
                yield FieldProblem(at=path, code=misfit.code, expected=_CUSTOMS[path.rpartition(".")[2]])
        else:
            yield FieldProblem(at=_in_purchase(misfit.field, purchase), code=misfit.code, expected=misfit.expected)


def _in_purchase(field: str, purchase: QuotePurchase) -> str:
    """Where the caller has stated this field of the delivery, such as `lines.0.unit_price` for `customs.0.value`."""
    part, _, rest = field.partition(".")
    if part == "customs":
        name = rest.rpartition(".")[2]
        if name == "currency":
            return name
        return f"lines.{rest.removesuffix('value')}unit_price" if name == "value" else f"lines.{rest}".rstrip(".")
    if part == "parcels" and purchase.parcels is None:
        return "parcels"
    if part == "invoice" and purchase.invoice is None:
        return "shop_order_number" if purchase.shop_order_number is not None else "invoice"
    return field
