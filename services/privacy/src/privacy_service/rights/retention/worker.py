"""The retention runs' own work, in the role `jobs`. Any number of workers may run, and each may stop at any point."""

from datetime import timedelta
from typing import Final

from privacy_service.rights.retention import handlers, store, vault_keys
from servicekit.errors import KitError
from servicekit.faults import declare, faultpoint
from servicekit.kit import Kit
from servicekit.logs import code, get_log
from servicekit.service import Job

EVERY: Final = timedelta(seconds=1)

log = get_log("retention")
declare("retention.keys_read", "retention.gave_up")


async def carry_retention(kit: Kit) -> None:
    """One run of the job. A part that fails leaves the others to go on, and fails the job."""
    failed: KitError | None = None
    for part in (handlers.begin_if_due, _scan, _ask_again, _give_up):
        try:
            await part(kit)
        except KitError as error:
            log.error("retention_failed", step=code(part.__name__), error=error)
            failed = error
    if failed is not None:
        raise failed


async def _scan(kit: Kit) -> None:
    """The vault's keys that came of age, a page of each scan at a time, to the end."""
    while scans := await store.read_scans(kit.db):
        for scan in scans:
            keys = await vault_keys.read_aged(kit, scan.created_before, scan.after, scan.data_class or None)
            faultpoint("retention.keys_read")
            await handlers.look_at_keys(kit, scan, keys)


async def _ask_again(kit: Kit) -> None:
    while await handlers.ask_again(kit):
        pass


async def _give_up(kit: Kit) -> None:
    for run in await store.read_under_way(kit.db):
        while await handlers.give_up(kit, run.run_id):
            faultpoint("retention.gave_up")


JOBS: Final = (Job("retention", EVERY, carry_retention),)
