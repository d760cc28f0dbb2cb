"""The tables that hold pseudonyms of people. `staff_looks` is none: it is evidence and outlives an erasure (law L6)."""

from typing import Final

from servicekit import Holding

INVENTORY: Final = Holding(
    "inventory",
    subject="subject_id",
    anchor="anchor",
    sealed={},
    plain=("system", "data_class", "key_id", "first_seen", "last_seen"),
    key="key_id",
)
RECIPIENTS: Final = Holding(
    "recipients",
    subject="subject_id",
    anchor="anchor",
    sealed={},
    plain=("data_class", "carrier", "lane", "lane_version", "fields", "first_seen", "last_seen"),
)
