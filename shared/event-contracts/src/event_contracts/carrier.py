"""The two messages between the gateway and a carrier. Both travel as JWE only (docs/carrier.md)."""

import re
from enum import StrEnum
from typing import Annotated, Any, Final
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict

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
    """What a carrier can say of a shipment, in the order in which a shipment goes through it; `erased` answers an erasure."""

    ACKNOWLEDGED = "acknowledged"
    LABEL_CREATED = "label_created"
    HANDED_OVER = "handed_over"
    IN_TRANSIT = "in_transit"
    OUT_FOR_DELIVERY = "out_for_delivery"
    FAILED_ATTEMPT = "failed_attempt"
    DELIVERED = "delivered"
    RETURNED = "returned"
    LOST = "lost"
    REFUSED = "refused"
    ERASED = "erased"


class RefusalReason(StrEnum):
    """Why a carrier refuses a shipment. A reason that we do not know is `other`."""

    ADDRESS = "address"
    NOT_SERVED = "not_served"
    GOODS = "goods"
    CUSTOMS = "customs"
    SIZE_OR_WEIGHT = "size_or_weight"
    TOO_LATE = "too_late"
    RECALLED = "recalled"
    OTHER = "other"


MAX_TRACKING_URL: Final = 300
# Capital letters, digits and dashes, with four digits at least: carriers' numbers, and no name of a person.
_TRACKING_NUMBER: Final = re.compile(r"(?=(?:[A-Z-]*[0-9]){4})[A-Z0-9][A-Z0-9-]{5,38}[A-Z0-9]")
_URL: Final = re.compile(r"[A-Za-z0-9._~:/?#@!$&()*+,;=%-]+")


def _reason(stated: Any) -> Any:
    if stated is None:
        return None
    known = isinstance(stated, str) and stated in RefusalReason.__members__.values()
    return RefusalReason(stated) if known else RefusalReason.OTHER


def _tracking_number(stated: Any) -> str | None:
    if not isinstance(stated, str):
        return None
    plain = stated.replace(" ", "").upper() if len(stated) <= 2 * 40 else ""
    return plain if _TRACKING_NUMBER.fullmatch(plain) else None


def _tracking_url(stated: Any) -> str | None:
    if not isinstance(stated, str) or len(stated) > MAX_TRACKING_URL or not _URL.fullmatch(stated):
        return None
    return stated if tracking_host(stated) is not None else None


def tracking_host(url: str) -> str | None:
    """The host of an https URL without port, user and password; None for any other."""
    try:
        parts = urlsplit(url)
        plain = parts.scheme == "https" and parts.netloc == parts.hostname and "." in parts.netloc
    except ValueError:
        return None
    return parts.hostname if plain else None


class CarrierReply(BaseModel):
    """From the carrier. Whatever else a carrier adds (a name in a tracking event, say) is dropped unread.

    So is a `tracking_number` or `tracking_url` that is none; the reply counts without it. `reason` belongs to a refusal.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)
    reply_id: UUID
    kind: ReplyKind
    shipment_id: UUID
    at: Moment
    reason: Annotated[RefusalReason | None, BeforeValidator(_reason)] = None
    tracking_number: Annotated[str | None, BeforeValidator(_tracking_number)] = None
    tracking_url: Annotated[str | None, BeforeValidator(_tracking_url)] = None


def shipments_topic(carrier: str) -> str:
    return f"carrier.{carrier}.shipments"


def replies_topic(carrier: str) -> str:
    return f"carrier.{carrier}.replies"
