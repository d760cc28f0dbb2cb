"""The route of the keys by age, for whoever may revoke them."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response

from event_contracts.moments import Moment
from event_contracts.vault_api import MOST_AGED_KEYS, AgedKeys
from servicekit.core.errors import Invalid
from vault_service import key_expiry_store
from vault_service.callers import caller
from vault_service.handlers import Vault, refused
from vault_service.payloads import answer

_Caller = Annotated[str, Depends(caller)]


def make_router(vault: Vault) -> APIRouter:
    """The routes; `app.state.callers` must hold the `Callers`."""
    router = APIRouter(prefix="/v1")

    @router.get("/keys")
    async def list_aged(
        service: _Caller,
        created_before: Moment,
        after: Moment | None = None,
        after_key: UUID | None = None,
        data_class: str | None = None,
        limit: Annotated[int, Query(ge=1, le=MOST_AGED_KEYS)] = MOST_AGED_KEYS,
    ) -> Response:
        """Names of living keys, the oldest first; `after` and `after_key` are those of the last key of the page before."""
        if not vault.policy.may_revoke(service):
            raise refused(service, "no_revoke_grant")
        if data_class is not None and data_class not in vault.policy.classes:
            raise Invalid("The data class is not one of the policy's.")
        if (after is None) != (after_key is None):
            raise Invalid("A place in the list has both, a time and a key: send `after` and `after_key`.")
        place = (after, after_key) if after is not None and after_key is not None else None
        return answer(AgedKeys(await key_expiry_store.read_aged(vault.db, created_before, place, data_class, limit)))

    return router
