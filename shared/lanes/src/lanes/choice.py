"""Which lane takes a delivery. Pure; the lanes are compiled once per process."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from event_contracts.order import Delivery, Service
from lanes.lane import Lane, in_force
from lanes.projection import Route, compile_lane
from lanes.reading import CHOICE, reader_of
from lanes.refusal import CannotShip

_read_choice = reader_of(CHOICE)


@dataclass(frozen=True)
class Routes:
    """All lanes by id and version, and those in force by country and service."""

    versions: Mapping[tuple[str, int], Route]
    serving: Mapping[tuple[str, Service], Route] = field(repr=False)

    def read(self, plaintext: bytes) -> Delivery:
        """What the lane in force lists of a delivery, or but what a lane is chosen by where there is none.

        It has the fields of a `Delivery`, and not all of them. Raises `ValueError` for what is none.
        """
        chosen = _read_choice(plaintext)
        route = self.serving.get((chosen.consignee.country, chosen.service))
        delivery: Delivery = chosen if route is None else route.read(plaintext)
        return delivery

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
    serving = {
        (country, service): versions[lane.id, lane.version]
        for lane in in_force(all_lanes)
        for country in lane.destinations
        for service in lane.services
    }
    return Routes(versions, serving)


def choose_lane(routes: Routes, delivery: Delivery) -> Route:
    """The lane in force for the delivery's country and service. Raises `CannotShip`."""
    route = routes.serving.get((delivery.consignee.country, delivery.service))
    if route is None:
        raise CannotShip("no_lane")
    return route
