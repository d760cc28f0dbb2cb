"""What the privacy service asks of every participant, and what each answers on its own topic."""

from typing import Annotated
from uuid import UUID

from pydantic import Field

from event_contracts.codes import SystemName
from event_contracts.event import Event

PRIVACY_COMMANDS = "privacy.commands"
# `*` is the system that answers: the ACL of its topic is its signature.
REPLIES = "*.replies"

RowCount = Annotated[int, Field(ge=0, le=10**9)]


class CountHoldings(Event, topic=PRIVACY_COMMANDS, key="request_id"):
    """Asks every participant how many rows it holds about a person."""

    request_id: UUID
    subject_id: UUID


class HoldingsCounted(Event, topic=REPLIES, key="request_id"):
    """A participant's own count over all its holdings. None of it is personal."""

    request_id: UUID
    subject_id: UUID
    system: SystemName
    row_count: RowCount


EVENTS: tuple[type[Event], ...] = (CountHoldings, HoldingsCounted)
