"""The vault's API for whoever seals, opens and looks up."""

from typing import Annotated, Any, Final, Literal
from uuid import UUID

import pybase64
from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import Response
from msgspec import Meta, Struct

from servicekit.core.errors import Invalid
from servicekit.http.admission import max_body
from servicekit.vault.client import IndexEntry, LeaseName
from servicekit.vault.leases import KeyName
from vault_service import handlers
from vault_service import lease_holders as holders
from vault_service.callers import caller
from vault_service.handlers import Newcomers, Vault
from vault_service.lease_holders_store import ANONYMOUS
from vault_service.payloads import answer, read_body
from vault_service.store import Head

LARGEST_BATCH: Final = 2000
_MAX_BODY: Final = 2_000_000

# Classes, purposes and kinds are plain strings: what the policy does not name is refused there, and faster.
_Digest = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{43}$")]  # base64url of 32 bytes, without padding
_Caller = Annotated[str, Depends(caller)]
_Holder = Annotated[UUID, Header(alias="X-Holder", description="The process that holds the keys on lease.")]


class KeyBody(Struct, frozen=True, forbid_unknown_fields=True):
    """`new`: it is for a new anchor of somebody, or for a new person, so a key that is gone is not made again."""

    subject: UUID
    data_class: str
    anchor: UUID
    new: Literal["anchor", "person"] | None = None


class LeaseBody(Struct, frozen=True, forbid_unknown_fields=True):
    key_id: UUID
    subject: UUID
    data_class: str
    anchor: UUID


class IndexBody(Struct, frozen=True, forbid_unknown_fields=True):
    kind: str
    digest: _Digest
    key: Annotated[int, Meta(ge=0, lt=LARGEST_BATCH)]


class EnsureBody(Struct, frozen=True, forbid_unknown_fields=True):
    keys: Annotated[list[KeyBody], Meta(min_length=1, max_length=LARGEST_BATCH)]
    index: Annotated[list[IndexBody], Meta(max_length=3 * LARGEST_BATCH)] = []


class LeasesBody(Struct, frozen=True, forbid_unknown_fields=True):
    purpose: str
    keys: Annotated[list[LeaseBody], Meta(min_length=1, max_length=LARGEST_BATCH)]


class FindBody(Struct, frozen=True, forbid_unknown_fields=True):
    kind: str
    digest: _Digest


def make_router(vault: Vault) -> APIRouter:
    """The routes; `app.state.callers` must hold the `Callers`."""
    router = APIRouter(prefix="/v1")

    @router.post("/keys/ensure", openapi_extra=max_body(_MAX_BODY))
    async def ensure(request: Request, service: _Caller, holder: _Holder = ANONYMOUS) -> Response:
        """A key for each name (subject, class, anchor), made where there is none. Answers after the commit.

        For something `new`: 410 when the name had a key that is gone, 409 `taken` when the person is another system's.
        """
        body = await read_body(request, EnsureBody)
        names = [KeyName(key.subject, key.data_class, key.anchor) for key in body.keys]
        if any(entry.key >= len(names) for entry in body.index):
            raise Invalid("An index entry names the position of a key that was not asked for.")
        index = [IndexEntry(entry.kind, _bytes(entry.digest), entry.key) for entry in body.index]
        new = Newcomers(
            frozenset(key.subject for key in body.keys if key.new == "person"),
            frozenset(name for name, key in zip(names, body.keys, strict=True) if key.new is not None),
        )
        await holders.note(vault, service, holder)
        head, keys = await handlers.ensure_keys(vault, service, names, index, new)
        found = [{"key_id": key.key_id, "generation": key.generation, "key": _text(raw)} for key, raw in keys]
        return answer({**_lease(vault, head), "keys": found})

    @router.post("/keys/lease", openapi_extra=max_body(_MAX_BODY))
    async def lease(request: Request, service: _Caller, holder: _Holder = ANONYMOUS) -> Response:
        """The keys of these ids for one purpose; of a fenced or destroyed one its state."""
        body = await read_body(request, LeasesBody)
        wanted = [LeaseName(key.key_id, key.subject, key.data_class, key.anchor) for key in body.keys]
        await holders.note(vault, service, holder)
        head, leases = await handlers.lease_keys(vault, service, body.purpose, wanted)
        found = [
            {"key_id": asked.key_id, "state": state, **({} if key is None else {"key": _text(key)})}
            for asked, (state, key) in zip(wanted, leases, strict=True)
        ]
        return answer({**_lease(vault, head), "keys": found})

    @router.get("/index-keys")
    async def index_keys(kinds: Annotated[str, Query(pattern=r"^[a-z_]+(,[a-z_]+)*$")], service: _Caller) -> Response:
        """The keys of these blind indexes (comma-separated kinds)."""
        keys = handlers.index_keys(vault, service, kinds.split(","))
        seconds = vault.policy.limits.lease_seconds
        return answer({"lease_seconds": seconds, "keys": {kind: _text(key) for kind, key in keys.items()}})

    @router.post("/directory/find")
    async def find(request: Request, service: _Caller) -> Response:
        """Whose active keys have this digest beside them."""
        body = await read_body(request, FindBody)
        names = await handlers.find_names(vault, service, body.kind, _bytes(body.digest))
        return answer({"found": [name._asdict() for name in names]})

    return router


def _lease(vault: Vault, head: Head) -> dict[str, Any]:
    seconds = vault.policy.limits.lease_seconds
    return {"incarnation": head.incarnation, "revision": head.revision, "lease_seconds": seconds}


def _text(raw: bytes) -> str:
    return pybase64.b64encode_as_string(raw, altchars=b"-_").rstrip("=")


def _bytes(text: str) -> bytes:
    return pybase64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
