"""What a revocation does to keys, pure: which keys change their state, and which entries say so."""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple
from uuid import UUID

from event_contracts.vault_api import Entry, RevocationAction
from servicekit.core.revocation_list import MOST_KEYS, make_entry
from vault_service.domain import StoredKey

State = Literal["active", "held", "fenced", "destroyed"]
# A key only ever goes forward.
ORDER: Final[Mapping[str, int]] = {"active": 0, "held": 1, "fenced": 2, "destroyed": 3}
AFTER: Final[Mapping[RevocationAction, State]] = {"hold": "held", "fence": "fenced", "destroy": "destroyed"}


class Case(NamedTuple):
    """One request about one person."""

    request_id: UUID
    subject: UUID


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be fenced in a case. `data_classes` None: all; `anchors` None: all; `held`: (class, anchor) names."""

    case: Case
    data_classes: tuple[str, ...] | None
    anchors: tuple[UUID, ...] | None
    held: frozenset[tuple[str, UUID]]

    @property
    def is_final(self) -> bool:
        return self.data_classes is None and self.anchors is None

    @property
    def scopes(self) -> list[tuple[str | None, UUID | None]]:
        """(class, anchor) each; None is all of them."""
        return [(name, anchor) for name in self.data_classes or [None] for anchor in self.anchors or [None]]


@dataclass(slots=True)
class FoundKey:
    """A key of a case, with its state and fingerprint, which `plan` moves on. `stored` holds no bytes once destroyed."""

    stored: StoredKey
    state: State
    fingerprint: bytes | None

    @property
    def key_id(self) -> UUID:
        return self.stored.key_id


@dataclass(slots=True)
class Named:
    """What the list says of a case already: its last entry's number, the keys that it names, and whether it fences."""

    number: int = 0
    key_ids: set[UUID] = field(default_factory=set)
    fences: bool = False
    fences_finally: bool = False

    def add(self, number: int, action: RevocationAction, is_final: bool, key_ids: Iterable[UUID]) -> None:
        self.number = max(self.number, number)
        self.key_ids.update(key_ids)
        if action == "fence":
            self.fences, self.fences_finally = True, self.fences_finally or is_final


@dataclass(frozen=True, slots=True)
class Draft:
    """An entry without its place in the list."""

    action: RevocationAction
    case: Case
    is_final: bool
    keys: tuple[FoundKey, ...]


def fence(wanted: Wanted, keys: Sequence[FoundKey], named: Named, is_final: bool) -> list[Draft]:
    """The entries of one revocation; none if the list says all of it already. Moves the keys to their new states.

    Keys that another request has fenced are named again, so that each request can destroy, and account for, its own.
    """
    moved: dict[RevocationAction, list[FoundKey]] = {"hold": [], "fence": []}
    for key in keys:
        if key.state == "destroyed":
            continue
        is_held = key.state != "fenced" and (key.stored.name.data_class, key.stored.name.anchor) in wanted.held
        action: RevocationAction = "hold" if is_held else "fence"
        if key.state != AFTER[action] or key.key_id not in named.key_ids:
            key.state = AFTER[action]
            moved[action].append(key)
    says_so = named.fences_finally if wanted.is_final else named.fences
    drafts = _drafts("hold", wanted.case, is_final, moved["hold"])
    # The fence itself is an entry, also of a person without keys: participants learn from it that the person is gone.
    return drafts + _drafts("fence", wanted.case, is_final, moved["fence"], even_empty=not says_so)


def destroy(case: Case, keys: Sequence[FoundKey], is_final: bool) -> list[Draft]:
    """The entries that destroy what is fenced of a case. Moves these keys to their new state."""
    moved = [key for key in keys if key.state == "fenced"]
    for key in moved:
        key.state = "destroyed"
    return _drafts("destroy", case, is_final, moved)


def _drafts(
    action: RevocationAction, case: Case, is_final: bool, keys: Sequence[FoundKey], even_empty: bool = False
) -> list[Draft]:
    starts = range(0, max(len(keys), 1) if even_empty else len(keys), MOST_KEYS)
    return [Draft(action, case, is_final, tuple(keys[start : start + MOST_KEYS])) for start in starts]


def number(drafts: Iterable[Draft], after: int, previous_hash: str) -> list[Entry]:
    """The drafts as entries that follow on entry `after`."""
    entries = []
    for place, draft in enumerate(drafts, start=after + 1):
        entry = make_entry(
            place,
            draft.action,
            *draft.case,
            is_final=draft.is_final,
            key_ids=[key.key_id for key in draft.keys],
            previous_hash=previous_hash,
        )
        previous_hash = entry.hash
        entries.append(entry)
    return entries


def replay(entries: Iterable[Entry], keys: Mapping[UUID, FoundKey]) -> Set[UUID]:
    """Move keys to the states that these entries say; keys that are not there are passed over. Returns who moved."""
    moved = set()
    for entry in entries:
        state = AFTER[entry.action]
        for key in filter(None, map(keys.get, entry.key_ids)):
            if ORDER[key.state] < ORDER[state]:
                key.state = state
                moved.add(key.key_id)
    return moved
