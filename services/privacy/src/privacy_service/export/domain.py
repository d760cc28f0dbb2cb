"""What a package is made of: facts about itself, names of parts, and what was found of each table. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from privacy_service.export.rows import Kind, Row, flatten
from servicekit.core.policy import Policy

# The index shows so much of each table, and of all; the rest stands in the files beside it.
SHOWN_ROWS: Final = 50
SHOWN_CHARACTERS: Final = 20_000
SHOWN_IN_ALL: Final = 400_000


@dataclass(frozen=True, slots=True)
class PartName:
    """A part that is stored sealed: whose, from whom, and its number within the attempt."""

    system: str
    subject_id: UUID
    attempt: int
    part: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What a package says about itself."""

    request_id: UUID
    kind: Kind
    made_at: datetime
    policy: Policy
    people: int


@dataclass
class Shown:
    """The first items of a list, and how many there are in all."""

    items: list[Mapping[str, Any]] = field(default_factory=list)
    count: int = 0


@dataclass
class Table:
    """What the first reading finds of one table of one system; `shown` are the rows for the index."""

    system: str
    name: str
    parts: list[PartName] = field(default_factory=list)
    columns: dict[str, None] = field(default_factory=dict)
    sealed: set[str] = field(default_factory=set)
    row_count: int = 0
    shown: list[list[tuple[str, str]]] = field(default_factory=list)
    characters: int = 0

    @property
    def path(self) -> str:
        return f"data/{self.system}/{self.name}"

    def note(self, name: PartName, rows: Sequence[Row], allowed: int) -> None:
        self.parts.append(name)
        self.row_count += len(rows)
        for row in rows:
            cells = list(flatten(row))
            self.columns.update(dict.fromkeys(column for column, _ in cells))
            self.sealed.update(column for column, value in row.items() if isinstance(value, dict))
            size = sum(len(column) + len(text) for column, text in cells)
            if len(self.shown) < SHOWN_ROWS and self.characters + size <= min(SHOWN_CHARACTERS, allowed):
                self.shown.append(cells)
                self.characters += size
