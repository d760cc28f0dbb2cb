"""SQL of carriers' replies: what they change in the ledger, and those that came before their shipment."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from msgspec import Struct

from event_contracts import Sealed
from event_contracts.carrier import RefusalReason, ReplyKind
from event_contracts.logistics_gateway import Tracking
from event_contracts.moments import bounded
from logistics_gateway.progress import STEPS
from logistics_gateway.store import PAGE
from servicekit import Record, Tx
from servicekit.db.postgres import Database

# Replies of one carrier that wait for their shipment.
MOST_EARLY = 10_000


class Answer(Struct, frozen=True):
    """A carrier's answer about one shipment; `tracking` is sealed already."""

    shipment_id: UUID
    carrier: str
    at: datetime
    reason: RefusalReason | None = None
    tracking: Sealed[Tracking] | None = None


async def known_since(source: Tx | Database, shipment_ids: Sequence[UUID]) -> dict[UUID, datetime]:
    """From when on a carrier can have known of each of these shipments that the ledger has."""
    rows = await source.fetch(
        """-- known_since
        SELECT shipment_id, least(recorded_at, ordered_at) AS since FROM disclosures WHERE shipment_id = ANY($1::uuid[])""",
        list(shipment_ids),
    )
    return {row["shipment_id"]: bounded(row["since"]) for row in rows}


async def known(tx: Tx, shipment_ids: Sequence[UUID]) -> dict[UUID, str | None]:
    """The carrier of each of the shipments that the ledger has, but for those with early replies.

    These go first: a delivery that is noted before the hand-over would hide it from the order for ever.
    """
    rows = await tx.fetch(
        """-- known
        SELECT shipment_id, carrier FROM disclosures d WHERE shipment_id = ANY($1::uuid[]) AND NOT EXISTS
            (SELECT FROM early_replies e WHERE e.shipment_id = d.shipment_id AND e.carrier = d.carrier)""",
        shipment_ids,
    )
    return {row["shipment_id"]: row["carrier"] for row in rows}


async def answered(tx: Tx, kind: ReplyKind, answers: Sequence[Answer], now: datetime) -> list[Record]:
    """Notes one kind of reply, as `STEPS` says. Returns the shipments for which it is news. What was answered was sent."""
    if not answers:
        return []
    step = STEPS[kind]
    own = f", {step.column} = u.at" if step.column else ""
    return await tx.fetch(
        f"""-- answered
        UPDATE disclosures d SET progress = $4, rank = $5, progress_at = u.at, heard_at = $6, refusal = u.reason,
            ended_at = CASE WHEN $7 THEN $6::timestamptz END{own}
        FROM unnest($1::uuid[], $2::varchar[], $3::timestamptz[], $8::varchar[]) AS u(shipment_id, carrier, at, reason)
        WHERE d.shipment_id = u.shipment_id AND d.carrier = u.carrier AND d.rank < $5 AND {step.only_if}
        RETURNING d.order_id, d.shipment_id, d.subject_id, d.carrier, d.refusal, u.at""",  # noqa: S608 - names of our own
        *_columns(answers),
        kind.value,
        step.rank,
        now,
        step.is_end,
        [answer.reason for answer in answers],
    )


async def erasures_answered(tx: Tx, answers: Sequence[Answer]) -> set[UUID]:
    """Notes that carriers have deleted. Returns the persons for whom that is news."""
    if not answers:
        return set()
    rows = await tx.fetch(
        """-- erasures_answered
        UPDATE disclosures d SET erased_at = u.at
        FROM unnest($1::uuid[], $2::varchar[], $3::timestamptz[]) AS u(shipment_id, carrier, at)
        WHERE d.shipment_id = u.shipment_id AND d.carrier = u.carrier AND d.erased_at IS NULL AND d.erasure IS NOT NULL
        RETURNING d.subject_id""",
        *_columns(answers),
    )
    return {row["subject_id"] for row in rows}


async def followed(db: Database, shipment_ids: Sequence[UUID]) -> dict[UUID, Record]:
    """Of these shipments those that can be followed: whose they are, who has them, since when, and how far."""
    rows = await db.fetch(
        """-- followed
        SELECT shipment_id, order_id, subject_id, carrier, rank, least(recorded_at, ordered_at) AS since FROM disclosures
        WHERE shipment_id = ANY($1::uuid[]) AND recall IS NULL AND erasure IS NULL""",
        list(shipment_ids),
    )
    return {row["shipment_id"]: row for row in rows}


async def keep_early(tx: Tx, kind: ReplyKind, answers: Sequence[Answer], now: datetime) -> list[str]:
    """Keeps them as far as there is room for their carrier. Returns the carrier of each one that is dropped."""
    rows = await tx.fetch(
        """-- keep_early
        WITH wanted AS (
            SELECT u.*, row_number() OVER (PARTITION BY carrier)
                + (SELECT count(*) FROM early_replies e WHERE e.carrier = u.carrier) > $6 AS is_too_many
            FROM unnest($1::uuid[], $2::varchar[], $3::timestamptz[]) AS u(shipment_id, carrier, at)
        ), kept AS (
            INSERT INTO early_replies (shipment_id, carrier, at, kind, arrived_at)
            SELECT shipment_id, carrier, at, $4, $5 FROM wanted WHERE NOT is_too_many ON CONFLICT DO NOTHING
        )
        SELECT carrier FROM wanted WHERE is_too_many""",
        *_columns(answers),
        kind.value,
        now,
        MOST_EARLY,
    )
    return [row["carrier"] for row in rows]


async def take_early(tx: Tx) -> list[Record]:
    """Takes out a page of early replies whose shipment is known by now."""
    return await tx.fetch(
        f"""-- take_early
        DELETE FROM early_replies e USING (
            SELECT r.shipment_id, r.carrier FROM early_replies r
            JOIN disclosures d USING (shipment_id, carrier) LIMIT {PAGE}
        ) found WHERE e.shipment_id = found.shipment_id AND e.carrier = found.carrier
        RETURNING e.shipment_id, e.carrier, e.kind, e.at"""  # noqa: S608
    )


async def drop_early(tx: Tx, before: datetime) -> int:
    """Forgets replies that nobody asked for. Returns how many."""
    status = await tx.execute("-- drop_early\nDELETE FROM early_replies WHERE arrived_at < $1", before)
    return int(status.split()[-1])


def _columns(answers: Sequence[Answer]) -> list[list[Any]]:
    return [[a.shipment_id for a in answers], [a.carrier for a in answers], [a.at for a in answers]]
