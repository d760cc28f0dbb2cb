"""`Holding`: one declaration per table of personal data. What erases, exports and counts a person's rows is derived from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias
from uuid import UUID

from event_contracts import PersonalData, Sealed
from event_contracts.moments import bounded
from event_contracts.personal import SealedPart
from event_contracts.privacy import ExpiredItem, FindExpired, HeldItem
from servicekit.db.postgres import Database, Record, Tx
from servicekit.kit import Opening

# The class of ids, which need no key.
PSEUDONYM: Final = "pseudonym"


@dataclass(frozen=True, slots=True)
class Erasure:
    """What is to go of one person for one request: what these keys sealed, and if it `is_final` what has but their id."""

    request_id: UUID
    subject: UUID
    key_ids: Sequence[UUID]
    is_final: bool


# For tables with rules of their own, in the place of `Holding.erase`.
EraseWith: TypeAlias = Callable[[Tx, Sequence[Erasure]], Awaitable[dict[UUID, int]]]


@dataclass(frozen=True)
class Holding:
    """A table whose rows belong to one person each.

    `subject` and `anchor` are its uuid columns that say whose a row is and what its life hangs on; `sealed` its `bytea`
    columns with their models; `plain` the other columns, none of them personal (ids, times, codes, numbers). A table that
    `outlives` the person's data has no sealed column, and other people's or still open work hangs on its rows.

    `closed` is an SQL expression over the row `t`: when its anchor closed, NULL while that is open (an order under way);
    without it the class has no such moment. `unused` is another: since when nobody has used the anchor, NULL while
    somebody does; it counts for retention alone, and is no reason to hold anything. `clears` names plain columns that
    become NULL with a sealed one. `key` is a uuid column that names a key in place of a token. `erase_with` stands for
    `erase` where a table has rules of its own.
    """

    table: str
    subject: str
    anchor: str
    sealed: Mapping[str, type[PersonalData]]
    plain: Sequence[str] = field(default_factory=tuple)
    outlives: bool = False
    closed: str | None = None
    unused: str | None = None
    clears: Mapping[str, Sequence[str]] = field(default_factory=dict)
    key: str | None = None
    erase_with: EraseWith | None = None

    def __post_init__(self) -> None:
        if self.outlives and self.sealed:
            raise TypeError(f"{self.table} holds sealed values, so its rows go with the person's data")
        if not self.clears.keys() <= self.sealed.keys():
            raise TypeError(f"{self.table} clears columns with a column that is not sealed")

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.subject, self.anchor, *self.sealed, *self.plain)))

    async def count(self, tx: Tx | Database, subject: UUID) -> int:
        """How many rows of the person there are."""
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

    async def erase(self, tx: Tx, erasures: Sequence[Erasure]) -> dict[UUID, int]:
        """Erases of many people at once, each named once. Returns how many rows changed or went, by subject.

        A sealed column becomes NULL where its token names one of the keys; the row goes with the last of them. A row
        that has no key goes when its subject is erased for good, unless it `outlives` that.
        """
        if self.erase_with is not None:
            return await self.erase_with(tx, erasures)
        gone: dict[UUID, int] = {}
        for sql, args in self._erasing(erasures):
            for row in await tx.fetch(sql, *args):
                gone[row["subject"]] = gone.get(row["subject"], 0) + int(row["rows"])
        return gone

    def _erasing(self, erasures: Sequence[Erasure]) -> list[tuple[str, list[Any]]]:
        """The statements that erase, with their arguments: at most two, however many people."""
        steps: list[tuple[str, list[Any]]] = []
        keyed = _by_key(erasures)
        final = [erasure.subject for erasure in erasures if erasure.is_final]
        if self.has_keys and keyed[0]:
            delete = f"DELETE FROM {self.table} t USING u WHERE {self._hit} AND {self._left_empty}"
            steps.append((_counted("Holding.erase", delete, self._mine), keyed))
            if len(self.sealed) > 1:
                update = f"UPDATE {self.table} t SET {self._nulls} FROM u WHERE {self._hit}"
                steps.append((_counted("Holding.erase: columns", update, self._mine), keyed))
        if final and (bare := self._bare) is not None:
            delete = f"DELETE FROM {self.table} t WHERE {bare}"
            steps.append((_counted("Holding.erase: ids", delete, self._mine, keyed=False), [final]))
        return steps

    async def delete(self, tx: Tx, subject: UUID, anchor: UUID) -> bool:
        """Deletes the rows of one anchor because their owner wants it, and releases their keys; False when there are none.

        The system stores nothing under these keys again (`Fenced`), so a repeated request brings nothing back.
        """
        if not self.sealed:
            raise TypeError(f"{self.table} holds nothing sealed, so there is no key to release")
        rows = await tx.fetch(
            f"""-- Holding.delete
            DELETE FROM {self.table} WHERE {self.subject} = $1 AND {self.anchor} = $2 RETURNING {", ".join(self.sealed)}""",
            subject,
            anchor,
        )
        keys = {
            Sealed(row[column]).key_id: str(model.data_class)
            for row in rows
            for column, model in self.sealed.items()
            if row[column] is not None
        }
        await tx.release([SealedPart(data_class, subject, anchor, key_id) for key_id, data_class in keys.items()])
        return bool(rows)

    async def left(self, tx: Tx, erasures: Sequence[Erasure]) -> dict[UUID, int]:
        """The probe: how many rows are there that should be gone, by subject."""
        found: dict[UUID, int] = {}
        keyed = _by_key(erasures)
        final = [erasure.subject for erasure in erasures if erasure.is_final]
        queries: list[tuple[str, list[Any]]] = []
        if self.has_keys and keyed[0]:
            select = f"SELECT {self._mine} FROM {self.table} t, u WHERE {self._hit}"
            queries.append((f"-- Holding.left\n{_KEYS} {_grouped(select)}", keyed))
        if final and self.erase_with is None and (bare := self._bare) is not None:
            select = f"SELECT {self._mine} FROM {self.table} t WHERE {bare}"
            queries.append((f"-- Holding.left: ids\n{_grouped(select)}", [final]))
        for sql, args in queries:
            for row in await tx.fetch(sql, *args):
                found[row["subject"]] = found.get(row["subject"], 0) + int(row["rows"])
        return found

    async def describe(self, tx: Tx | Database, subjects: Sequence[UUID]) -> dict[UUID, list[HeldItem]]:
        """What there is of these people, by class and anchor. Rows that outlive the person are no part of it."""
        if self.outlives:
            return {}
        wanted = [(str(model.data_class), f"t.{column} IS NOT NULL") for column, model in self.sealed.items()]
        selects = [
            f"""SELECT {self._mine}, '{data_class}' AS data_class, t.{self.anchor} AS anchor, count(*) AS rows,
                       {self._is_open} AS is_open, max({self._closed_at}) AS closed_at
                FROM {self.table} t WHERE t.{self.subject} = ANY($1::uuid[]) AND {held} GROUP BY 1, 3"""
            for data_class, held in wanted or [(PSEUDONYM, "true")]
        ]
        found: dict[UUID, list[HeldItem]] = {}
        for row in await tx.fetch("-- Holding.describe\n" + " UNION ALL ".join(selects), list(subjects)):
            item = HeldItem(
                data_class=row["data_class"],
                anchor=row["anchor"],
                row_count=row["rows"],
                is_open=row["is_open"],
                closed_at=None if row["is_open"] or row["closed_at"] is None else bounded(row["closed_at"]),
            )
            found.setdefault(row["subject"], []).append(item)
        return found

    async def expired(self, tx: Tx | Database, asked: FindExpired, limit: int) -> list[ExpiredItem]:
        """Up to `limit` anchors of the class that closed, or were last used, before that time; the oldest first."""
        columns = [column for column, model in self.sealed.items() if model.data_class == asked.data_class]
        closed = self.unused if asked.unused else self.closed
        if closed is None or not columns:
            return []
        held = " OR ".join(f"t.{column} IS NOT NULL" for column in columns)
        rows = await tx.fetch(
            f"""-- Holding.expired
            SELECT subject, anchor, max(closed) AS closed_at
            FROM (SELECT t.{self.subject} AS subject, t.{self.anchor} AS anchor, {closed} AS closed
                  FROM {self.table} t WHERE {held}) r
            GROUP BY 1, 2 HAVING count(*) = count(closed) AND max(closed) < $1
               AND ($3::timestamptz IS NULL OR (max(closed), anchor) > ($3, $4::uuid))
            ORDER BY 3, 2 LIMIT $2""",
            asked.closed_before,
            limit,
            asked.after_closed_at,
            asked.after_anchor,
        )
        return [
            ExpiredItem(
                subject_id=row["subject"],
                data_class=asked.data_class,
                anchor=row["anchor"],
                closed_at=bounded(row["closed_at"]),
            )
            for row in rows
        ]

    @property
    def has_keys(self) -> bool:
        return bool(self.sealed) or self.key is not None

    @property
    def _mine(self) -> str:
        return f"t.{self.subject} AS subject"

    def _names(self, column: str) -> str:
        """Whether the column's token names one of the person's revoked keys: its bytes 2 to 17 (docs/token.md)."""
        return f"substring(t.{column} FROM 2 FOR 16) = ANY(u.keys)"

    @property
    def _hit(self) -> str:
        named = [self._names(column) for column in self.sealed]
        if self.key is not None:
            named.append(f"uuid_send(t.{self.key}) = ANY(u.keys)")
        return f"t.{self.subject} = u.subject AND ({' OR '.join(named)})"

    @property
    def _left_empty(self) -> str:
        """Whether nothing sealed is left of a row once the keys are gone."""
        if len(self.sealed) < 2:
            return "true"
        return " AND ".join(f"(t.{column} IS NULL OR {self._names(column)})" for column in self.sealed)

    @property
    def _nulls(self) -> str:
        """What a row looks like without what the keys sealed."""
        goes = [(column, column) for column in self.sealed]
        goes += [(plain, column) for column, cleared in self.clears.items() for plain in cleared]
        return ", ".join(
            f"{goer} = CASE WHEN {self._names(column)} THEN NULL ELSE t.{goer} END" for goer, column in goes
        )

    @property
    def _bare(self) -> str | None:
        """Which rows go with the person's id ($1: the subjects that are erased for good); None if none does."""
        if self.outlives or self.sealed:
            return None
        keyless = "" if self.key is None else f" AND t.{self.key} IS NULL"
        return f"t.{self.subject} = ANY($1::uuid[]){keyless}"

    @property
    def _is_open(self) -> str:
        return "false" if self.closed is None else f"bool_or({self.closed} IS NULL)"

    @property
    def _closed_at(self) -> str:
        return "NULL::timestamptz" if self.closed is None else self.closed


# $1 and $2: subject and key id of each key that is gone.
_KEYS: Final = """WITH u AS (
        SELECT subject, array_agg(uuid_send(key_id)) AS keys
        FROM unnest($1::uuid[], $2::uuid[]) AS k(subject, key_id) GROUP BY 1
    )"""


def _by_key(erasures: Sequence[Erasure]) -> list[Any]:
    return [
        [erasure.subject for erasure in erasures for _ in erasure.key_ids],
        [key_id for erasure in erasures for key_id in erasure.key_ids],
    ]


def _grouped(rows: str) -> str:
    return f"SELECT subject, count(*) AS rows FROM ({rows}) r GROUP BY 1"


def _counted(name: str, change: str, returning: str, *, keyed: bool = True) -> str:
    """A changing statement that says how many rows of each subject it changed."""
    given = f"{_KEYS}," if keyed else "WITH"
    return f"-- {name}\n{given} gone AS ({change} RETURNING {returning}) SELECT subject, count(*) AS rows FROM gone GROUP BY 1"
