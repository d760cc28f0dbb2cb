"""Where a package's content comes from: sealed parts, opened a few at a time, and the tables of inventory and looks."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self
from uuid import UUID

from event_contracts import Erased, Sealed
from event_contracts.privacy import ExportPart
from privacy_service.export import store
from privacy_service.export.domain import PartName
from servicekit import Kit, Opening
from servicekit.core.errors import Conflict
from servicekit.vault.client import LeaseName

PURPOSE: Final = "rights_request"
# A part has up to 900,000 characters, so this bounds the memory that one download needs.
PARTS_AT_ONCE: Final = 4
ROWS_AT_ONCE: Final = 500


@dataclass(frozen=True)
class Parts:
    """The `Source` of one export's package. `opened` are the keys that were used for it."""

    kit: Kit
    request_id: UUID
    names: Sequence[PartName]
    opened: dict[UUID, LeaseName] = field(default_factory=dict)

    @classmethod
    async def of(cls, kit: Kit, request_id: UUID) -> Self:
        rows = await store.read_part_names(kit.db, request_id)
        names = [PartName(row["system"], row["subject_id"], row["attempt"], row["part"]) for row in rows]
        return cls(kit, request_id, names)

    async def contents(self, names: Sequence[PartName]) -> AsyncIterator[tuple[PartName, str]]:
        """Raises `Conflict` when a part was erased meanwhile, so that a package is whole or none."""
        for start in range(0, len(names), PARTS_AT_ONCE):
            page = names[start : start + PARTS_AT_ONCE]
            # Each page is a unit of work: an erasure waits for one of them, and never for who reads the package.
            async with self.kit.work():
                opened = await self._open(page)
            for name, part in zip(page, opened, strict=True):
                yield name, part.rows

    async def _open(self, page: Sequence[PartName]) -> list[ExportPart]:
        keys = [(name.subject_id, name.system, name.attempt, name.part) for name in page]
        rows = await store.read_contents(self.kit.db, self.request_id, keys)
        if len(rows) != len(page) or any(row["content"] is None for row in rows):
            raise Conflict(_GONE)
        openings = [
            Opening(Sealed[ExportPart](row["content"]), ExportPart, row["subject_id"], self.request_id) for row in rows
        ]
        self.opened.update((opening.sealed.key_id, opening.lease) for opening in openings)
        parts = await self.kit.open_many(openings, purpose=PURPOSE)
        whole = [part for part in parts if not isinstance(part, Erased)]
        if len(whole) != len(parts):
            raise Conflict(_GONE)
        return whole

    async def check(self) -> None:
        """To be called right before what was opened is sent. Raises `Conflict` when it was erased since."""
        if not self.kit.vault.is_live(PURPOSE, self.opened):
            keys = await self.kit.vault.lease(PURPOSE, list(self.opened.values()))
            if any(isinstance(key, Erased) for key in keys):
                raise Conflict(_GONE)

    async def disclosures(self) -> AsyncIterator[Sequence[Mapping[str, Any]]]:
        after = None
        while True:
            rows = await store.read_disclosures(self.kit.db, self.request_id, after, ROWS_AT_ONCE)
            if not rows:
                return
            yield [
                {
                    "subject_id": str(row["subject_id"]),
                    "about": str(row["anchor"]),
                    "data_class": row["data_class"],
                    "recipient": row["carrier"],
                    "lane": row["lane"],
                    "lane_version": row["lane_version"],
                    "fields": row["fields"],
                    "first_sent": row["first_seen"].isoformat(),
                    "last_sent": row["last_seen"].isoformat(),
                }
                for row in rows
            ]
            after = (rows[-1]["first_seen"], rows[-1]["place"])

    async def looks(self) -> AsyncIterator[Sequence[Mapping[str, Any]]]:
        after = 0
        while True:
            rows = await store.read_looks(self.kit.db, self.request_id, after, ROWS_AT_ONCE)
            if not rows:
                return
            yield [
                {
                    "subject_id": str(row["subject_id"]),
                    "at": row["looked_at"].isoformat(),
                    "role": row["role"],
                    "kind": row["kind"],
                }
                for row in rows
            ]
            after = rows[-1]["look_id"]


_GONE: Final = "Part of this data was erased while it was handed over. Open a new request for what is left."
