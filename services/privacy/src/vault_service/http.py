"""The vault's API for whoever seals, opens and looks up."""

from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import Response

from event_contracts import base64url
from event_contracts.vault_api import (
    EnsureAnswer,
    EnsureBody,
    EnsuredKey,
    FindBody,
    Found,
    FoundKey,
    IndexKeys,
    LeaseAnswer,
    LeasedKey,
    LeasesBody,
)
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

_MAX_BODY: Final = 2_000_000

_Caller = Annotated[str, Depends(caller)]
_Holder = Annotated[UUID, Header(alias="X-Holder", description="The process that holds the keys on lease.")]


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
        index = [IndexEntry(entry.kind, base64url.decode(entry.digest), entry.key) for entry in body.index]
        new = Newcomers(
            frozenset(key.subject for key in body.keys if key.new == "person"),
            frozenset(name for name, key in zip(names, body.keys, strict=True) if key.new is not None),
        )
        await holders.note(vault, service, holder)
        head, keys = await handlers.ensure_keys(vault, service, names, index, new)
        ensured = [EnsuredKey(key.key_id, key.generation, base64url.encode(raw)) for key, raw in keys]
        return answer(EnsureAnswer(str(head.incarnation), head.revision, vault.policy.limits.lease_seconds, ensured))

    @router.post("/keys/lease", openapi_extra=max_body(_MAX_BODY))
    async def lease(request: Request, service: _Caller, holder: _Holder = ANONYMOUS) -> Response:
        """The keys of these ids for one purpose; of a fenced or destroyed one its state."""
        body = await read_body(request, LeasesBody)
        wanted = [LeaseName(key.key_id, key.subject, key.data_class, key.anchor) for key in body.keys]
        await holders.note(vault, service, holder)
        head, leases = await handlers.lease_keys(vault, service, body.purpose, wanted)
        leased = [
            LeasedKey(asked.key_id, state, "" if key is None else base64url.encode(key))
            for asked, (state, key) in zip(wanted, leases, strict=True)
        ]
        return answer(LeaseAnswer(str(head.incarnation), head.revision, vault.policy.limits.lease_seconds, leased))

    @router.get("/index-keys")
    async def index_keys(kinds: Annotated[str, Query(pattern=r"^[a-z_]+(,[a-z_]+)*$")], service: _Caller) -> Response:
        """The keys of these blind indexes (comma-separated kinds)."""
        keys = handlers.index_keys(vault, service, kinds.split(","))
        texts = {kind: base64url.encode(key) for kind, key in keys.items()}
        return answer(IndexKeys(vault.policy.limits.lease_seconds, texts))

    @router.post("/directory/find")
    async def find(request: Request, service: _Caller) -> Response:
        """Whose active keys have this digest beside them."""
        body = await read_body(request, FindBody)
        names = await handlers.find_names(vault, service, body.kind, base64url.decode(body.digest))
        return answer(Found([FoundKey(*name) for name in names]))

    return router
