"""Holds that staff set by hand, and lift: what they keep is not erased meanwhile."""

from uuid import UUID

from evidence_log import handlers as evidence
from evidence_log.leaves import Decision
from privacy_service.holds import store
from privacy_service.holds.domain import ManualHold
from privacy_service.inventory.handlers import check_known
from servicekit import Kit, Staff, Tx
from servicekit.core.errors import Invalid, KeyReused, NotFound


async def set_hold(kit: Kit, by: Staff, hold_id: UUID, subject_id: UUID, hold: ManualHold) -> bool:
    """False when it was set before under this id.

    Raises `Invalid` for a class that the policy does not know or an end in the past, `NoMatch` for somebody whom no event
    names, `KeyReused` when it is another hold.
    """
    if hold.data_class not in kit.policy.classes:
        raise Invalid("The data class is not one of the policy. Name one that is.")
    if hold.until is not None and hold.until <= kit.clock.now():
        raise Invalid("The hold would be over already. Name a later end, or none.")
    await check_known(kit, [subject_id])

    async def work(tx: Tx) -> bool:
        now = kit.clock.now()
        if not await store.insert_hold(tx, hold_id, subject_id, hold, by.staff_id, now):
            if await store.read_hold(tx, hold_id) != (subject_id, hold):
                raise KeyReused
            return False
        await evidence.append(tx, [_decision(kit, by, hold_id, "hold_set", hold.basis)])
        await store.check_holds(tx, subject_id, now)
        return True

    return await kit.run_tx("set_hold", work)


async def lift_hold(kit: Kit, by: Staff, hold_id: UUID) -> None:
    """What only this hold kept goes by itself. Raises `NotFound`."""

    async def work(tx: Tx) -> None:
        now = kit.clock.now()
        subject_id = await store.lift_hold(tx, hold_id, now)
        if subject_id is None:
            raise NotFound
        await evidence.append(tx, [_decision(kit, by, hold_id, "hold_lifted", None)])
        await store.check_holds(tx, subject_id, now)

    await kit.run_tx("lift_hold", work)


def _decision(kit: Kit, by: Staff, hold_id: UUID, what: str, reason: str | None) -> Decision:
    return Decision(
        request_id=hold_id,
        what=what,
        by="staff",
        at=kit.clock.now(),
        actor_id=by.staff_id,
        role=by.role,
        reason=reason,
    )
