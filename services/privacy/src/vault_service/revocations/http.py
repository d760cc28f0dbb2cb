"""The routes of the revocation list: to revoke and destroy (who may), to read it (every service), and who is done."""

from datetime import UTC
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
from msgspec import Meta, Struct

from servicekit.core.errors import Invalid
from servicekit.http.admission import max_body
from vault_service import epochs
from vault_service import lease_holders as holders
from vault_service.callers import caller
from vault_service.handlers import Vault
from vault_service.payloads import answer, read_body
from vault_service.revocations import handlers, store
from vault_service.revocations.domain import Case, Wanted
from vault_service.revocations.handlers import Outcome
from vault_service.revocations.tips import Heads
from vault_service.settings import VaultSettings

LARGEST_BATCH: Final = 500
MOST_SCOPES: Final = 2000
LONGEST_POLL: Final = 30.0
_MAX_BODY: Final = 8_000_000

_Caller = Annotated[str, Depends(caller)]
# Of an entry of the list. Postgres has no larger numbers.
_Number = Annotated[int, Query(ge=0, le=2**62)]


class HeldBody(Struct, frozen=True, forbid_unknown_fields=True):
    data_class: str
    anchor: UUID


class RevocationBody(Struct, frozen=True, forbid_unknown_fields=True):
    request_id: UUID
    subject: UUID
    data_classes: Annotated[list[str], Meta(min_length=1)] | None = None
    anchors: Annotated[list[UUID], Meta(min_length=1)] | None = None
    held: list[HeldBody] = []


class RevocationsBody(Struct, frozen=True, forbid_unknown_fields=True):
    revocations: Annotated[list[RevocationBody], Meta(min_length=1, max_length=LARGEST_BATCH)]


class DestroyBody(Struct, frozen=True, forbid_unknown_fields=True):
    request_ids: Annotated[list[UUID], Meta(min_length=1, max_length=LARGEST_BATCH)]


def make_router(vault: Vault, settings: VaultSettings) -> APIRouter:
    """The routes; `app.state.callers` must hold the `Callers`."""
    router = APIRouter(prefix="/v1")
    heads = Heads(vault.db, vault.clock, vault.listed)

    @router.post("/revocations", openapi_extra=max_body(_MAX_BODY))
    async def revoke(request: Request, service: _Caller) -> Response:
        """Fence and hold keys. Answers when every writer that could have missed the fence has ended; may be repeated."""
        body = await read_body(request, RevocationsBody)
        wanted = [_wanted(each, vault) for each in body.revocations]
        head, outcomes = await handlers.revoke(vault, service, wanted)
        found = [_outcome(each) for each in outcomes]
        return answer({"incarnation": head.incarnation, "head": head.tip.number, "revocations": found})

    @router.post("/revocations/destroy", openapi_extra=max_body(_MAX_BODY))
    async def destroy(request: Request, service: _Caller) -> Response:
        """Destroy the keys that are fenced under these requests; may be repeated."""
        body = await read_body(request, DestroyBody)
        head, outcomes = await handlers.destroy_keys(vault, service, list(dict.fromkeys(body.request_ids)))
        found = [_outcome(each) for each in outcomes]
        horizon = await epochs.horizon(vault.db, settings, vault.clock.now())
        lines = {"incarnation": head.incarnation, "head": head.tip.number, "destroyed": found}
        return answer({**lines, "horizon": horizon})

    @router.get("/revocations")
    async def read_list(
        service: _Caller,
        after: _Number,
        wait: Annotated[float, Query(ge=0, le=LONGEST_POLL, allow_inf_nan=False)] = 0,
        limit: Annotated[int, Query(ge=1, le=1000)] = 500,
        holder: UUID | None = None,
        done: Annotated[int | None, Query(ge=0, le=2**62)] = None,
    ) -> Response:
        """The entries after a number; waits up to `wait` seconds for the next one.

        With `holder` and `done` the caller reports that all work has ended which this holder began with keys named up
        to entry `done`.
        """
        if holder is not None and done is not None:
            await holders.report_done(vault, service, holder, done)
        head = await heads.after(after, wait)
        entries = await store.read_entries(vault.db, head, after, limit) if head.revision > after else []
        return answer({"incarnation": head.incarnation, "head": head.revision, "entries": entries})

    @router.delete("/holders/{holder}")
    async def sign_off(service: _Caller, holder: UUID) -> Response:
        """This holder has no key any more."""
        await holders.sign_off(vault, service, holder)
        return answer({})

    @router.get("/drained")
    async def drained(service: _Caller, number: _Number) -> Response:
        """Whether nobody can still work with keys that entries up to `number` name, or who can and until when."""
        waiting = await holders.waiting_for(vault, service, number)
        found = [
            {
                "system": each.system,
                "holder": each.holder,
                "done": each.done,
                "until": each.until.astimezone(UTC).isoformat(),
            }
            for each in waiting
        ]
        return answer({"drained": not waiting, "waiting_for": found})

    return router


def _wanted(body: RevocationBody, vault: Vault) -> Wanted:
    names = [*(body.data_classes or ()), *(held.data_class for held in body.held)]
    if not vault.policy.classes.keys() >= set(names):
        raise Invalid("A data class is not one of the policy's.")
    classes = None if body.data_classes is None else tuple(dict.fromkeys(body.data_classes))
    anchors = None if body.anchors is None else tuple(dict.fromkeys(body.anchors))
    if len(classes or ".") * len(anchors or ".") > MOST_SCOPES:
        raise Invalid(f"A revocation names more than {MOST_SCOPES} pairs of class and anchor: send it in parts.")
    held = frozenset((each.data_class, each.anchor) for each in body.held)
    return Wanted(Case(body.request_id, body.subject), classes, anchors, held)


def _outcome(outcome: Outcome) -> dict[str, Any]:
    keys = [
        {
            "key_id": key.key_id,
            "data_class": key.stored.name.data_class,
            "anchor": key.stored.name.anchor,
            "state": key.state,
            "fingerprint": (key.fingerprint or b"").hex(),
        }
        for key in outcome.keys
    ]
    return {
        "request_id": outcome.case.request_id,
        "subject": outcome.case.subject,
        "number": outcome.number,
        "keys": keys,
    }
