"""What events say about who holds what. Pure. Replays, duplicates and disorder change nothing: merging is order-free."""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Final, TypeVar
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from event_contracts.account import ContactDisclosed
from event_contracts.logistics_gateway import DeliveryDisclosed
from event_contracts.privacy import PRIVACY_COMMANDS
from event_contracts.topics import REVOCATIONS, system_replies
from servicekit.core.errors import Invalid
from servicekit.core.policy import Policy
from servicekit.kafka.cloudevents import Envelope

PSEUDONYM: Final = "pseudonym"
# Orders facts that were seen at the same moment; no key has this id.
NO_KEY: Final = UUID(int=0)


class NoMatch(Invalid):
    """No event names this id as an account, a guest or a consignee, so nothing was opened. Find the person, then ask again."""

    code = "no_match"


class Fact(Struct, frozen=True):
    """A system holds data of one class about a person; `key_id` is the key of the last event that said so."""

    subject_id: UUID
    system: str
    data_class: str
    anchor: UUID
    key_id: UUID | None
    first_seen: datetime
    last_seen: datetime

    @property
    def name(self) -> tuple[int, str, str, int]:
        # Numbers: to hash and to compare ids costs as much as to read them.
        return self.subject_id.int, self.system, self.data_class, self.anchor.int

    def merged(self, other: "Fact") -> "Fact":
        latest = max(self, other, key=lambda fact: (fact.last_seen, fact.key_id or NO_KEY))
        first = min(self.first_seen, other.first_seen)
        return latest if latest.first_seen == first else replace(latest, first_seen=first)


class Receipt(Struct, frozen=True):
    """A carrier, or the mail provider by a template as lane, received these fields of one class about a person."""

    subject_id: UUID
    anchor: UUID
    data_class: str
    carrier: str
    lane: str
    lane_version: int
    fields: frozenset[str]
    first_seen: datetime
    last_seen: datetime

    @property
    def name(self) -> tuple[int, int, str, str, str, int]:
        return self.subject_id.int, self.anchor.int, self.data_class, self.carrier, self.lane, self.lane_version

    def merged(self, other: "Receipt") -> "Receipt":
        return replace(
            self,
            fields=self.fields | other.fields,
            first_seen=min(self.first_seen, other.first_seen),
            last_seen=max(self.last_seen, other.last_seen),
        )


def event_topics(policy: Policy) -> tuple[str, ...]:
    """The topics of domain events: all of the policy but commands, answers to them and the list of revocations."""
    others = {PRIVACY_COMMANDS, REVOCATIONS, *map(system_replies, policy.systems)}
    return tuple(sorted(policy.topics.keys() - others))


def facts_of(envelope: Envelope) -> list[Fact]:
    """What the header of one event says about its producer."""
    return [
        Fact(part.subject, envelope.source, part.data_class, part.anchor, part.key_id, envelope.time, envelope.time)
        for part in envelope.sealed
    ]


def receipt_of(event: DeliveryDisclosed, time: datetime) -> Receipt:
    """What a disclosure says about its recipient."""
    return Receipt(
        event.subject_id,
        event.order_id,
        event.data_class,
        event.carrier,
        event.lane,
        event.lane_version,
        frozenset(event.fields),
        time,
        time,
    )


def mail_receipt_of(event: ContactDisclosed, time: datetime) -> Receipt:
    """What a mail says about its recipient: the template stands for the lane."""
    fields = frozenset(event.fields)
    me = event.subject_id
    return Receipt(me, me, event.data_class, event.recipient, event.template, 1, fields, time, time)


def ledger_entry(event: DeliveryDisclosed, system: str, time: datetime) -> Fact:
    """Whoever disclosed keeps a ledger with the person's id."""
    return Fact(event.subject_id, system, PSEUDONYM, event.order_id, None, time, time)


def merge_facts(facts: Iterable[Fact]) -> list[Fact]:
    """One of each name, in the order of names: transactions that write the same rows cannot deadlock."""
    return _merge(facts, lambda fact: fact.name, Fact.merged)


def merge_receipts(receipts: Iterable[Receipt]) -> list[Receipt]:
    """As `merge_facts`."""
    return _merge(receipts, lambda receipt: receipt.name, Receipt.merged)


T = TypeVar("T")


def _merge(items: Iterable[T], name: Callable[[T], tuple[object, ...]], merged: Callable[[T, T], T]) -> list[T]:
    found: dict[tuple[object, ...], T] = {}
    for item in items:
        key = name(item)
        found[key] = item if key not in found else merged(found[key], item)
    return [found[each] for each in sorted(found)]
