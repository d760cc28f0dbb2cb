"""The tables of the exports that hold personal data: sealed parts, and whom an export is about."""

from typing import Final

from event_contracts.privacy import ExportPart
from servicekit import Holding

EXPORT_PARTS: Final = Holding(
    "rights_export_parts",
    subject="subject_id",
    anchor="request_id",
    sealed={"content": ExportPart},
    plain=("system", "attempt", "part", "is_last", "row_count", "received_at"),
)
EXPORT_SUBJECTS: Final = Holding("rights_export_subjects", subject="subject_id", anchor="request_id", sealed={})
HOLDINGS: Final = (EXPORT_PARTS, EXPORT_SUBJECTS)
