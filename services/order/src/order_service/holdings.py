"""Where the order service holds personal data: one table per subject and class, so that each part can go alone."""

from event_contracts.order import Delivery, OrderRecord, Payment
from servicekit.holdings import Holding

# The order itself: ids, a code and times. It outlives its parts.
ORDERS = Holding(
    "orders",
    subject="buyer_id",
    anchor="order_id",
    sealed={},
    plain=["consignee_id", "status", "status_at", "placed_at"],
    outlives=True,
)
# An order under way is finished first.
CLOSED = (
    """(SELECT o.status_at FROM orders o WHERE o.order_id = t.order_id AND o.status IN ('delivered', 'cancelled'))"""
)
DELIVERIES = Holding(
    "order_deliveries",
    subject="consignee_id",
    anchor="order_id",
    sealed={"delivery": Delivery},
    plain=["number"],
    closed=CLOSED,
)
RECORDS = Holding("order_records", subject="buyer_id", anchor="order_id", sealed={"record": OrderRecord}, closed=CLOSED)
PAYMENTS = Holding("order_payments", subject="buyer_id", anchor="order_id", sealed={"payment": Payment}, closed=CLOSED)

HOLDINGS = (ORDERS, DELIVERIES, RECORDS, PAYMENTS)
