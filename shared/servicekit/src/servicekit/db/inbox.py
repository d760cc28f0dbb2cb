"""Positions and inbox: how far a reader is, and which events it has applied, kept in the transaction of the effects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final
from uuid import UUID

from servicekit.core.errors import PositionLost
from servicekit.db.outbox import KEEP_DAYS
from servicekit.db.postgres import Database, Tx

Place = tuple[str, int]  # topic, partition
# An inbox forgets by the whole day, of the event's own time.
REMEMBERED: Final = timedelta(days=KEEP_DAYS - 1)


@dataclass(frozen=True, slots=True)
class Position:
    """Where a reader goes on; the hash of the record before that, and Kafka's id of the topic, where they are known."""

    next: int
    hash: UUID | None = None
    topic_id: UUID | None = None


async def load_places(db: Database, reader: str, places: Sequence[Place]) -> dict[Place, Position]:
    """The whole position at each place."""

    async def work(tx: Tx) -> dict[Place, Position]:
        topics, partitions = [topic for topic, _ in places], [partition for _, partition in places]
        await tx.execute(
            """-- load_positions: new
            INSERT INTO kit.positions SELECT $1, u.topic, u.partition, 0
            FROM unnest($2::text[], $3::int[]) AS u(topic, partition) ON CONFLICT DO NOTHING""",
            reader,
            topics,
            partitions,
        )
        rows = await tx.fetch(
            """-- load_positions
            SELECT p.topic, p.partition, p.next, p.hash, p.topic_id FROM kit.positions p
            JOIN unnest($2::text[], $3::int[]) AS u(topic, partition) USING (topic, partition) WHERE p.reader = $1""",
            reader,
            topics,
            partitions,
        )
        return {(row["topic"], row["partition"]): Position(row["next"], row["hash"], row["topic_id"]) for row in rows}

    return await db.run_tx("load_positions", work)


async def known_places(db: Database, reader: str | None = None) -> list[Place]:
    """Every place in which a reader of this service has a position, or this reader."""
    rows = await db.fetch(
        "-- known_places\nSELECT DISTINCT topic, partition FROM kit.positions WHERE reader = coalesce($1, reader) ORDER BY 1, 2",
        reader,
    )
    return [(row["topic"], row["partition"]) for row in rows]


@dataclass(frozen=True, slots=True)
class Decision:
    """Where a stopped reader goes on in one partition, as an operator decided."""

    place: Place
    since: int
    onto: int
    topic_id: UUID | None


async def decide(
    tx: Tx, reader: str, decisions: Sequence[Decision], action: str, reason: str, operator: str, now: datetime
) -> None:
    """Moves the positions, which then no hash binds, and puts each on record. Raises `PositionLost` if one has moved."""
    await move_positions(tx, reader, {d.place: (d.since, Position(d.onto, topic_id=d.topic_id)) for d in decisions})
    await tx.execute(
        """-- decide
        INSERT INTO kit.position_decisions (reader, topic, partition, since, onto, action, reason, operator, decided_at)
        SELECT $1, u.*, $6, $7, $8, $9
        FROM unnest($2::text[], $3::int[], $4::bigint[], $5::bigint[]) AS u(topic, partition, since, onto)""",
        reader,
        [decision.place[0] for decision in decisions],
        [decision.place[1] for decision in decisions],
        [decision.since for decision in decisions],
        [decision.onto for decision in decisions],
        action,
        reason,
        operator,
        now,
    )


async def set_back(tx: Tx, onto: Mapping[Place, int], reader: str | None = None) -> int:
    """Positions behind these offsets go back to them: of one reader, or of all. Returns how many moved.

    What was applied before comes again then, and has no second effect.
    """
    status = await tx.execute(
        """-- set_back
        UPDATE kit.positions p SET next = u.onto, hash = NULL
        FROM unnest($1::text[], $2::int[], $3::bigint[]) AS u(topic, partition, onto)
        WHERE p.topic = u.topic AND p.partition = u.partition AND p.next > u.onto AND p.reader = coalesce($4, p.reader)""",
        [topic for topic, _ in onto],
        [partition for _, partition in onto],
        list(onto.values()),
        reader,
    )
    return int(status.split()[-1])


async def move_positions(tx: Tx, reader: str, moves: Mapping[Place, tuple[int, Position]]) -> None:
    """Moves each place from an offset to a position; the topic's id stays where the new position has none.

    Raises `PositionLost` if any is not where it was: another process has the partition, or this one is a zombie.
    """
    onto = [position for _, position in moves.values()]
    status = await tx.execute(
        """-- move_positions
        UPDATE kit.positions p SET next = u.onto, hash = u.hash, topic_id = coalesce(u.topic_id, p.topic_id)
        FROM unnest($2::text[], $3::int[], $4::bigint[], $5::bigint[], $6::uuid[], $7::uuid[])
            AS u(topic, partition, since, onto, hash, topic_id)
        WHERE p.reader = $1 AND p.topic = u.topic AND p.partition = u.partition AND p.next = u.since""",
        reader,
        [topic for topic, _ in moves],
        [partition for _, partition in moves],
        [since for since, _ in moves.values()],
        [position.next for position in onto],
        [position.hash for position in onto],
        [position.topic_id for position in onto],
    )
    if int(status.split()[-1]) != len(moves):
        raise PositionLost


async def first_time(tx: Tx, reader: str, events: Sequence[tuple[date, UUID]]) -> set[UUID]:
    """Notes the events (their own day, id) and returns the ids that were not noted before."""
    rows = await tx.fetch(
        """-- first_time
        INSERT INTO kit.inbox (day, event_id, reader)
        SELECT u.day, u.event_id, $1 FROM unnest($2::date[], $3::uuid[]) AS u(day, event_id)
        ON CONFLICT DO NOTHING RETURNING event_id""",
        reader,
        [day for day, _ in events],
        [event_id for _, event_id in events],
    )
    return {row["event_id"] for row in rows}
