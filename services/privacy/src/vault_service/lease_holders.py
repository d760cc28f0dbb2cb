"""Processes that got keys on lease: noted before they get one, done when they say so, gone when they sign off."""

from typing import Final
from uuid import UUID

from servicekit import get_log
from servicekit.core.errors import HolderBehind, Invalid
from servicekit.core.logs import code
from servicekit.core.metrics import LEASES_REFUSED
from vault_service import lease_holders_store
from vault_service.handlers import Vault, refused
from vault_service.lease_holders_store import Waiting
from vault_service.store import read_head

# In lease times: a holder that has not reported for so long gets no lease until it reports. Each erasure of that time waits
# for the leases that it had before.
LONGEST_BEHIND: Final = 3
log = get_log("vault")


async def note(vault: Vault, system: str, holder: UUID) -> None:
    """To be called before keys are read for it, so that a later question who holds keys finds it.

    Raises HolderBehind when it has long not said that its work with revoked keys has ended.
    """
    now, lease = vault.clock.boottime(), vault.policy.limits.lease_seconds
    if not vault.notes.is_fresh(system, holder, now, lease):
        if not await lease_holders_store.note_holder(vault.db, system, holder, 1.5 * lease, LONGEST_BEHIND * lease):
            LEASES_REFUSED.labels(system, "holder_behind").inc()
            log.warning("holder_behind", system=code(system), holder=holder)
            raise HolderBehind
        vault.notes.write(system, holder, now)


async def see_head(vault: Vault) -> int:
    """The number of the last entry. From now on the leases that were granted before it run out."""
    head = (await read_head(vault.db)).revision
    vault.ages.see(head, vault.clock.boottime(), vault.policy.limits.lease_seconds)
    return head


async def report_done(vault: Vault, system: str, holder: UUID, done: int) -> None:
    """All its work has ended that began with keys named up to entry `done`."""
    await lease_holders_store.write_done(vault.db, system, holder, done)


async def sign_off(vault: Vault, system: str, holder: UUID) -> None:
    """It holds no key any more."""
    vault.notes.forget(system, holder)
    await lease_holders_store.forget_holder(vault.db, system, holder)


async def waiting_for(vault: Vault, service: str, number: int) -> list[Waiting]:
    """Who may still work with keys that entries up to `number` name: none means drained. Raises Forbidden, Invalid.

    A holder that renews its lease and never reports is waited for until the leases are over that it had before.
    """
    if not vault.policy.may_revoke(service):
        raise refused(service, "no_revoke_grant")
    if number > await see_head(vault):
        raise Invalid("The list of revocations has no entry of this number.")
    now, lease = vault.clock.boottime(), vault.policy.limits.lease_seconds
    return await lease_holders_store.read_waiting(
        vault.db, number, vault.ages.over(now, lease), vault.ages.left(number, now, lease)
    )
