"""Events of several services as raw records, for the inventory. Their sealed parts are random bytes that nobody can open."""

import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from event_contracts import Event, Sealed
from event_contracts.account import AccountRegistered, AddressSaved, BrowsingKind, BrowsingRecorded
from event_contracts.logistics_gateway import DeliveryDisclosed
from event_contracts.order import OrderPlaced
from servicekit.kafka.client import OutRecord
from servicekit.kafka.cloudevents import RawRecord, to_headers
from tests.support.reviews.app import ReviewPosted

START = datetime(2026, 11, 1, tzinfo=UTC)
OWNERS = {
    "account.events": "account",
    "browsing.events": "account",
    "order.events": "order",
    "shipment.events": "logistics-gateway",
    "review.events": "reviews",
}


def unopenable() -> Sealed[Any]:
    """What looks like a token."""
    return Sealed(b"\x01" + uuid4().bytes + secrets.token_bytes(100))


def record_of(event: Event, time: datetime = START, source: str | None = None) -> OutRecord:
    """The event as its owner's relay sends it, or as `source` would."""
    headers = to_headers(event, event_id=uuid4(), source=source or OWNERS[event.topic], time=time)
    return OutRecord(event.topic, str(event.partition_key).encode(), event.model_dump_json().encode(), headers)


def as_read(records: list[OutRecord], partition: int = 0) -> list[RawRecord]:
    """The records as a reader gets them, with the offsets of their order."""
    return [
        RawRecord(record.topic, partition, offset, record.key, record.value, tuple(record.headers))
        for offset, record in enumerate(records)
    ]


def disclosed(order: OrderPlaced, *fields: str, shipment_id: UUID | None = None) -> DeliveryDisclosed:
    return DeliveryDisclosed(
        order_id=order.order_id,
        shipment_id=shipment_id or uuid4(),
        subject_id=order.consignee_id,
        carrier="meridian",
        lane="meridian-eu-standard",
        lane_version=1,
        policy_version="2026-11-23",
        data_class="delivery",
        purpose="delivery",
        fields=fields,
    )


@dataclass
class Shopper:
    """One person who registers, saves an address, browses, sends a gift to somebody and reviews it."""

    subject_id: UUID = field(default_factory=uuid4)
    consignee_id: UUID = field(default_factory=uuid4)
    address_id: UUID = field(default_factory=uuid4)
    month_id: UUID = field(default_factory=uuid4)
    order_id: UUID = field(default_factory=uuid4)
    review_id: UUID = field(default_factory=uuid4)

    def order(self) -> OrderPlaced:
        return OrderPlaced(
            order_id=self.order_id,
            buyer_id=self.subject_id,
            consignee_id=self.consignee_id,
            placed_at=START,
            delivery=unopenable(),
            record=unopenable(),
            payment=unopenable(),
        )

    def registered(self) -> AccountRegistered:
        return AccountRegistered(subject_id=self.subject_id, identity=unopenable(), contact=unopenable())

    def events(self) -> list[Event]:
        order = self.order()
        return [
            self.registered(),
            AddressSaved(subject_id=self.subject_id, address_id=self.address_id, number=1, address=unopenable()),
            *(self.browsing() for _ in range(3)),
            order,
            disclosed(order, "consignee.name", "consignee.city"),
            ReviewPosted(review_id=self.review_id, author_id=self.subject_id, stars=5, reviewer=unopenable()),
        ]

    def browsing(self) -> BrowsingRecorded:
        return BrowsingRecorded(
            subject_id=self.subject_id,
            browsing_id=uuid4(),
            month_id=self.month_id,
            kind=BrowsingKind.PAGE_VIEWED,
            browsing=unopenable(),
        )

    def records(self) -> list[OutRecord]:
        """One every hour."""
        return [record_of(event, START + timedelta(hours=hour)) for hour, event in enumerate(self.events())]

    def holdings(self) -> set[tuple[UUID, str, str, UUID]]:
        """(subject, system, class, anchor) as the inventory must have them afterwards."""
        me = self.subject_id
        return {
            (me, "account", "identity", me),
            (me, "account", "contact", me),
            (me, "account", "contact", self.address_id),
            (me, "account", "behaviour", self.month_id),
            (me, "order", "order_record", self.order_id),
            (me, "order", "payment", self.order_id),
            (self.consignee_id, "order", "delivery", self.order_id),
            (self.consignee_id, "logistics-gateway", "pseudonym", self.order_id),
            (me, "reviews", "identity", self.review_id),
        }
