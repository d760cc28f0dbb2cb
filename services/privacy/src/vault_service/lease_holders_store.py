"""SQL of the holders of keys."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from servicekit import Tx
from servicekit.db.postgres import Database

# A caller that does not say who it is: nobody knows when it is done, so its lease is waited out.
ANONYMOUS: Final = UUID(int=0)
_MOST_WAITED_FOR: Final = 1000


@dataclass(frozen=True, slots=True)
class Waiting:
    """A holder that is not done, and when the last lease is over that was granted to it before the entry."""

    system: str
    holder: UUID
    done: int
    until: datetime


async def note_holder(db: Database, system: str, holder: UUID, seconds: float, longest_behind: float) -> bool:
    """It may hold keys for so long. One without a lease cannot work with keys that were revoked before this moment: it is
    done up to the head. False when it has not reported an entry that is older than `longest_behind` seconds, whether or not
    it has a lease; nothing is noted then. A caller without a name cannot report, so it is not refused.
    """
    noted = await db.fetchval(
        """-- note_holder
        INSERT INTO holders AS known (system, holder, incarnation, done, lease_until)
        SELECT $1, $2, incarnation, revision, clock_timestamp() + make_interval(secs => $3) FROM list_head
        ON CONFLICT (system, holder) DO UPDATE SET
            incarnation = excluded.incarnation,
            lease_until = greatest(known.lease_until, excluded.lease_until),
            done = CASE WHEN known.lease_until < clock_timestamp() THEN greatest(known.done, excluded.done)
                        ELSE known.done END
        WHERE $2 = $5 OR NOT EXISTS (
            SELECT FROM revocations
            WHERE number = known.done + 1 AND committed_at < clock_timestamp() - make_interval(secs => $4))
        RETURNING true""",
        system,
        holder,
        seconds,
        longest_behind,
        ANONYMOUS,
    )
    return noted is True


async def write_done(db: Database, system: str, holder: UUID, done: int) -> None:
    """Up to the head at most: nobody is done with entries that do not exist yet."""
    await db.fetch(
        """-- write_done
        UPDATE holders SET done = least($3, revision) FROM list_head
        WHERE system = $1 AND holder = $2 AND done < least($3, revision)""",
        system,
        holder,
        done,
    )


async def forget_holder(db: Database, system: str, holder: UUID) -> None:
    await db.fetch("-- forget_holder\nDELETE FROM holders WHERE system = $1 AND holder = $2", system, holder)


async def read_waiting(db: Database, number: int, over: int, left: float) -> list[Waiting]:
    """Who has a lease from before this entry and is not done up to it, the one that is done first coming first.

    Leases from before entry `over` have run out; those from before this entry run for `left` seconds at most.
    """
    rows = await db.fetch(
        """-- read_waiting
        SELECT system, holder, greatest(done, $2) AS done,
               least(lease_until, clock_timestamp() + make_interval(secs => $3)) AS until
        FROM holders WHERE greatest(done, $2) < $1 AND lease_until > clock_timestamp()
        ORDER BY until, holder LIMIT $4""",
        number,
        over,
        left,
        _MOST_WAITED_FOR,
    )
    return [Waiting(row["system"], row["holder"], row["done"], row["until"]) for row in rows]


async def forget_old(tx: Tx) -> None:
    """Holders whose last lease has been over for a day."""
    await tx.execute("-- forget_old\nDELETE FROM holders WHERE lease_until < clock_timestamp() - interval '1 day'")
