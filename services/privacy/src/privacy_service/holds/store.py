"""SQL of the holds that staff set."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from event_contracts.moments import bounded
from privacy_service.holds.domain import Basis, ManualHold
from servicekit import Tx
from servicekit.db.postgres import Database


async def read_manual_holds(db: Database | Tx, subject_ids: Sequence[UUID]) -> dict[UUID, list[ManualHold]]:
    """Those that are in force, by subject."""
    found: dict[UUID, list[ManualHold]] = defaultdict(list)
    for row in await db.fetch(
        "-- read_manual_holds\nSELECT * FROM holds WHERE subject_id = ANY($1::uuid[]) AND lifted_at IS NULL",
        list(subject_ids),
    ):
        hold = ManualHold(row["data_class"], row["anchor"], Basis(row["basis"]), row["until"] and bounded(row["until"]))
        found[row["subject_id"]].append(hold)
    return found


async def insert_hold(tx: Tx, hold_id: UUID, subject_id: UUID, hold: ManualHold, by: UUID, now: datetime) -> bool:
    """False when there is one of this id."""
    row = await tx.fetchrow(
        """-- insert_hold
        INSERT INTO holds (hold_id, subject_id, data_class, anchor, basis, until, set_by, set_at)
        VALUES ($1, $2, $3, $4, $5::text::manual_basis, $6, $7, $8)
        ON CONFLICT (hold_id) DO NOTHING RETURNING hold_id""",
        hold_id,
        subject_id,
        hold.data_class,
        hold.anchor,
        hold.basis,
        hold.until,
        by,
        now,
    )
    return row is not None


async def read_hold(tx: Tx, hold_id: UUID) -> tuple[UUID, ManualHold]:
    """Whose it is, and what it keeps."""
    row = await tx.fetchrow(
        "-- read_hold\nSELECT subject_id, data_class, anchor, basis::text, until FROM holds WHERE hold_id = $1", hold_id
    )
    assert row is not None
    return row["subject_id"], ManualHold(row["data_class"], row["anchor"], Basis(row["basis"]), row["until"])


async def lift_hold(tx: Tx, hold_id: UUID, now: datetime) -> UUID | None:
    """End the hold. Returns the id of its person, or None if there is no such hold."""
    subject: UUID | None = await tx.fetchval(
        "-- lift_hold\nUPDATE holds SET lifted_at = coalesce(lifted_at, $2) WHERE hold_id = $1 RETURNING subject_id",
        hold_id,
        now,
    )
    return subject


async def check_holds(tx: Tx, subject_id: UUID, now: datetime) -> None:
    """Whatever is held of the person is looked at again."""
    await tx.execute(
        """-- check_holds
        UPDATE rights_subjects SET next_try_at = $2 WHERE subject_id = $1 AND step = 'held'""",
        subject_id,
        now,
    )
