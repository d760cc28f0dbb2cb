"""What is decided about an order: its lane, what leaves, under which ids. Pure: no I/O, no clock, no randomness."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha1
from uuid import UUID

import orjson
from msgspec import Struct, convert

from event_contracts import Erased
from event_contracts.carrier import MessageKind
from event_contracts.order import Delivery, Registration
from lanes.choice import Routes, choose_lane
from lanes.projection import Message, Route, disclosed_fields, project
from lanes.refusal import CannotShip

DATA_CLASS = PURPOSE = "delivery"
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


def lane_kept(routes: Routes, delivery: Delivery | Erased, carrier: str | None, lane: tuple[str, int]) -> Route | None:
    """The stored lane of a shipment that its `carrier` may have, if the lane in force is another carrier's.

    What one carrier may have is never sent to a second one, or the first would be forgotten. Raises `CannotShip`.
    """
    if carrier is None or isinstance(delivery, Erased):
        return None
    route = routes.find(delivery)
    return None if route is not None and route.lane.carrier == carrier else routes.version(*lane)


class State(StrEnum):
    """Of a disclosure (docs/protocols.md#leaving-the-system). `recorded` counts as "may have left"."""

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


def decide(
    routes: Routes, delivery: Delivery | Erased, fixed: Route | None = None, registration: Registration | None = None
) -> Decision:
    """`fixed` is the lane version of an earlier disclosure that must be sent as it was recorded."""
    if isinstance(delivery, Erased):
        return Decision(State.WITHHELD, ERASED)
    try:
        route = fixed or choose_lane(routes, delivery)
        shipment = project(route, delivery, registration)
    except CannotShip as error:
        return Decision(State.BLOCKED, error.reason_code)
    return Decision(
        State.RECORDED, route=route, fields=disclosed_fields(route, delivery, registration), shipment=shipment
    )


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
