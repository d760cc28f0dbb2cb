"""The privacy officer sees the vault's KEK epochs and opens the next one; the vault does the work."""

from datetime import date, datetime
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel

from event_contracts import vault_api
from servicekit import Kit, Staff, staff
from servicekit.core.errors import Unavailable

_Officer = Annotated[Staff, Depends(staff("privacy_officer"))]


class KekEpoch(BaseModel):
    """`keys`: living keys that this epoch's KEK still wraps."""

    epoch: int
    state: str
    keys: int
    opened_at: datetime
    closed_at: datetime | None
    emptied_at: datetime | None
    destroyed_at: datetime | None


class KekEpochs(BaseModel):
    """`horizon`: from that day on no copy of the vault opens what is erased today. `strays`: KEKs without an epoch."""

    provider: str
    horizon: date
    strays: list[str]
    epochs: list[KekEpoch]


def make_router(kit: Kit) -> APIRouter:
    """The routes of the role `api`."""
    router = APIRouter(prefix="/v1/kek")

    @router.get("")
    async def show(who: _Officer) -> KekEpochs:
        """The vault's KEK epochs and the horizon."""
        return _shown(await kit.vault.call("GET", "/v1/kek", vault_api.KekEpochs))

    @router.post("/rotations", status_code=202)
    async def rotate(who: _Officer, after: Annotated[int | None, Query(ge=1)] = None) -> KekEpochs:
        """Open the next epoch; with `after`, only if that is the active one.

        The vault re-wraps the keys and then destroys the former KEK; `GET /v1/kek` shows how far it is.
        """
        if after is None:
            found = await kit.vault.call("GET", "/v1/kek", vault_api.KekEpochs)
            after = next((each.epoch for each in found.epochs if each.state == "active"), None)
        if after is None:
            raise Unavailable("The vault has no active KEK epoch: its database is not a whole one.")
        # Naming the epoch that is left makes the call repeatable, and two officers at once one rotation.
        return _shown(await kit.vault.call("POST", f"/v1/kek/rotations?after={after}", vault_api.KekEpochs))

    return router


def _shown(epochs: vault_api.KekEpochs) -> KekEpochs:
    return KekEpochs.model_validate(msgspec.to_builtins(epochs))
