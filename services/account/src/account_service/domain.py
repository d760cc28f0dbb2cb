"""The rules of accounts, pure: no I/O, no clock, no randomness."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid5

from event_contracts import Event
from event_contracts.account import Browsing, BrowsingKind, Contact, Identity, is_birth_date
from event_contracts.moments import EARLIEST, is_plausible
from event_contracts.order import OrderCancelled, OrderDelivered, OrderHandedOver, OrderPlaced, OrderProgress
from servicekit.core.errors import Conflict, Invalid

MAX_ADDRESSES = 50
MAX_FAVOURITES = 500
EMAIL_TAKEN = "The e-mail address cannot be used for this account. Sign in, or use another one."
# So long a registration waits for its confirmation.
REGISTRATION_LIFE = timedelta(hours=24)
# Whoever knows a guest's id and contact may have the token again, as long as this: the first answer may have been lost.
GUEST_RETRY = timedelta(hours=1)
# Browsing that a storefront kept back longer than this is not worth keeping at all.
OLDEST_BROWSING = timedelta(days=31)


@dataclass(frozen=True)
class PageView:
    """One view of a page, as it came in. `browsing_id` is the sender's own id of the event."""

    browsing_id: UUID
    at: datetime
    kind: BrowsingKind
    seconds: int
    browsing: Browsing = field(repr=False)


class NoticeKind(StrEnum):
    ORDER_RECEIVED = "order_received"
    CANCELLED = "cancelled"
    HANDED_OVER = "handed_over"
    DELIVERED = "delivered"
    OUT_FOR_DELIVERY = "out_for_delivery"
    FAILED_ATTEMPT = "failed_attempt"
    RETURNED = "returned"
    LOST = "lost"
    UNKNOWN = "unknown"


NOTICE_OF: dict[type[Event], NoticeKind] = {
    OrderPlaced: NoticeKind.ORDER_RECEIVED,
    OrderCancelled: NoticeKind.CANCELLED,
    OrderHandedOver: NoticeKind.HANDED_OVER,
    OrderDelivered: NoticeKind.DELIVERED,
}
# Of what else becomes of a parcel, the buyer is told what they can act on, and every end.
NOTICE_OF_PROGRESS = {
    OrderProgress.OUT_FOR_DELIVERY: NoticeKind.OUT_FOR_DELIVERY,
    OrderProgress.FAILED_ATTEMPT: NoticeKind.FAILED_ATTEMPT,
    OrderProgress.RETURNED: NoticeKind.RETURNED,
    OrderProgress.LOST: NoticeKind.LOST,
    OrderProgress.UNKNOWN: NoticeKind.UNKNOWN,
}


@dataclass(frozen=True)
class Notice:
    subject_id: UUID
    order_id: UUID
    kind: NoticeKind
    at: datetime

    @property
    def notice_id(self) -> UUID:
        """Follows from the natural key, so that a notice has one place in the list."""
        return uuid5(self.order_id, self.kind)


def month_of(subject_id: UUID, at: datetime) -> UUID:
    """The anchor of a person's browsing in the month (UTC) of `at`."""
    return uuid5(subject_id, at.astimezone(UTC).strftime("%Y-%m"))


def check_birth_date(identity: Identity, today: date) -> None:
    """Raises `Invalid` for a birth date that no living person has."""
    born = identity.birth_date
    if born is not None and not is_birth_date(born, today):
        raise Invalid("The birth date is not that of a living person. Correct it or leave it out.")


def edited(identity: Identity, contact: Contact, changes: dict[str, Any]) -> tuple[Identity | None, Contact | None]:
    """Both parts after `changes` (field → new value), each None if nothing in it changes."""
    parts = []
    for part in (identity, contact):
        mine = {name: value for name, value in changes.items() if name in type(part).model_fields}
        new = part.model_copy(update=mine)
        parts.append(None if new == part else new)
    return parts[0], parts[1]  # type: ignore[return-value]


def check_page_views(views: Iterable[PageView], now: datetime) -> list[PageView]:
    """The views without repetitions, in the order of time. Raises `Invalid` for one from the future or long past."""
    by_id = {view.browsing_id: view for view in views}
    for view in by_id.values():
        if view.at < now - OLDEST_BROWSING or not is_plausible(view.at, since=EARLIEST, now=now):
            raise Invalid("An event's time lies in the future or more than 31 days back. Correct it or leave it out.")
    return sorted(by_id.values(), key=lambda view: (view.at, view.browsing_id))


def check_room(count: int, limit: int) -> None:
    """Raises `Conflict` when a list of `count` entries can take no more."""
    if count >= limit:
        raise Conflict("The list is full. Delete an entry, then add this one.")
