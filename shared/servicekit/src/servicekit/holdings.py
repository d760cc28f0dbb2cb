"""`Holding`: one declaration per table of personal data. What erases, exports and counts a person's rows is derived from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from event_contracts import PersonalData, Sealed
from servicekit.kit import Opening
from servicekit.postgres import Database, Record, Tx


@dataclass(frozen=True)
class Holding:
    """A table whose rows belong to one person each.

    `subject` and `anchor` are its uuid columns that say whose a row is and what its life hangs on; `sealed` its `bytea`
    columns with their models; `plain` the other columns, none of them personal (ids, times, codes, numbers). A table that
    `outlives` the person's data has no sealed column, and other people's or still open work hangs on its rows.
    """

    table: str
    subject: str
    anchor: str
    sealed: Mapping[str, type[PersonalData]]
    plain: Sequence[str] = field(default_factory=tuple)
    outlives: bool = False

    def __post_init__(self) -> None:
        if self.outlives and self.sealed:
            raise TypeError(f"{self.table} holds sealed values, so its rows go with the person's data")

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.subject, self.anchor, *self.sealed, *self.plain)))

    async def count(self, tx: Tx | Database, subject: UUID) -> int:
        """How many rows of the person there are: the probe."""
        rows: int = await tx.fetchval(
            f"-- Holding.count\nSELECT count(*) FROM {self.table} WHERE {self.subject} = $1", subject
        )
        return rows

    def openings(self, row: Record) -> dict[str, Opening[Any]]:
        """What of a row is sealed, by column, with what binds it stated by the row."""
        return {
            column: Opening(Sealed(row[column]), model, row[self.subject], row[self.anchor])
            for column, model in self.sealed.items()
            if row[column] is not None
        }

    async def erase(self, tx: Tx, subject: UUID, anchors: Sequence[UUID] | None = None) -> int:
        """Deletes the person's rows, of these anchors or all. Returns how many went."""
        if self.outlives:
            return 0
        status = await tx.execute(
            f"""-- Holding.erase
            DELETE FROM {self.table} WHERE {self.subject} = $1 AND ($2::uuid[] IS NULL OR {self.anchor} = ANY($2))""",
            subject,
            None if anchors is None else list(anchors),
        )
        return int(status.split()[-1])
