"""Routes about KEK epochs, for the service that may revoke: see the epochs, and open the next one."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response

from event_contracts.vault_api import KekEpoch, KekEpochs
from servicekit.core.errors import Forbidden
from vault_service.callers import caller
from vault_service.epochs import handlers
from vault_service.handlers import Vault
from vault_service.payloads import answer
from vault_service.settings import VaultSettings

_Caller = Annotated[str, Depends(caller)]


def make_router(vault: Vault, settings: VaultSettings) -> APIRouter:
    """The routes; `app.state.callers` must hold the `Callers`."""
    router = APIRouter(prefix="/v1/kek")

    @router.get("")
    async def show(service: _Caller) -> Response:
        """The KEK epochs, the living keys that each wraps, and the horizon."""
        _refuse_unless_granted(vault, service)
        return await _answer(vault, settings)

    @router.post("/rotations")
    async def rotate(service: _Caller, after: Annotated[int | None, Query(ge=1)] = None) -> Response:
        """Open the next epoch; a job re-wraps and ends the one before. With `after`, only if that is the active one."""
        _refuse_unless_granted(vault, service)
        await handlers.open_next(vault.db, vault.kek, vault.clock, after)
        return await _answer(vault, settings)

    return router


async def _answer(vault: Vault, settings: VaultSettings) -> Response:
    shown = await handlers.overview(vault.db, vault.kek, settings, vault.clock.now())
    epochs = [
        KekEpoch(
            epoch=epoch.number,
            state=epoch.state,
            keys=keys,
            opened_at=epoch.opened_at,
            closed_at=epoch.closed_at,
            emptied_at=epoch.emptied_at,
            destroyed_at=epoch.destroyed_at,
        )
        for epoch, keys in shown.epochs
    ]
    return answer(KekEpochs(shown.provider, shown.horizon, shown.strays, epochs))


def _refuse_unless_granted(vault: Vault, service: str) -> None:
    if not vault.policy.may_revoke(service):
        raise Forbidden("The policy grants this service nothing about KEKs. Ask the owner of the policy for `revoke`.")
