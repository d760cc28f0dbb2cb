"""Which lane takes a delivery. Pure; the lanes are compiled once per process."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from country_data.borders import crosses_border
from event_contracts.order import Delivery, Service
from lanes.fitting import Misfit
from lanes.lane import Lane, in_force
from lanes.projection import Route, compile_lane, disclosed_fields
from lanes.reading import CHOICE, reader_of
from lanes.refusal import CannotShip

_read_choice = reader_of(CHOICE)
_REFUSED = "Send another value: the carrier does not take this one."


@dataclass(frozen=True)
class Routes:
    """All lanes by id and version, and those in force by country, by whether the way there crosses a border, and by service."""

    versions: Mapping[tuple[str, int], Route]
    serving: Mapping[tuple[str, bool, Service], Route] = field(repr=False)

    def read(self, plaintext: bytes) -> Delivery:
        """What the lane in force lists of a delivery, or but what a lane is chosen by where there is none.

        It has the fields of a `Delivery`, and not all of them. Raises `ValueError` for what is none.
        """
        chosen = _read_choice(plaintext)
        route = self.find(chosen)
        delivery: Delivery = chosen if route is None else route.read(plaintext)
        return delivery

    def find(self, delivery: Delivery) -> Route | None:
        """The lane in force for the delivery's destination and service."""
        consignee = delivery.consignee
        crosses = crosses_border(consignee.country, consignee.postal_code)
        return self.serving.get((consignee.country, crosses, delivery.service))

    def version(self, lane_id: str, number: int) -> Route:
        """The lane version that a disclosure was recorded with. Raises `CannotShip` when its file is gone."""
        try:
            return self.versions[lane_id, number]
        except KeyError:
            raise CannotShip("lane_version_gone") from None


def make_routes(lanes: Iterable[Lane]) -> Routes:
    """Compiles every lane, once per process."""
    all_lanes = tuple(lanes)
    versions = {(lane.id, lane.version): compile_lane(lane) for lane in all_lanes}
    serving = {key: versions[lane.id, lane.version] for lane in in_force(all_lanes) for key in lane.serves}
    return Routes(versions, serving)


def choose_lane(routes: Routes, delivery: Delivery) -> Route:
    """The lane in force for the delivery's destination and service. Raises `CannotShip`."""
    route = routes.find(delivery)
    if route is None:
        raise CannotShip("no_lane")
    return route


@dataclass(frozen=True, slots=True)
class Check:
    """What the lanes say of a delivery: its lane, None where there is none; its fields that will leave, as codes such as
    `consignee.name`; and what does not fit. It can leave when nothing is in `misfits`.
    """

    lane: Lane | None
    fields: tuple[str, ...]
    misfits: tuple[Misfit, ...]


def check(routes: Routes, delivery: Delivery) -> Check:
    """Whether the delivery can leave, and all reasons why not, before it is accepted."""
    route = routes.find(delivery)
    if route is None:
        return Check(None, (), (Misfit("no_lane", "consignee.country", _no_lane(routes, delivery)),))
    misfits = tuple(route.misfits(delivery))
    if not misfits:
        try:
            misfits = tuple(route.too_long(route.build(delivery)))
        except CannotShip as refused:
            misfits = (Misfit(refused.reason_code, refused.reason_code.partition(".")[2], _REFUSED),)
    return Check(route.lane, disclosed_fields(route, delivery), misfits)


def _no_lane(routes: Routes, delivery: Delivery) -> str:
    consignee = delivery.consignee
    crosses = crosses_border(consignee.country, consignee.postal_code)
    others = [service.value for service in Service if (consignee.country, crosses, service) in routes.serving]
    if others:
        return f"No carrier takes parcels there with this service. Choose the service {' or '.join(others)}."
    return "No carrier takes parcels there. Send a destination that we deliver to, such as NL, US or JP."
