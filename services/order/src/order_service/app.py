"""All the wiring of the order service."""

from pathlib import Path

from event_contracts.logistics_gateway import (
    SHIPMENT_EVENTS,
    ShipmentAcknowledged,
    ShipmentBlocked,
    ShipmentDelivered,
    ShipmentHandedOver,
    ShipmentProgressed,
    ShipmentRefused,
    ShipmentTracked,
    ShipmentUnblocked,
)
from event_contracts.order import EVENTS
from event_contracts.privacy import PRIVACY_COMMANDS, HoldingsRectified, RectifyDelivery
from order_service import shipments
from order_service.holdings import HOLDINGS
from order_service.http import make_router
from order_service.quotes import open_context
from order_service.rectification import apply_rectification, prepare_rectification
from order_service.settings import OrderSettings
from servicekit import Consumes, Service

SHIPMENTS = Consumes(
    topics=(SHIPMENT_EVENTS,),
    handlers={
        ShipmentAcknowledged: shipments.on_shipment_acknowledged,
        ShipmentRefused: shipments.on_shipment_refused,
        ShipmentHandedOver: shipments.on_shipment_handed_over,
        ShipmentDelivered: shipments.on_shipment_delivered,
        ShipmentProgressed: shipments.on_shipment_progressed,
        ShipmentBlocked: shipments.on_shipment_blocked,
        ShipmentUnblocked: shipments.on_shipment_unblocked,
        ShipmentTracked: shipments.on_shipment_tracked,
    },
    reader="shipments",
)

# A command that comes again finds its value in force, and makes no version.
RECTIFICATION = Consumes(
    (PRIVACY_COMMANDS,),
    contracts=(RectifyDelivery,),
    prepare=prepare_rectification,
    apply=apply_rectification,
    reader="rectification",
    inbox=True,
    repeats=True,
)

SERVICE = Service(
    "order",
    migrations=Path(__file__).parent / "migrations",
    emits=(*EVENTS, HoldingsRectified),
    consumes=(SHIPMENTS, RECTIFICATION),
    holdings=HOLDINGS,
    router=make_router,
    settings=OrderSettings,
    own=open_context,
    package="order-service",
)
