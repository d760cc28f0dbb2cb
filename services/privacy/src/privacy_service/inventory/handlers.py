"""The inventory keeps what the headers of events say. Staff search it, and each access is recorded."""

from collections.abc import Mapping, Sequence
from typing import Final, Literal
from uuid import UUID

from msgspec import Struct

from event_contracts.account import ACCOUNT_EVENTS, ContactDisclosed
from event_contracts.logistics_gateway import SHIPMENT_EVENTS, DeliveryDisclosed
from event_contracts.order import ORDER_EVENTS, OrderClosed, TaxRecordRead
from evidence_log.handlers import append
from evidence_log.leaves import Disclosure, OrderClosing, leaf_id_of
from privacy_service.inventory import store
from privacy_service.inventory.access_records import record_access, record_reported_access
from privacy_service.inventory.domain import (
    Fact,
    NoMatch,
    Receipt,
    facts_of,
    ledger_entry,
    mail_receipt_of,
    merge_facts,
    merge_receipts,
    receipt_of,
)
from servicekit import Kit, Paging, Received, Record, RecordId, Staff, Tx
from servicekit.core.errors import Poison
from servicekit.core.policy import IndexKind
from servicekit.kafka.cloudevents import RawRecord, read_envelope, read_event, types_of
from servicekit.vault.leases import KeyName

DISCLOSURES: Final = types_of([DeliveryDisclosed])
MAILS: Final = types_of([ContactDisclosed])
REPORTED_LOOKS: Final = types_of([TaxRecordRead])
CLOSINGS: Final = types_of([OrderClosed])

# What staff search by, and the blind indexes that are looked into for it: an order has our number and may have the shop's.
Term = Literal["email", "phone", "order_number"]
_INDEXES: Final[Mapping[Term, tuple[IndexKind, ...]]] = {
    "email": ("email",),
    "phone": ("phone",),
    "order_number": ("order_number", "shop_order_number"),
}


class Noted(Struct, frozen=True):
    """What one event says: who holds what; of a disclosure also the receipt; what is evidence; or that staff looked."""

    facts: list[Fact]
    receipt: Receipt | None = None
    evidence: Disclosure | OrderClosing | None = None
    look: Received[TaxRecordRead] | None = None


def read_headers(kit: Kit, record: RawRecord) -> Received[Noted]:
    """What the headers say. No value of a sealed event is read. Raises `Poison` for what says nothing sensible."""
    envelope = read_envelope(record)
    # Only the owner can write to its topic, so another source is a mistake that would blame the wrong system.
    if envelope.source != kit.policy.topics[record.topic].owner:
        raise Poison("wrong_producer")
    facts = facts_of(envelope)
    # Law L10: a class without purpose, retention and recipients. It waits until the policy knows it.
    if any(fact.data_class not in kit.policy.classes for fact in facts):
        raise Poison("unknown_class")
    noted = Noted(facts)
    # Only the contracts of what is evidence are read: they hold ids and codes, nothing sealed.
    if record.topic == SHIPMENT_EVENTS:
        disclosed = read_event(record, DISCLOSURES)
        if disclosed is not None:
            entry = ledger_entry(disclosed.event, envelope.source, disclosed.time)
            noted = Noted([*facts, entry], receipt_of(disclosed.event, disclosed.time), _evidence_of(disclosed))
    elif record.topic == ACCOUNT_EVENTS:
        mailed = read_event(record, MAILS)
        if mailed is not None:
            noted = Noted(facts, mail_receipt_of(mailed.event, mailed.time), _evidence_of_mail(mailed))
    elif record.topic == ORDER_EVENTS and envelope.type.startswith(TaxRecordRead.__name__):
        noted = Noted(facts, look=read_event(record, REPORTED_LOOKS))
    elif record.topic == ORDER_EVENTS:
        closed = read_event(record, CLOSINGS)
        if closed is not None:
            noted = Noted(facts, evidence=_evidence_of_closing(closed))
    return Received(noted, envelope.id, envelope.time, envelope.source, *record.id)


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


def _evidence_of_closing(closed: Received[OrderClosed]) -> OrderClosing:
    event = closed.event
    return OrderClosing(
        decision_id=event.decision_id,
        order_id=event.order_id,
        subject_id=event.buyer_id,
        staff_id=event.staff_id,
        role=event.role,
        reason=event.reason.value,
        at=closed.time,
        leaf_id=leaf_id_of(OrderClosing.kind, event.decision_id),
    )


async def write_inventory(kit: Kit, tx: Tx, events: Sequence[Received[Noted]], _: Mapping[RecordId, None]) -> None:
    """A few statements for the whole batch, and two more where something was disclosed."""
    noted = [received.event for received in events]
    facts, receipts = await _of_the_living(
        tx,
        merge_facts(fact for each in noted for fact in each.facts),
        merge_receipts(each.receipt for each in noted if each.receipt is not None),
    )
    if facts:
        await store.write_facts(tx, facts)
    if receipts:
        await store.write_receipts(tx, receipts)
    await append(tx, [each.evidence for each in noted if each.evidence is not None])
    await record_reported_access(tx, [each.look for each in noted if each.look is not None])


async def _of_the_living(
    tx: Tx, facts: Sequence[Fact], receipts: Sequence[Receipt]
) -> tuple[list[Fact], list[Receipt]]:
    """An event that comes late, or again, brings back no row about what was erased; the evidence keeps that it was disclosed."""
    named = {fact.subject_id for fact in facts if fact.key_id is None}
    erased = await tx.erased_subjects(named | {receipt.subject_id for receipt in receipts})
    revoked = await tx.revoked([fact.key_id for fact in facts if fact.key_id is not None])
    living = [
        fact for fact in facts if (fact.subject_id not in erased if fact.key_id is None else fact.key_id not in revoked)
    ]
    return living, [receipt for receipt in receipts if receipt.subject_id not in erased]


async def find_subjects(kit: Kit, who: Staff, by: Term, term: str) -> dict[UUID, list[KeyName]]:
    """The people behind the term, with what of theirs names it. The access is committed before the response.

    Raises `Forbidden`, `TooMany`, `Unavailable`.
    """
    found: dict[UUID, list[KeyName]] = {}
    names = [await kit.vault.find(kind, await kit.digest(kind, term)) for kind in _INDEXES[by]]
    for name in sorted({name for each in names for name in each}):
        found.setdefault(name.subject, []).append(name)

    async def work(tx: Tx) -> None:
        await record_access(tx, who.staff_id, who.role, kit.clock.now(), f"find_{by}", list(found))

    await kit.run_tx("find_subjects", work)
    return found


async def look_up_inventory(
    kit: Kit, who: Staff, subject_id: UUID, paging: Paging
) -> tuple[Sequence[Record], Sequence[Record]]:
    """A page of the person's inventory and the recipients of what is on it; the access is recorded with it."""

    async def work(tx: Tx) -> tuple[list[Record], list[Record]]:
        await record_access(tx, who.staff_id, who.role, kit.clock.now(), "inventory", [subject_id])
        rows = await store.read_inventory(tx, subject_id, paging)
        return rows, await store.read_recipients(tx, subject_id, [row["anchor"] for row in rows])

    return await kit.run_tx("look_up_inventory", work)


async def check_known(kit: Kit, subject_ids: Sequence[UUID]) -> None:
    """Staff ask only for people whom events name as account, guest or consignee. Raises `NoMatch` for any other id."""
    if not (await store.named_by_events(kit.db, subject_ids)).issuperset(subject_ids):
        raise NoMatch
