"""The routes of the revocation list: to revoke and destroy (who may), to read it (every service), and who is done."""

from datetime import UTC
from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from event_contracts.vault_api import (
    DestroyAnswer,
    DestroyBody,
    Done,
    Drained,
    Holder,
    KeyOutcome,
    RevocationBody,
    RevocationPage,
    RevocationsAnswer,
    RevocationsBody,
    RevokedBody,
)
from servicekit.core.errors import Invalid
from servicekit.http.admission import max_body
from vault_service import epochs
from vault_service import lease_holders as holders
from vault_service.callers import caller
from vault_service.handlers import Vault
from vault_service.payloads import answer, read_body
from vault_service.revocations import handlers, store
from vault_service.revocations.domain import Case, FoundKey, Wanted
from vault_service.revocations.handlers import Outcome
from vault_service.revocations.tips import Heads
from vault_service.settings import VaultSettings

MOST_SCOPES: Final = 2000
LONGEST_POLL: Final = 30.0
_MAX_BODY: Final = 8_000_000

_Caller = Annotated[str, Depends(caller)]
# Of an entry of the list. Postgres has no larger numbers.
_Number = Annotated[int, Query(ge=0, le=2**62)]


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
        return answer(RevocationsAnswer(str(head.incarnation), head.tip.number, [_body(each) for each in outcomes]))

    @router.post("/revocations/destroy", openapi_extra=max_body(_MAX_BODY))
    async def destroy(request: Request, service: _Caller) -> Response:
        """Destroy the keys that are fenced under these requests; may be repeated."""
        body = await read_body(request, DestroyBody)
        head, outcomes = await handlers.destroy_keys(vault, service, list(dict.fromkeys(body.request_ids)))
        horizon = await epochs.horizon(vault.db, settings, vault.clock.now())
        return answer(
            DestroyAnswer(str(head.incarnation), head.tip.number, [_body(each) for each in outcomes], horizon)
        )

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
        return answer(RevocationPage(str(head.incarnation), head.revision, entries))

    @router.delete("/holders/{holder}")
    async def sign_off(service: _Caller, holder: UUID) -> Response:
        """This holder has no key any more."""
        await holders.sign_off(vault, service, holder)
        return answer(Done())

    @router.get("/drained")
    async def drained(service: _Caller, number: _Number) -> Response:
        """Whether nobody can still work with keys that entries up to `number` name, or who can and until when."""
        waiting = await holders.waiting_for(vault, service, number)
        found = [
            Holder(each.system, each.holder, each.done, each.until.astimezone(UTC).isoformat()) for each in waiting
        ]
        return answer(Drained(drained=not waiting, waiting_for=found))

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


def _body(outcome: Outcome) -> RevokedBody:
    keys = [_key(key) for key in outcome.keys]
    return RevokedBody(outcome.case.request_id, outcome.case.subject, outcome.number, keys)


def _key(key: FoundKey) -> KeyOutcome:
    name = key.stored.name
    assert key.state != "active"  # it stands under a request
    return KeyOutcome(key.key_id, name.data_class, name.anchor, key.state, (key.fingerprint or b"").hex())
