"""What the gateway holds about people: the disclosure ledger, with the sealed delivery until it was sent."""

from event_contracts.order import Delivery
from servicekit.holdings import Holding

DISCLOSURES = Holding(
    "disclosures",
    subject="subject_id",
    anchor="order_id",
    sealed={"delivery": Delivery},
    plain=(
        "shipment_id", "state", "reason", "carrier", "lane", "lane_version", "policy_version", "data_class", "purpose",
        "fields", "digest", "not_after", "topic", "partition", "position", "recorded_at", "next_try_at", "sent_at",
        "recall", "recalled_at", "acknowledged_at", "refused_at", "handed_over_at", "delivered_at",
    ),
)  # fmt: skip
