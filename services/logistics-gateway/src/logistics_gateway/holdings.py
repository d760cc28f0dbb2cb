"""What the gateway holds about people: the ledger, with the sealed delivery until it was sent; sealed registrations."""

from event_contracts.order import Delivery, Registration
from logistics_gateway import erasures_store
from servicekit import Holding

DISCLOSURES = Holding(
    "disclosures",
    subject="subject_id",
    anchor="order_id",
    sealed={"delivery": Delivery},
    plain=(
        "shipment_id", "state", "reason", "carrier", "lane", "lane_version", "policy_version", "data_class", "purpose",
        "fields", "digest", "not_after", "topic", "partition", "position", "recorded_at", "next_try_at", "sent_at",
        "recall", "recalled_at", "acknowledged_at", "refused_at", "handed_over_at", "delivered_at", "key_id", "number",
        "erasure", "erasure_request", "erasure_sent_at", "erased_at", "ordered_at", "progress", "rank", "progress_at",
        "heard_at", "ended_at", "refusal", "blocked_since",
    ),
    erase_with=erasures_store.erase,
)  # fmt: skip
# Ids and a time: who is to hear of a recipient's answer, also long after the person's data went.
RECIPIENT_REQUESTS = Holding(
    "recipient_requests", subject="subject_id", anchor="request_id", sealed={}, plain=("asked_at",), outlives=True
)

REGISTRATIONS = Holding("registrations", subject="subject_id", anchor="order_id", sealed={"registration": Registration})

HOLDINGS = (DISCLOSURES, REGISTRATIONS, RECIPIENT_REQUESTS)
