"""Holds: the data of an erased person that stays, because of a law, an open order or a hold of staff. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from uuid import UUID

from event_contracts.moments import later
from event_contracts.privacy import HeldItem


class Basis(StrEnum):
    """Why data of an erased person stays: by itself, or since somebody set a hold by hand."""

    OPEN_ANCHOR = "open_anchor"
    LEGAL_OBLIGATION = "legal_obligation"
    LITIGATION = "litigation"
    TAX_AUDIT = "tax_audit"
    DISPUTE = "dispute"


@dataclass(frozen=True, slots=True, order=True)
class KeyRef:
    """What one key is for."""

    data_class: str
    anchor: UUID


@dataclass(frozen=True, slots=True)
class Scope:
    """The data that a request concerns: the classes (None: all), and for a retention request the key names."""

    data_classes: tuple[str, ...] | None = None
    names: frozenset[KeyRef] | None = None

    def covers(self, data_class: str, anchor: UUID) -> bool:
        if self.names is not None and KeyRef(data_class, anchor) not in self.names:
            return False
        return self.data_classes is None or data_class in self.data_classes


@dataclass(frozen=True, slots=True)
class Item:
    """What one system says that it holds."""

    system: str
    held: HeldItem


@dataclass(frozen=True, slots=True)
class ManualHold:
    """A hold that somebody set; `anchor` None: on all anchors of the class."""

    data_class: str
    anchor: UUID | None
    basis: Basis
    until: datetime | None


@dataclass(frozen=True, slots=True, order=True)
class Hold:
    """Why a name stays, and until when (None: until something happens). A name may have several."""

    data_class: str
    anchor: UUID
    basis: Basis
    until: datetime | None = field(default=None, compare=False)
    rows: int = field(default=0, compare=False)

    @property
    def name(self) -> KeyRef:
        return KeyRef(self.data_class, self.anchor)


def names_of(holds: Sequence[Hold]) -> frozenset[KeyRef]:
    return frozenset(hold.name for hold in holds)


def holds_on(
    items: Sequence[Item],
    manual: Sequence[ManualHold],
    scope: Scope,
    duties: Mapping[str, timedelta],
    now: datetime,
    longest_open: Mapping[str, timedelta] = MappingProxyType({}),
    before: Sequence[Hold] = (),
) -> tuple[Hold, ...]:
    """The holds on these items.

    `longest_open` says how long an open anchor of a class holds an erasure up, from the first of the holds `before` on.

    `duties` are the classes that a law makes us keep, with how long after the anchor closed. Of a class with a duty but
    without a known end nothing is given up: that is a hold without an end until its service knows one.
    """
    found: dict[Hold, Hold] = {}
    ends = _open_ends(before, duties)
    for item in items:
        held = item.held
        if not scope.covers(held.data_class, held.anchor):
            continue
        longest = longest_open.get(held.data_class)
        open_until = ends.get(KeyRef(held.data_class, held.anchor), None if longest is None else now + longest)
        for basis, until in _bases(held, manual, duties, now, open_until):
            hold = Hold(held.data_class, held.anchor, basis, until, held.row_count)
            found[hold] = _longer(found[hold], hold) if hold in found else hold
    return tuple(sorted(found.values()))


def _open_ends(before: Sequence[Hold], duties: Mapping[str, timedelta]) -> dict[KeyRef, datetime]:
    """When the open anchors of these holds end at the latest. One whose time is over has left its date in the duty to keep."""
    ends = {hold.name: hold.until for hold in before if hold.basis is Basis.OPEN_ANCHOR and hold.until is not None}
    for hold in before:
        if hold.basis is Basis.LEGAL_OBLIGATION and hold.until is not None and hold.data_class in duties:
            ends.setdefault(hold.name, hold.until - duties[hold.data_class])
    return ends


def _bases(
    held: HeldItem,
    manual: Sequence[ManualHold],
    duties: Mapping[str, timedelta],
    now: datetime,
    open_until: datetime | None,
) -> Iterator[tuple[Basis, datetime | None]]:
    closed_at = held.closed_at
    if held.is_open:
        is_over = open_until is not None and open_until <= now
        closed_at = open_until if is_over else None
        if not is_over:
            yield Basis.OPEN_ANCHOR, open_until
    duty = duties.get(held.data_class)
    if duty is not None:
        until = None if closed_at is None else later(closed_at, duty)
        if until is None or until > now:
            yield Basis.LEGAL_OBLIGATION, until
    for hold in manual:
        is_here = hold.data_class == held.data_class and hold.anchor in (None, held.anchor)
        if is_here and (hold.until is None or hold.until > now):
            yield hold.basis, hold.until


def _longer(one: Hold, other: Hold) -> Hold:
    """Several systems may hold the same: the longest counts, and no end is the longest."""
    ends = (one.until, other.until)
    until = None if None in ends else max(end for end in ends if end is not None)
    return replace(one, until=until, rows=one.rows + other.rows)
