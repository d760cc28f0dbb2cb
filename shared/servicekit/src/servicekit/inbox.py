"""Positions and inbox: how far a reader is, and which events it has applied, kept in the transaction of the effects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from uuid import UUID

from servicekit.errors import PositionLost
from servicekit.postgres import Database, Tx

Place = tuple[str, int]  # topic, partition


async def load_positions(db: Database, reader: str, places: Sequence[Place]) -> dict[Place, int]:
    """The next offset of each place; a place that is new to this reader begins at 0."""

    async def work(tx: Tx) -> dict[Place, int]:
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
            SELECT p.topic, p.partition, p.next FROM kit.positions p
            JOIN unnest($2::text[], $3::int[]) AS u(topic, partition) USING (topic, partition) WHERE p.reader = $1""",
            reader,
            topics,
            partitions,
        )
        return {(row["topic"], row["partition"]): row["next"] for row in rows}

    return await db.run_tx("load_positions", work)


async def known_places(db: Database) -> list[Place]:
    """Every place in which a reader of this service has a position."""
    rows = await db.fetch("-- known_places\nSELECT DISTINCT topic, partition FROM kit.positions ORDER BY 1, 2")
    return [(row["topic"], row["partition"]) for row in rows]


async def set_back(tx: Tx, onto: Mapping[Place, int], reader: str | None = None) -> int:
    """Positions behind these offsets go back to them: of one reader, or of all. Returns how many moved.

    What was applied before comes again then, and has no second effect.
    """
    status = await tx.execute(
        """-- set_back
        UPDATE kit.positions p SET next = u.onto
        FROM unnest($1::text[], $2::int[], $3::bigint[]) AS u(topic, partition, onto)
        WHERE p.topic = u.topic AND p.partition = u.partition AND p.next > u.onto AND p.reader = coalesce($4, p.reader)""",
        [topic for topic, _ in onto],
        [partition for _, partition in onto],
        list(onto.values()),
        reader,
    )
    return int(status.split()[-1])


async def move_positions(tx: Tx, reader: str, moves: Mapping[Place, tuple[int, int]]) -> None:
    """Moves each place from one offset to another.

    Raises `PositionLost` if any is not where it was: another process has the partition, or this one is a zombie.
    """
    status = await tx.execute(
        """-- move_positions
        UPDATE kit.positions p SET next = u.onto
        FROM unnest($2::text[], $3::int[], $4::bigint[], $5::bigint[]) AS u(topic, partition, since, onto)
        WHERE p.reader = $1 AND p.topic = u.topic AND p.partition = u.partition AND p.next = u.since""",
        reader,
        [topic for topic, _ in moves],
        [partition for _, partition in moves],
        [since for since, _ in moves.values()],
        [onto for _, onto in moves.values()],
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
