"""What the logistics gateway publishes: what left, to whom, and how the shipment went. Nothing personal is in clear in it."""

from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import Field

from event_contracts.carrier import MAX_TRACKING_URL, RefusalReason
from event_contracts.codes import DataClass, FieldPath, LaneId, PolicyVersion, Purpose, SystemName, Version
from event_contracts.event import Event
from event_contracts.moments import Moment
from event_contracts.personal import PersonalData, Sealed, about, category

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
    reason: RefusalReason = RefusalReason.OTHER


class ShipmentHandedOver(Event, topic=SHIPMENT_EVENTS, key="order_id"):
    order_id: UUID
    shipment_id: UUID
    at: Moment


class ShipmentDelivered(Event, topic=SHIPMENT_EVENTS, key="order_id"):
    order_id: UUID
    shipment_id: UUID
    at: Moment


class Progress(StrEnum):
    """How far a shipment is, beyond what has an event of its own.

    `returned` and `lost` are the carrier's word and an end. So are, by the gateway's own clock, `unknown`: the carrier said
    nothing for the lane's term, and `undeliverable`: the shipment was blocked for the longest time, and never left.
    """

    LABEL_CREATED = "label_created"
    IN_TRANSIT = "in_transit"
    OUT_FOR_DELIVERY = "out_for_delivery"
    FAILED_ATTEMPT = "failed_attempt"
    RETURNED = "returned"
    LOST = "lost"
    UNKNOWN = "unknown"
    UNDELIVERABLE = "undeliverable"


class ShipmentProgressed(Event, topic=SHIPMENT_EVENTS, key="order_id"):
    order_id: UUID
    shipment_id: UUID
    kind: Progress
    at: Moment


class ShipmentBlocked(Event, topic=SHIPMENT_EVENTS, key="order_id"):
    """The shipment cannot leave now, and is tried again: `no_lane`, `missing.consignee.email` … It leaves, or ends."""

    order_id: UUID
    shipment_id: UUID
    reason: FieldPath


class ShipmentUnblocked(Event, topic=SHIPMENT_EVENTS, key="order_id"):
    order_id: UUID
    shipment_id: UUID


class Tracking(PersonalData, data_class="tracking"):
    """Where the parcel can be followed. Its page shows the delivery, so these are data of the consignee."""

    number: Annotated[str, Field(min_length=7, max_length=40)] | None = category(
        "user.unique_id.pseudonymous", default=None
    )
    url: Annotated[str, Field(max_length=MAX_TRACKING_URL)] | None = category(
        "user.unique_id.pseudonymous", default=None
    )


class ShipmentTracked(Event, topic=SHIPMENT_EVENTS, key="order_id"):
    """A carrier has named its tracking number, or another one. The last one of an order counts."""

    order_id: UUID
    shipment_id: UUID
    subject_id: UUID
    carrier: SystemName
    tracking: Sealed[Tracking] = about(subject="subject_id", anchor="order_id")


EVENTS: tuple[type[Event], ...] = (
    DeliveryDisclosed,
    ShipmentAcknowledged,
    ShipmentRefused,
    ShipmentHandedOver,
    ShipmentDelivered,
    ShipmentProgressed,
    ShipmentBlocked,
    ShipmentUnblocked,
    ShipmentTracked,
)
