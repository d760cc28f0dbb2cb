"""A probe asks all participants how much they hold about a person, keeps their replies, and names the silent ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid4

from event_contracts.privacy import CountHoldings, HoldingsCounted
from privacy_service.inventory.access_records import record_access
from privacy_service.participants import participants
from privacy_service.probes import store
from servicekit import Kit, Received, Staff, Tx
from servicekit.core.errors import NotFound


@dataclass(frozen=True, slots=True)
class ProbeReply:
    """The reply of one participant. `row_count` None: it has not replied yet, which does not mean that it holds nothing."""

    system: str
    row_count: int | None
    answered_at: datetime | None


@dataclass(frozen=True, slots=True)
class Probe:
    request_id: UUID
    subject_id: UUID
    asked_at: datetime
    replies: list[ProbeReply]


async def probe_subject(kit: Kit, who: Staff, subject_id: UUID) -> UUID:
    """Ask all participants. The access of the staff member is recorded in the same transaction."""
    request_id = uuid4()

    async def work(tx: Tx) -> None:
        now = kit.clock.now()
        await record_access(tx, who.staff_id, who.role, now, "probe", [subject_id])
        await store.write_probe(tx, request_id, subject_id, now)
        await tx.emit(CountHoldings(request_id=request_id, subject_id=subject_id))

    await kit.run_tx("probe_subject", work)
    return request_id


async def read_probe(kit: Kit, request_id: UUID) -> Probe:
    """Raises `NotFound`."""
    probe = await store.read_probe(kit.db, request_id)
    if probe is None:
        raise NotFound
    said = {row["system"]: row for row in await store.read_replies(kit.db, request_id)}
    replies = [
        ProbeReply(name, said[name]["row_count"], said[name]["answered_at"])
        if name in said
        else ProbeReply(name, None, None)
        for name in participants(kit.policy)
    ]
    return Probe(request_id, probe["subject_id"], probe["asked_at"], replies)


async def on_holdings_counted(kit: Kit, tx: Tx, received: Sequence[Received[HoldingsCounted]]) -> None:
    """The replies of a batch."""
    await store.write_replies(tx, received)
