"""The two messages between the gateway and a carrier. Both travel as JWE only (docs/carrier.md)."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict


class MessageKind(StrEnum):
    SHIPMENT = "shipment"
    RECALL = "recall"


class CarrierMessage(BaseModel):
    """To the carrier. `shipment` holds exactly the lane's fields and is absent in a recall, which is final.

    `message_id` is the same however often the message is sent: deduplicate by it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
    message_id: UUID
    kind: MessageKind
    shipment_id: UUID
    not_after: datetime
    shipment: dict[str, Any] | None = None


class ReplyKind(StrEnum):
    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"
    HANDED_OVER = "handed_over"
    DELIVERED = "delivered"


class CarrierReply(BaseModel):
    """From the carrier. Whatever else a carrier adds (a name in a tracking event, say) is dropped unread."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)
    reply_id: UUID
    kind: ReplyKind
    shipment_id: UUID
    at: datetime


def shipments_topic(carrier: str) -> str:
    return f"carrier.{carrier}.shipments"


def replies_topic(carrier: str) -> str:
    return f"carrier.{carrier}.replies"
