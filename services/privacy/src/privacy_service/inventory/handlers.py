"""What the inventory does: notes what the headers of events say, and answers staff, whose every look is recorded."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from event_contracts.account import ACCOUNT_EVENTS, ContactDisclosed
from event_contracts.logistics_gateway import SHIPMENT_EVENTS, DeliveryDisclosed
from privacy_service.evidence.handlers import append
from privacy_service.evidence.leaves import Disclosure
from privacy_service.inventory import store
from privacy_service.inventory.domain import (
    Fact,
    Receipt,
    facts_of,
    ledger_entry,
    mail_receipt_of,
    merge_facts,
    merge_receipts,
    receipt_of,
)
from privacy_service.inventory.looks import write_looks
from servicekit.auth import Staff
from servicekit.batches import Batch
from servicekit.cloudevents import RawRecord, Received, read_envelope, read_event, types_of
from servicekit.errors import Poison
from servicekit.kit import Kit
from servicekit.leases import KeyName
from servicekit.paging import Paging
from servicekit.policy import IndexKind
from servicekit.postgres import Record, Tx

DISCLOSURES: Final = types_of([DeliveryDisclosed])
MAILS: Final = types_of([ContactDisclosed])


@dataclass
class Noted:
    """What a batch says."""

    facts: list[Fact] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)
    disclosures: list[Disclosure] = field(default_factory=list)


async def read_headers(kit: Kit, batch: Batch) -> None:
    """Collects what the headers say; a record that says nothing sensible is rejected. No value of a sealed event is read."""
    noted = Noted()
    for record in batch.records:
        try:
            _read(kit, record, noted)
        except Poison as poison:
            batch.reject(record, poison.reason)
    batch.state = Noted(merge_facts(noted.facts), merge_receipts(noted.receipts), noted.disclosures)


def _read(kit: Kit, record: RawRecord, noted: Noted) -> None:
    envelope = read_envelope(record)
    # Only the owner can write to its topic, so another source is a mistake that would blame the wrong system.
    if envelope.source != kit.policy.topics[record.topic].owner:
        raise Poison("wrong_producer")
    facts = facts_of(envelope)
    # Law L10: a class without purpose, retention and recipients. It waits until the policy knows it.
    if any(fact.data_class not in kit.policy.classes for fact in facts):
        raise Poison("unknown_class")
    noted.facts += facts
    if record.topic == SHIPMENT_EVENTS:
        # The contracts of disclosures are the only ones that are read: they hold ids and codes, nothing sealed.
        disclosed = read_event(record, DISCLOSURES)
        if disclosed is not None:
            noted.receipts.append(receipt_of(disclosed.event, disclosed.time))
            noted.disclosures.append(_evidence_of(disclosed))
            noted.facts.append(ledger_entry(disclosed.event, envelope.source, disclosed.time))
    elif record.topic == ACCOUNT_EVENTS:
        mailed = read_event(record, MAILS)
        if mailed is not None:
            noted.receipts.append(mail_receipt_of(mailed.event, mailed.time))
            noted.disclosures.append(_evidence_of_mail(mailed))


def _evidence_of(disclosed: Received[DeliveryDisclosed]) -> Disclosure:
    event = disclosed.event
    return Disclosure(
        shipment_id=event.shipment_id,
        subject_id=event.subject_id,
        anchor=event.order_id,
        data_class=event.data_class,
        recipient=event.carrier,
        lane=event.lane,
        lane_version=event.lane_version,
        policy_version=event.policy_version,
        purpose=event.purpose,
        fields=event.fields,
        at=disclosed.time,
        leaf_id=disclosed.id,  # the event's own: read again, it is one leaf
    )


def _evidence_of_mail(mailed: Received[ContactDisclosed]) -> Disclosure:
    event = mailed.event
    return Disclosure(
        shipment_id=event.mail_id,
        subject_id=event.subject_id,
        anchor=event.subject_id,
        data_class=event.data_class,
        recipient=event.recipient,
        lane=event.template,
        lane_version=1,
        policy_version=event.policy_version,
        purpose=event.purpose,
        fields=event.fields,
        at=mailed.time,
        leaf_id=mailed.id,
    )


async def write_inventory(kit: Kit, tx: Tx, batch: Batch) -> None:
    """A few statements for the whole batch, and two more where something was disclosed."""
    noted: Noted = batch.state
    facts, receipts = await _of_the_living(tx, noted)
    if facts:
        await store.write_facts(tx, facts)
    if receipts:
        await store.write_receipts(tx, receipts)
    await append(tx, noted.disclosures)


async def _of_the_living(tx: Tx, noted: Noted) -> tuple[list[Fact], list[Receipt]]:
    """An event that comes late, or again, brings back no row about what was erased; the evidence keeps that it was disclosed."""
    named = {fact.subject_id for fact in noted.facts if fact.key_id is None}
    erased = await tx.erased_subjects(named | {receipt.subject_id for receipt in noted.receipts})
    revoked = await tx.revoked([fact.key_id for fact in noted.facts if fact.key_id is not None])
    facts = [
        fact
        for fact in noted.facts
        if (fact.subject_id not in erased if fact.key_id is None else fact.key_id not in revoked)
    ]
    return facts, [receipt for receipt in noted.receipts if receipt.subject_id not in erased]


async def find_subjects(kit: Kit, who: Staff, by: IndexKind, term: str) -> dict[UUID, list[KeyName]]:
    """Who stands behind the term, with what of theirs names it. The look is committed before the answer.

    Raises `Forbidden`, `TooMany`, `Unavailable`.
    """
    found: dict[UUID, list[KeyName]] = {}
    for name in sorted(await kit.vault.find(by, await kit.digest(by, term))):
        found.setdefault(name.subject, []).append(name)

    async def work(tx: Tx) -> None:
        await write_looks(tx, who.staff_id, who.role, kit.clock.now(), f"find_{by}", list(found))

    await kit.run_tx("find_subjects", work)
    return found


async def look_up_inventory(
    kit: Kit, who: Staff, subject_id: UUID, paging: Paging
) -> tuple[Sequence[Record], Sequence[Record]]:
    """A page of the person's inventory and the recipients of what is on it; the look is committed with it."""

    async def work(tx: Tx) -> tuple[list[Record], list[Record]]:
        await write_looks(tx, who.staff_id, who.role, kit.clock.now(), "inventory", [subject_id])
        rows = await store.read_inventory(tx, subject_id, paging)
        return rows, await store.read_recipients(tx, subject_id, [row["anchor"] for row in rows])

    return await kit.run_tx("look_up_inventory", work)
