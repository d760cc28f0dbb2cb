"""The two messages between the gateway and a carrier. Both travel as JWE only (docs/carrier.md)."""

from enum import StrEnum
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from event_contracts.codes import Version
from event_contracts.moments import Moment


class MessageKind(StrEnum):
    SHIPMENT = "shipment"
    CORRECTION = "correction"
    RECALL = "recall"
    ERASURE = "erasure"


class CarrierMessage(BaseModel):
    """To the carrier. `shipment` holds exactly the lane's fields; a correction replaces those of the same shipment.

    It is absent in a recall, which is final, and in the notice of an erasure: delete what you have of this shipment, and
    answer `erased`.

    `message_id` is the same however often the message is sent: deduplicate by it. `number` counts the versions of one
    shipment: of several the one with the highest number is in force, whatever comes last.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
    message_id: UUID
    kind: MessageKind
    shipment_id: UUID
    not_after: Moment
    number: Version = 1
    shipment: dict[str, Any] | None = None


class ReplyKind(StrEnum):
    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"
    HANDED_OVER = "handed_over"
    DELIVERED = "delivered"
    ERASED = "erased"


class CarrierReply(BaseModel):
    """From the carrier. Whatever else a carrier adds (a name in a tracking event, say) is dropped unread."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)
    reply_id: UUID
    kind: ReplyKind
    shipment_id: UUID
    at: Moment


def shipments_topic(carrier: str) -> str:
    return f"carrier.{carrier}.shipments"


def replies_topic(carrier: str) -> str:
    return f"carrier.{carrier}.replies"
