"""Replies of the participants: what a record must be to count, and which handlers get it."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias

from event_contracts.event import Event
from event_contracts.moments import IMPLAUSIBLE
from event_contracts.privacy import (
    ExpiredFound,
    HoldingsCounted,
    HoldingsDescribed,
    HoldingsErased,
    HoldingsExported,
    HoldingsRectified,
    KeyReleased,
    PositionDecided,
    QuarantineDecided,
    RecipientsTold,
)
from event_contracts.topics import system_replies
from evidence_log.operators import on_decided
from privacy_service.probes.handlers import on_holdings_counted
from privacy_service.retention import handlers as retention
from privacy_service.sagas import replies as sagas
from servicekit import Kit, Received, RecordId, Tx
from servicekit.core.errors import Poison
from servicekit.core.faults import declare, faultpoint
from servicekit.kafka.batches import in_order
from servicekit.kafka.cloudevents import RawRecord, read_event, types_of

Handler: TypeAlias = Callable[[Kit, Tx, Sequence[Received[Any]]], Awaitable[None]]

# Retention runs and sagas ask the same question, so both see the replies to it.
HANDLERS: Final[Mapping[type[Event], tuple[Handler, ...]]] = {
    HoldingsCounted: (on_holdings_counted,),
    PositionDecided: (on_decided,),
    QuarantineDecided: (on_decided,),
    HoldingsDescribed: (retention.on_described, sagas.on_described),
    HoldingsErased: (sagas.on_erased,),
    RecipientsTold: (sagas.on_notified,),
    HoldingsExported: (sagas.on_exported,),
    HoldingsRectified: (sagas.on_rectified,),
    ExpiredFound: (retention.on_expired_found,),
    KeyReleased: (retention.on_released,),
}
# The month of somebody's browsing closes at its end, which may lie ahead. Nothing closes later than that.
LONGEST_AHEAD: Final = timedelta(days=32)
_TYPES: Final = types_of(HANDLERS)

declare("rights.answered")


def read_reply(kit: Kit, record: RawRecord) -> Received[Any] | None:
    """Decode a record. Raises `Poison` for a reply that names another system than the topic's owner, or a closing time that
    nobody can know."""
    received = read_event(record, _TYPES)
    if received is not None and received.topic != system_replies(str(getattr(received.event, "system", None))):
        raise Poison("wrong_producer")
    if received is not None and any(at > kit.clock.now() + LONGEST_AHEAD for at in _closing_times(received.event)):
        raise Poison(IMPLAUSIBLE)
    return received


async def apply_replies(kit: Kit, tx: Tx, replies: Sequence[Received[Any]], _: Mapping[RecordId, Any]) -> None:
    """Each handler gets all replies of its type, in order per request."""
    for contract, group in in_order(replies):
        for handler in HANDLERS[contract]:
            await handler(kit, tx, group)
    faultpoint("rights.answered")


def _closing_times(reply: Event) -> Sequence[datetime]:
    """The times at which a participant says that anchors closed."""
    if isinstance(reply, HoldingsDescribed | ExpiredFound):
        return [item.closed_at for item in reply.items if item.closed_at is not None]
    return ()
