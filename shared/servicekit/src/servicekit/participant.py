"""Participant: a system that holds personal data answers the privacy service's commands. A service with holdings is one."""

from __future__ import annotations

from collections.abc import Sequence

from event_contracts.privacy import PRIVACY_COMMANDS, CountHoldings, HoldingsCounted
from servicekit.batches import Batch, Consumes
from servicekit.holdings import Holding
from servicekit.kit import Kit
from servicekit.postgres import Tx

ANSWERS = (HoldingsCounted,)


def participant(holdings: Sequence[Holding]) -> Consumes:
    """Reads `privacy.commands` and answers on the system's own replies topic, in the transaction that read the rows."""

    async def answer(kit: Kit, tx: Tx, batch: Batch) -> None:
        for received in batch.events:
            asked = received.event
            counts = [await holding.count(tx, asked.subject_id) for holding in holdings]
            await tx.emit(
                HoldingsCounted(
                    request_id=asked.request_id,
                    subject_id=asked.subject_id,
                    system=kit.name,
                    row_count=sum(counts),
                )
            )

    return Consumes((PRIVACY_COMMANDS,), contracts=(CountHoldings,), apply=answer, reader="participant", inbox=True)
