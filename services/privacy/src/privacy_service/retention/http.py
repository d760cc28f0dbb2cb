"""Retention runs over HTTP: begin one, or only count, and see what it found."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict

from privacy_service.retention import handlers
from servicekit import Kit, Staff, new_id, staff

_officer = staff("privacy_officer")
_Officer = Annotated[Staff, Depends(_officer)]
_NewId = Annotated[UUID, Depends(new_id(_officer))]


class RunBody(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    dry_run: bool = False


class RunId(BaseModel):
    run_id: UUID


class ClassCount(BaseModel):
    """Names (a person's data of one class and anchor) that are past their time.

    Of those `found`, some are `held` by hand, for some a request is `under_way` already; for the rest one was `opened`.
    """

    data_class: str
    found: int
    held: int
    under_way: int
    opened: int


class SilentSystem(BaseModel):
    system: str
    since: datetime
    next_try_at: datetime


class RunState(BaseModel):
    """`ended_at` is absent until every system has answered and everything found is given up, or counted.

    Or until the next daily run begins: `unanswered` are the systems that were still silent then, and are asked again by it.
    """

    run_id: UUID
    dry_run: bool
    begun_at: datetime
    ended_at: datetime | None
    waiting_for: list[SilentSystem]
    unanswered: list[str]
    items: list[ClassCount]


def make_router(kit: Kit) -> APIRouter:
    """The routes of the role `api`."""
    router = APIRouter()

    @router.post("/v1/retention/runs", status_code=202)
    async def start(body: RunBody, who: _Officer, run_id: _NewId) -> RunId:
        """Begin a run beside the daily one; with `dry_run` it only counts."""
        run = await handlers.start_run(kit, who, run_id, body.dry_run)
        return RunId(run_id=run.run_id)

    @router.get("/v1/retention/runs/{run_id}")
    async def show(run_id: UUID, who: _Officer) -> RunState:
        """What it has found so far, by class, and whom it waits for."""
        shown = await handlers.show_run(kit, run_id)
        return RunState(
            run_id=run_id,
            dry_run=shown.run.dry_run,
            begun_at=shown.run.begun_at,
            ended_at=shown.run.ended_at,
            waiting_for=[
                SilentSystem(system=row["system"], since=row["since"], next_try_at=row["next_try_at"])
                for row in shown.waiting_for
            ],
            unanswered=list(shown.run.unanswered),
            items=[
                ClassCount(
                    data_class=row["data_class"],
                    found=row["found"],
                    held=row["held"],
                    under_way=row["under_way"],
                    opened=row["opened"],
                )
                for row in shown.counts
            ],
        )

    return router
