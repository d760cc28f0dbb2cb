"""Access requests of the fixture `shop`, with participants that hand over rows, and packages that are read again."""

import csv
import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx

from event_contracts import Event, Sealed
from event_contracts.privacy import ExportHoldings, ExportPart, HoldingsExported
from privacy_service.export.handlers import end_exports
from tests.support.rights import SYSTEMS, Shop

Rows = Sequence[Mapping[str, Any]]
# What each system hands over: (table, rows) for each part.
Held = Mapping[str, Sequence[tuple[str, Rows]]]


@dataclass(frozen=True)
class Package:
    """A package as it was fetched."""

    content: bytes

    @property
    def zip(self) -> zipfile.ZipFile:
        return zipfile.ZipFile(io.BytesIO(self.content))

    def text(self, path: str) -> str:
        return self.zip.read(path).decode()

    def json(self, path: str) -> Any:
        return json.loads(self.text(path))

    def csv(self, path: str) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(self.text(path).removeprefix("\ufeff"))))

    def check_hashes(self) -> int:
        """Every file but the manifest is in it, with its hash. Returns how many there are."""
        listed = {each["path"]: each for each in self.json("manifest.json")["files"]}
        assert listed.keys() | {"manifest.json"} == set(self.zip.namelist())
        for path, each in listed.items():
            data = self.zip.read(path)
            assert (each["bytes"], each["sha256"]) == (len(data), hashlib.sha256(data).hexdigest()), path
        return len(listed)


async def open_access(shop: Shop, client: httpx.AsyncClient, *subjects: UUID, kind: str = "access") -> UUID:
    await shop.knows(*subjects)
    body = {"kind": kind, "subject_ids": [str(s) for s in subjects], "identity_check": "callback"}
    answer = await client.post("/v1/requests", json=body, headers=shop.staff())
    assert answer.status_code == 201, answer.text
    return UUID(answer.json()["request_id"])


async def parts_of(shop: Shop, command: ExportHoldings, held: Held, attempt: int = 1) -> list[Event]:
    """What all systems answer: the parts of each, then one that is the last and empty, as the kit does it."""
    found: list[Event] = []
    for system in SYSTEMS:
        parts = list(held.get(system, ()))
        for number, (table, rows) in enumerate(parts, start=1):
            sealed = await seal(shop, command, table, rows)
            found.append(part(command, system, attempt, number, sealed, len(rows)))
        found.append(part(command, system, attempt, len(parts) + 1, None, 0, is_last=True))
    return found


async def seal(shop: Shop, command: ExportHoldings, table: str, rows: Rows) -> Sealed[ExportPart]:
    content = ExportPart(rows=json.dumps({"table": table, "rows": list(rows)}))
    sealed = await shop.kit.seal(content, subject=command.subject_id, anchor=command.request_id)
    shop.vault.keys[command.subject_id, "export", command.request_id] = sealed.key_id
    return sealed


def part(
    command: ExportHoldings,
    system: str,
    attempt: int,
    number: int,
    content: Sealed[ExportPart] | None,
    rows: int,
    *,
    is_last: bool = False,
) -> HoldingsExported:
    return HoldingsExported(
        request_id=command.request_id,
        subject_id=command.subject_id,
        system=system,
        attempt=attempt,
        part=number,
        is_last=is_last,
        row_count=rows,
        content=content,
    )


async def make_ready(shop: Shop, held: Held) -> None:
    """Everybody hands over, until the package may be fetched."""
    await shop.work()
    for command in await shop.asked():
        assert isinstance(command, ExportHoldings)
        await shop.hear(*await parts_of(shop, command, held))
    await shop.settle()


async def link(shop: Shop, client: httpx.AsyncClient, request_id: UUID) -> str:
    answer = await client.post(f"/v1/requests/{request_id}/link", headers=shop.staff())
    assert answer.status_code == 201, answer.text
    return str(answer.json()["url_path"])


async def destroy_ended(shop: Shop) -> None:
    """The job, and what the list of revocations then tells every holder of the keys."""
    await end_exports(shop.kit)
    vault: Any = shop.kit.vault
    vault.erased |= {key for key, state in shop.vault.states.items() if state == "destroyed"}
    vault.keys = {name: key for name, key in vault.keys.items() if key.key_id not in vault.erased}
