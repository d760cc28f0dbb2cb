"""Decisions go into the history, which people see, and into the evidence log."""

from collections.abc import Sequence
from functools import partial

from evidence_log import handlers as evidence
from evidence_log.leaves import Decision
from privacy_service.history import store
from privacy_service.history.domain import CUSTOMER, HistoryEntry
from servicekit import Kit, Tx


async def record(kit: Kit, tx: Tx, entries: Sequence[HistoryEntry]) -> None:
    """Write decisions into the history and the evidence log."""
    if not entries:
        return
    now = kit.clock.now()
    await store.write_history(tx, entries, now)
    decision = partial(Decision, at=now)
    await evidence.append(
        tx,
        [
            decision(request_id=entry.request_id, what=entry.what, by="system", reason=entry.reason)
            if entry.by is None
            else decision(
                request_id=entry.request_id,
                what=entry.what,
                by="customer" if entry.by.role == CUSTOMER else "staff",
                actor_id=entry.by.person_id,
                role=entry.by.role,
                reason=entry.reason,
            )
            for entry in entries
        ],
    )
