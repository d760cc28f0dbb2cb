"""Processes that got keys on lease: noted before they get one, done when they say so, gone when they sign off."""

from typing import Final
from uuid import UUID

from privacy_service.vault.handlers import Vault, refused
from privacy_service.vault.holders import store
from privacy_service.vault.holders.store import Waiting
from privacy_service.vault.store import read_head
from servicekit.errors import Invalid

# A caller that does not say who it is: nobody knows when it is done, so its lease is waited out.
ANONYMOUS: Final = UUID(int=0)


async def note(vault: Vault, system: str, holder: UUID) -> None:
    """To be called before keys are read for it, so that whoever asks later who holds keys finds it."""
    now, lease = vault.clock.boottime(), vault.policy.limits.lease_seconds
    if not vault.notes.is_fresh(system, holder, now, lease):
        await store.note_holder(vault.db, system, holder, 1.5 * lease)
        vault.notes.write(system, holder, now)


async def report_done(vault: Vault, system: str, holder: UUID, done: int) -> None:
    """All its work has ended that began with keys named up to entry `done`."""
    await store.write_done(vault.db, system, holder, done)


async def sign_off(vault: Vault, system: str, holder: UUID) -> None:
    """It holds no key any more."""
    vault.notes.forget(system, holder)
    await store.forget_holder(vault.db, system, holder)


async def waiting_for(vault: Vault, service: str, number: int) -> list[Waiting]:
    """Who may still work with keys that entries up to `number` name: none means drained. Raises Forbidden, Invalid."""
    if not vault.policy.may_revoke(service):
        raise refused(service, "no_revoke_grant")
    if number > (await read_head(vault.db)).revision:
        raise Invalid("The list of revocations has no entry of this number.")
    return await store.read_waiting(vault.db, number)
