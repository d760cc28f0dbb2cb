"""What is decided about an order: its lane, what leaves, under which ids. Pure: no I/O, no clock, no randomness."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha1
from uuid import UUID

import orjson
from msgspec import Struct, convert

from event_contracts import Erased
from event_contracts.carrier import MessageKind
from event_contracts.order import Delivery, Service
from logistics_gateway.lanes import Lane, in_force
from logistics_gateway.projection import CannotShip, Message, Route, compile_lane, disclosed_fields, project
from logistics_gateway.reading import CHOICE, reader_of

DATA_CLASS = PURPOSE = "delivery"
_read_choice = reader_of(CHOICE)
_SHIPMENTS = UUID("0d5c2f0e-6a3b-4a57-9a6e-1f3c8b7d2e94")


def shipment_id_of(order_id: UUID) -> UUID:
    """The same for ever, so that a gateway restored from a backup sends nothing under a second id."""
    return _uuid5(_SHIPMENTS, order_id.bytes.hex())


def message_id_of(shipment_id: UUID, kind: str, number: int = 1) -> UUID:
    """One per shipment, kind and version, however often it is sent: carriers deduplicate by it."""
    return _uuid5(shipment_id, kind if number == 1 else f"{kind}/{number}")


def _uuid5(namespace: UUID, name: str) -> UUID:
    """As `uuid.uuid5`, in half the time: every message takes two."""
    digest = bytearray(sha1(namespace.bytes + name.encode(), usedforsecurity=False).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x50
    digest[8] = digest[8] & 0x3F | 0x80
    return convert(bytes(digest), UUID)


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


def lane_kept(routes: Routes, delivery: Delivery | Erased, carrier: str | None, lane: tuple[str, int]) -> Route | None:
    """The stored lane of a shipment that its `carrier` may have, if the lane in force is another carrier's.

    What one carrier may have is never sent to a second one, or the first would be forgotten. Raises `CannotShip`.
    """
    if carrier is None or isinstance(delivery, Erased):
        return None
    route = routes.serving.get((delivery.consignee.country, delivery.service))
    return None if route is not None and route.lane.carrier == carrier else routes.version(*lane)


class State(StrEnum):
    """Of a disclosure (`PROTOCOLS.md` §6). `recorded` counts as "may have left"."""

    RECORDED = "recorded"
    SENT = "sent"
    WITHHELD = "withheld"
    BLOCKED = "blocked"


ERASED, CANCELLED, CARRIER_CHANGED = "erased", "cancelled", "carrier_changed"


class Decision(Struct, frozen=True):
    """What becomes of one delivery: `state` and its reason, or the lane with the fields and shipment that leave."""

    state: State
    reason: str | None = None
    route: Route | None = None
    fields: tuple[str, ...] = ()
    shipment: Message | None = None

    def not_after(self, recorded_at: datetime) -> datetime | None:
        """Until when the carrier may act on the message."""
        return None if self.route is None else recorded_at + timedelta(hours=self.route.lane.not_after_hours)


def decide(routes: Routes, delivery: Delivery | Erased, fixed: Route | None = None) -> Decision:
    """`fixed` is the lane version of an earlier disclosure that must be sent as it was recorded."""
    if isinstance(delivery, Erased):
        return Decision(State.WITHHELD, ERASED)
    try:
        route = fixed or choose_lane(routes, delivery)
        shipment = project(route, delivery)
    except CannotShip as error:
        return Decision(State.BLOCKED, error.reason_code)
    return Decision(State.RECORDED, route=route, fields=disclosed_fields(route, delivery), shipment=shipment)


def shipment_message(shipment_id: UUID, not_after: datetime, shipment: Message, number: int = 1) -> bytes:
    """The JSON of a `CarrierMessage`, the same whenever it is built again: its digest is in the ledger.

    Every version after the first is a correction, whether or not an earlier one has left.
    """
    if number == 1:
        return _message(MessageKind.SHIPMENT, shipment_id, not_after, {"shipment": shipment})
    content = {"number": number, "shipment": shipment}
    return _message(MessageKind.CORRECTION, shipment_id, not_after, content, number)


def recall_message(shipment_id: UUID, not_after: datetime) -> bytes:
    """The JSON of the `CarrierMessage` that tells the carrier to delete, and never to act on this shipment again."""
    return _message(MessageKind.RECALL, shipment_id, not_after, {})


def erasure_message(shipment_id: UUID, not_after: datetime) -> bytes:
    """The JSON of the `CarrierMessage` that tells the carrier to delete what it has of the shipment, and to say so."""
    return _message(MessageKind.ERASURE, shipment_id, not_after, {})


def _message(kind: MessageKind, shipment_id: UUID, not_after: datetime, content: Message, number: int = 1) -> bytes:
    # as text: the driver's own UUID type is none that the encoder knows
    message_id = str(message_id_of(shipment_id, kind, number))
    head = {"message_id": message_id, "kind": kind, "shipment_id": str(shipment_id)}
    return orjson.dumps({**head, "not_after": not_after, **content})
