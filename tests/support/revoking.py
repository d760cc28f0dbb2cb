"""What a test asks of a vault's list of revocations over HTTP, and where it ends: in the database and in its file."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import httpx
import msgspec

from deploy.local.databases import Dsn, execute
from deploy.local.http import open_http
from deploy.local.services import ServiceProcess
from event_contracts import Erased
from event_contracts.vault_api import Entry
from servicekit.vault.leases import KeyName
from servicekit.vault.token import SealingKey
from tests.support.vaults import World, bearer, leases, post

Json = dict[str, Any]
PRIVACY = "privacy"


@dataclass(frozen=True)
class Case:
    """One request about one person, as the privacy service sends it. By default it is final."""

    subject: UUID
    request_id: UUID = field(default_factory=uuid4)
    data_classes: tuple[str, ...] | None = None
    anchors: tuple[UUID, ...] | None = None
    held: tuple[KeyName, ...] = ()

    def body(self) -> Json:
        held = [{"data_class": name.data_class, "anchor": str(name.anchor)} for name in self.held]
        anchors = None if self.anchors is None else [str(anchor) for anchor in self.anchors]
        who = {"request_id": str(self.request_id), "subject": str(self.subject)}
        return {**who, "data_classes": self.data_classes, "anchors": anchors, "held": held}


@dataclass(frozen=True)
class Asking:
    """One vault process of a world, asked by the services themselves."""

    world: World
    process: ServiceProcess

    async def revoke(self, *cases: Case) -> list[Json]:
        """The answers, in the same order."""
        answer = await self.post(PRIVACY, "/v1/revocations", {"revocations": [case.body() for case in cases]})
        assert answer.status_code == 200, answer.text
        return list(answer.json()["revocations"])

    async def destroy(self, *request_ids: UUID) -> Json:
        body = {"request_ids": [str(each) for each in request_ids]}
        answer = await self.post(PRIVACY, "/v1/revocations/destroy", body)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def ensure(self, *wanted: KeyName) -> list[SealingKey]:
        """As a service that has no key of these yet."""
        return await self.world.client(self.process, "order").ensure(wanted)

    async def generations(self, *wanted: KeyName) -> list[int]:
        """Of the keys that a writer gets."""
        keys = [{k: str(v) for k, v in name._asdict().items()} for name in wanted]
        answer = await self.post("order", "/v1/keys/ensure", {"keys": keys})
        assert answer.status_code == 200, answer.text
        return [key["generation"] for key in answer.json()["keys"]]

    async def can_open(self, service: str, purpose: str, name: KeyName, key: SealingKey) -> bool:
        """For a process that has no lease of it yet. False: it reads as erased."""
        (found,) = await self.world.client(self.process, service).lease(purpose, leases([name], [key]))
        assert found == Erased(key.key_id) or isinstance(found, SealingKey)
        return isinstance(found, SealingKey)

    async def post(self, service: str, path: str, body: object) -> httpx.Response:
        return await post(self.world, self.process, service, path, body)

    async def get(self, service: str, path: str) -> httpx.Response:
        return await self._request(service, "GET", path)

    async def delete(self, service: str, path: str) -> httpx.Response:
        return await self._request(service, "DELETE", path)

    async def head(self) -> tuple[str, int]:
        """Incarnation, and the number of the last entry."""
        answer = (await self.get("order", "/v1/revocations?after=0&limit=1")).json()
        return answer["incarnation"], answer["head"]

    async def waiting_for(self, number: int) -> list[Json]:
        answer = await self.get(PRIVACY, f"/v1/drained?number={number}")
        assert answer.status_code == 200, answer.text
        found = answer.json()
        assert found["drained"] == (not found["waiting_for"])
        return list(found["waiting_for"])

    async def _request(self, service: str, method: str, path: str) -> httpx.Response:
        headers = bearer(self.world.identity(service).token())
        async with open_http(self.process.url, headers=headers) as http:
            return await http.request(method, path)


def of_one_person(*data_classes: str) -> list[KeyName]:
    """A name for each class, all of one person, each with an anchor of its own."""
    subject = uuid4()
    return [KeyName(subject, data_class, uuid4()) for data_class in data_classes]


def states(answer: Json) -> dict[tuple[str, UUID], str]:
    """The state of each key of one revocation's answer, by class and anchor; of several generations the last one."""
    return {(key["data_class"], UUID(key["anchor"])): key["state"] for key in answer["keys"]}


async def listed(world: World, request_id: UUID | None = None) -> list[Entry]:
    """The list, or one request's part of it, as the database has it."""
    rows = await world.sql(
        "SELECT number, action::text, request_id, subject_id AS subject, is_final, key_ids,"
        " encode(previous_hash, 'hex') AS previous_hash, encode(hash, 'hex') AS hash"
        " FROM revocations WHERE $1::uuid IS NULL OR request_id = $1 ORDER BY number",
        request_id,
    )
    return [Entry(**dict(row)) for row in rows]


def filed(world: World) -> list[Entry]:
    """The list as its file has it."""
    lines = (world.folder / "revocations.jsonl").read_bytes().splitlines()
    return [msgspec.convert(json.loads(line)["entry"], Entry) for line in lines]


async def end_state(world: World, case: Case, names: Sequence[KeyName]) -> Json:
    """All that the vault has of a case, with nothing in it that differs from one case to the next of the same shape."""
    places = {name.anchor: place for place, name in enumerate(names)}
    keys = await world.sql(
        "SELECT key_id, data_class, anchor, generation, state::text, wrapped IS NULL AS is_empty,"
        " fingerprint IS NOT NULL AS has_fingerprint FROM keys WHERE subject_id = $1",
        case.subject,
    )
    by_id = {row["key_id"]: (row["data_class"], places[row["anchor"]], row["generation"]) for row in keys}
    fences = await world.sql("SELECT data_class, generation FROM fences WHERE subject_id = $1", case.subject)
    return {
        "keys": sorted((*by_id[row["key_id"]], *list(row)[4:]) for row in keys),
        "fences": [tuple(row) for row in fences],
        "entries": [
            (entry.action, entry.is_final, sorted(by_id[key_id] for key_id in entry.key_ids))
            for entry in await listed(world, case.request_id)
        ],
    }


class Backup:
    """A copy of the vault's database as it is now. Nobody may be connected to it, neither now nor when it comes back."""

    def __init__(self, admin_dsn: str, world: World) -> None:
        app, owner = Dsn.parse(world.app_dsn), Dsn.parse(world.owner_dsn)
        self._admin, self._name, self._app = admin_dsn, app.database, app.user
        execute(admin_dsn, f'CREATE DATABASE "{self._copy}" OWNER "{owner.user}" TEMPLATE "{self._name}"')

    @property
    def _copy(self) -> str:
        return f"{self._name}_before"

    def restore(self) -> None:
        """In the place of the database as it has become, which is dropped."""
        self._run(
            f'DROP DATABASE "{self._name}" WITH (FORCE)',
            f'ALTER DATABASE "{self._copy}" RENAME TO "{self._name}"',
            f'GRANT CONNECT ON DATABASE "{self._name}" TO "{self._app}"',
        )

    def drop(self) -> None:
        self._run(f'DROP DATABASE IF EXISTS "{self._copy}" WITH (FORCE)')

    def _run(self, *statements: str) -> None:
        execute(self._admin, *statements)


def numbers(entries: Iterable[Entry]) -> list[int]:
    return [entry.number for entry in entries]
