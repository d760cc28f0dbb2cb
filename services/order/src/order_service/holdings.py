"""Where the order service holds personal data: one table per subject and class, so that each part can go alone."""

from event_contracts.logistics_gateway import Tracking
from event_contracts.order import Delivery, OrderRecord, Payment, Registration
from servicekit import Holding

# The order itself: ids, a code and times. It outlives its parts.
ORDERS = Holding(
    "orders",
    subject="buyer_id",
    anchor="order_id",
    sealed={},
    plain=["consignee_id", "status", "status_at", "placed_at", "recorded_at", "blocked", "blocked_since"],
    outlives=True,
)
# An order under way is finished first. It closes when this service hears of it, by its own clock.
CLOSED = """(SELECT coalesce(o.recorded_at, greatest(o.status_at, o.placed_at))
             FROM orders o WHERE o.order_id = t.order_id
                 AND o.status IN ('delivered', 'returned', 'lost', 'unknown', 'cancelled'))"""
DELIVERIES = Holding(
    "order_deliveries",
    subject="consignee_id",
    anchor="order_id",
    sealed={"delivery": Delivery},
    plain=["number"],
    closed=CLOSED,
)
REGISTRATIONS = Holding(
    "order_registrations",
    subject="consignee_id",
    anchor="order_id",
    sealed={"registration": Registration},
    closed=CLOSED,
)
TRACKING = Holding(
    "order_tracking",
    subject="consignee_id",
    anchor="order_id",
    sealed={"tracking": Tracking},
    plain=["carrier"],
    closed=CLOSED,
)
RECORDS = Holding("order_records", subject="buyer_id", anchor="order_id", sealed={"record": OrderRecord}, closed=CLOSED)
PAYMENTS = Holding("order_payments", subject="buyer_id", anchor="order_id", sealed={"payment": Payment}, closed=CLOSED)

HOLDINGS = (ORDERS, DELIVERIES, REGISTRATIONS, TRACKING, RECORDS, PAYMENTS)
