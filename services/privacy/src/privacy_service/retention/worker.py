"""The retention runs' own work, in the role `jobs`. Any number of workers may run, and each may stop at any point."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Final
from uuid import UUID

from privacy_service.retention import handlers, store, vault_keys
from privacy_service.retention.store import Scan
from servicekit import Job, Kit, get_log
from servicekit.core.faults import declare, faultpoint
from servicekit.core.logs import code

EVERY: Final = timedelta(seconds=1)

log = get_log("retention")
declare("retention.keys_read", "retention.gave_up")


async def carry_retention(kit: Kit) -> None:
    """One run of the job. A part that fails leaves the others to go on, and fails the job."""
    await _each("retention", kit, (handlers.begin_if_due, _scan, _look_again, _ask_again, _give_up))


async def _each(name: str, kit: Kit, parts: Sequence[Callable[[Kit], Awaitable[None]]]) -> None:
    """Does all of them. Raises what the last one raised that failed; the next run tries it again."""
    failed: Exception | None = None
    for part in parts:
        try:
            await part(kit)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other parts go on
            log.error("retention_failed", step=code(name), error=error)
            failed = error
    if failed is not None:
        raise failed


async def _scan(kit: Kit) -> None:
    """The vault's keys that came of age, a page of each scan at a time, to the end."""
    while scans := await store.read_scans(kit.db):
        await _each("scan", kit, [partial(_look, scan=scan) for scan in scans])


async def _look(kit: Kit, scan: Scan) -> None:
    keys = await vault_keys.read_aged(kit, scan.created_before, scan.after, scan.data_class or None)
    faultpoint("retention.keys_read")
    await handlers.look_at_keys(kit, scan, keys)


async def _look_again(kit: Kit) -> None:
    while await handlers.look_again(kit):
        pass


async def _ask_again(kit: Kit) -> None:
    while await handlers.ask_again(kit):
        pass


async def _give_up(kit: Kit) -> None:
    await _each("give_up", kit, [partial(_give_up_of, run_id=run.run_id) for run in await store.read_under_way(kit.db)])


async def _give_up_of(kit: Kit, run_id: UUID) -> None:
    while await handlers.give_up(kit, run_id):
        faultpoint("retention.gave_up")


JOBS: Final = (Job(handlers.JOB, EVERY, carry_retention),)
