"""What the logistics gateway publishes: what left, to whom, and how the shipment went. Nothing personal is in it."""

from typing import Annotated
from uuid import UUID

from pydantic import Field

from event_contracts.codes import DataClass, FieldPath, LaneId, PolicyVersion, Purpose, SystemName, Version
from event_contracts.event import Event
from event_contracts.moments import Moment

SHIPMENT_EVENTS = "shipment.events"


class DeliveryDisclosed(Event, topic=SHIPMENT_EVENTS, key="order_id"):
    """Fields of one person's delivery data were recorded as leaving to a carrier (policy D2)."""

    order_id: UUID
    shipment_id: UUID
    subject_id: UUID
    carrier: SystemName
    lane: LaneId
    lane_version: Version
    policy_version: PolicyVersion
    data_class: DataClass
    purpose: Purpose
    fields: Annotated[tuple[FieldPath, ...], Field(max_length=100)]


class ShipmentAcknowledged(Event, topic=SHIPMENT_EVENTS, key="order_id"):
    order_id: UUID
    shipment_id: UUID
    carrier: SystemName


class ShipmentRefused(Event, topic=SHIPMENT_EVENTS, key="order_id"):
    order_id: UUID
    shipment_id: UUID
    carrier: SystemName


class ShipmentHandedOver(Event, topic=SHIPMENT_EVENTS, key="order_id"):
    order_id: UUID
    shipment_id: UUID
    at: Moment


class ShipmentDelivered(Event, topic=SHIPMENT_EVENTS, key="order_id"):
    order_id: UUID
    shipment_id: UUID
    at: Moment


EVENTS: tuple[type[Event], ...] = (
    DeliveryDisclosed,
    ShipmentAcknowledged,
    ShipmentRefused,
    ShipmentHandedOver,
    ShipmentDelivered,
)
