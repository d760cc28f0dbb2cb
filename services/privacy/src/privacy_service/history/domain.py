"""What happened to a request, and who did it. Pure."""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

CUSTOMER: Final = "customer"
SYSTEM: Final = "system"


@dataclass(frozen=True, slots=True)
class Person:
    """Who decides something: a staff member, or the customer."""

    person_id: UUID
    role: str


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """Something that happened to a request; `by` None: this service did it."""

    request_id: UUID
    what: str
    by: Person | None = None
    subject_id: UUID | None = None
    reason: str | None = None
