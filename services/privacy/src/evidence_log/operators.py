"""What operators decide about records in quarantine and about positions, in any system, is a leaf of the evidence log."""

from collections.abc import Sequence
from datetime import datetime

from event_contracts.privacy import QuarantineDecided
from evidence_log.handlers import append
from evidence_log.leaves import PositionDecision, QuarantineDecision, leaf_id_of
from servicekit import Kit, Received, Tx
from servicekit.kit import Decided


async def on_decided(kit: Kit, tx: Tx, received: Sequence[Received[Decided]]) -> None:
    """Decisions of other systems. One that comes again is the same leaf."""
    await append(tx, [_leaf(each.event, each.time) for each in received])


async def record_decision(kit: Kit, tx: Tx, decided: Decided) -> None:
    """A decision of this service, with its own transaction."""
    await append(tx, [_leaf(decided, kit.clock.now())])


def _leaf(decided: Decided, at: datetime) -> QuarantineDecision | PositionDecision:
    if isinstance(decided, QuarantineDecided):
        return QuarantineDecision(
            decision_id=decided.decision_id,
            system=decided.system,
            reader=decided.reader,
            action=decided.action.value,
            count=decided.count,
            number=decided.number,
            reason=decided.reason,
            operator=decided.operator,
            at=at,
            leaf_id=leaf_id_of(QuarantineDecision.kind, decided.decision_id),
        )
    return PositionDecision(
        decision_id=decided.decision_id,
        system=decided.system,
        reader=decided.reader,
        topic=decided.at_topic,
        partition=decided.partition,
        action=decided.action.value,
        since=decided.since,
        onto=decided.onto,
        reason=decided.reason,
        operator=decided.operator,
        at=at,
        leaf_id=leaf_id_of(PositionDecision.kind, decided.decision_id),
    )
