"""The tables of the requests that hold pseudonyms of people, and what support typed in for a rectification."""

from typing import Final

from event_contracts.account import ContactCorrection, IdentityCorrection
from event_contracts.order import DeliveryCorrection
from servicekit import Holding

# It proves what was done, so it outlives what it is about (law L6).
SUBJECTS: Final = Holding(
    "rights_subjects",
    subject="subject_id",
    anchor="request_id",
    sealed={},
    plain=(
        "revocation_id",
        "step",
        "since",
        "next_try_at",
        "attempts",
        "round",
        "number",
        "question_id",
        "waiting_for",
    ),
    outlives=True,
)
RECTIFICATIONS: Final = Holding(
    "rectifications",
    subject="subject_id",
    anchor="subject_id",
    sealed={"identity": IdentityCorrection, "contact": ContactCorrection},
    plain=("request_id",),
)
DELIVERY_CORRECTIONS: Final = Holding(
    "delivery_corrections",
    subject="subject_id",
    anchor="order_id",
    sealed={"delivery": DeliveryCorrection},
    plain=("request_id",),
)
HOLDINGS: Final = (SUBJECTS, RECTIFICATIONS, DELIVERY_CORRECTIONS)
