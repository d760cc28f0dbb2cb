"""Rate limits: who may ask how often (laws L12 and L13; the table is in docs/limits.md).

`Strangers` counts in this process, before anything else is done. `Limits` counts for all processes of a service, in
unlogged rows of its database, under keyed digests that live for a day at the most (docs/limits.md).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Literal
from uuid import UUID

from servicekit.core.batcher import Batcher
from servicekit.core.clock import Clock
from servicekit.core.errors import TooMany
from servicekit.core.metrics import RATE_LIMITED
from servicekit.db.postgres import Database

_LIMITS_KEY: Final = "x-limits"
LONGEST: Final = 86_400
AT_ONCE: Final = 200
FORGET_AT_ONCE: Final = 10_000


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `most` tries in `seconds`, counted by the caller's id (`actor`), by `peer`, or by a term that a route names."""

    name: str
    most: int
    seconds: int
    by: Literal["actor", "peer", "term"] = "actor"

    def __post_init__(self) -> None:
        if not (self.most >= 1 and 1 <= self.seconds <= LONGEST):
            raise ValueError(f"a limit counts at least 1 try, for at most {LONGEST} seconds")


# What holds for every route, by who calls it. Services are bounded by the vault's quotas.
OPEN: Final = (Limit("open", 240, 60, "peer"),)
CUSTOMER: Final = (Limit("customer", 300, 60),)
STAFF: Final = (Limit("staff", 600, 60),)


def limited(*limits: Limit) -> dict[str, Any]:
    """`openapi_extra` of a route with limits of its own, beside those that hold for every route."""
    return {_LIMITS_KEY: [asdict(limit) for limit in limits]}


def limits_of(openapi_extra: Mapping[str, Any] | None) -> tuple[Limit, ...]:
    """The limits that `limited` has put down for a route."""
    return tuple(Limit(**each) for each in (openapi_extra or {}).get(_LIMITS_KEY, ()))


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class Strangers:
    """A token bucket for each peer that sends requests without a valid token: `burst` at once, then `per_minute`.

    It counts in this process only. At most `size` peers are counted; beyond that the one that was seen longest ago is
    forgotten (law L12).
    """

    def __init__(self, clock: Clock, *, per_minute: float, burst: int, size: int = 20_000) -> None:
        self._clock = clock
        self._per_second, self._burst, self._size = per_minute / 60, burst, size
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, peer: str) -> None:
        """Count one try. Raises `TooMany` with the seconds to wait when the bucket is empty."""
        now = self._clock.boottime()
        bucket = self._bucket(peer, now)
        if bucket.tokens < 1:
            RATE_LIMITED.labels("stranger").inc()
            raise TooMany(retry_after=(1 - bucket.tokens) / self._per_second)
        bucket.tokens -= 1

    def _bucket(self, peer: str, now: float) -> _Bucket:
        bucket = self._buckets.setdefault(peer, _Bucket(self._burst, now))
        bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.at) * self._per_second)
        bucket.at = now
        self._buckets.move_to_end(peer)
        self._forget(now)
        return bucket

    def _forget(self, now: float) -> None:
        """Drop the peers whose buckets are full again, oldest first, and the oldest of too many."""
        full_after = self._burst / self._per_second
        while self._buckets:
            peer, oldest = next(iter(self._buckets.items()))
            if len(self._buckets) <= self._size and now - oldest.at < full_after:
                return
            del self._buckets[peer]


@dataclass(frozen=True, slots=True)
class Count:
    """How many tries there were, this one included, and when they are forgotten."""

    tries: int
    ends_at: datetime


@dataclass
class Limits:
    """The limits of one service. `key` is the same in all its processes; without one it counts for this process only."""

    db: Database
    clock: Clock
    key: bytes | None = None
    factor: float = 1.0
    _batcher: Batcher[Sequence[tuple[UUID, int]], Sequence[Count]] = field(init=False)

    def __post_init__(self) -> None:
        self.key = self.key or secrets.token_bytes(32)
        self._batcher = Batcher(self._count_all, (), AT_ONCE, weight=len)

    async def take(self, *tries: tuple[Limit, str | bytes]) -> None:
        """Count one try under each limit and term. Raises `TooMany`; `Unavailable` without the database: it fails closed."""
        counts = await self.count(*tries)
        refused = [
            (limit, count) for (limit, _), count in zip(tries, counts, strict=True) if self.is_over(limit, count)
        ]
        if refused:
            raise self.refusal(*refused)

    async def count(self, *tries: tuple[Limit, str | bytes]) -> Sequence[Count]:
        """Count one try under each, and refuse nothing."""
        if not tries:
            return []
        return await self._batcher.answer([(self._digest(limit, term), limit.seconds) for limit, term in tries])

    async def remember(self, limit: Limit, term: str | bytes) -> None:
        """Count a try that is forgotten as long after this one as the limit says, whenever the first one was."""
        now = self.clock.now()
        await remember_try(self.db, self._digest(limit, term), now + timedelta(seconds=limit.seconds))

    async def was_tried(self, limit: Limit, term: str | bytes) -> bool:
        """Whether there was a try that is not forgotten."""
        return await has_tried(self.db, self._digest(limit, term), self.clock.now())

    def is_over(self, limit: Limit, count: Count) -> bool:
        return count.tries > max(1, int(limit.most * self.factor))

    def refusal(self, *refused: tuple[Limit, Count]) -> TooMany:
        for limit, _ in refused:
            RATE_LIMITED.labels(limit.name).inc()
        now = self.clock.now()
        return TooMany(retry_after=max((count.ends_at - now).total_seconds() for _, count in refused))

    def _digest(self, limit: Limit, term: str | bytes) -> UUID:
        assert self.key is not None
        raw = term.encode() if isinstance(term, str) else term
        return UUID(bytes=hmac.digest(self.key, limit.name.encode() + b"\0" + raw, hashlib.sha256)[:16])

    async def _count_all(self, questions: Sequence[Sequence[tuple[UUID, int]]]) -> list[list[Count]]:
        """One statement for all that came meanwhile. Each question is told the count that it would have had alone, in turn."""
        tries = Counter(digest for question in questions for digest, _ in question)
        seconds = {digest: each for question in questions for digest, each in question}
        counted = await count_tries(self.db, tries, seconds, self.clock.now())
        after = Counter(tries)
        answers = []
        for question in questions:
            counts = []
            for digest, _ in question:
                after[digest] -= 1
                count = counted[digest]
                counts.append(Count(count.tries - after[digest], count.ends_at))
            answers.append(counts)
        return answers


async def count_tries(
    db: Database, tries: Mapping[UUID, int], seconds: Mapping[UUID, int], now: datetime
) -> dict[UUID, Count]:
    """Adds to each count; one whose time is over begins anew. In the order of the digests, so that none waits in a circle."""
    digests = sorted(tries)
    rows = await db.fetch(
        """-- count_tries
        INSERT INTO kit.rate_limits AS l (digest, tries, ends_at)
        SELECT * FROM unnest($1::uuid[], $2::integer[], $3::timestamptz[])
        ON CONFLICT (digest) DO UPDATE
        SET tries = CASE WHEN l.ends_at <= $4 THEN excluded.tries ELSE least(l.tries, 1000000000) + excluded.tries END,
            ends_at = CASE WHEN l.ends_at <= $4 THEN excluded.ends_at ELSE least(l.ends_at, excluded.ends_at) END
        RETURNING digest, tries, ends_at""",
        digests,
        [tries[digest] for digest in digests],
        [now + timedelta(seconds=seconds[digest]) for digest in digests],
        now,
    )
    return {row["digest"]: Count(row["tries"], row["ends_at"]) for row in rows}


async def remember_try(db: Database, digest: UUID, ends_at: datetime) -> None:
    await db.fetch(
        """-- remember_try
        INSERT INTO kit.rate_limits (digest, tries, ends_at) VALUES ($1, 1, $2)
        ON CONFLICT (digest) DO UPDATE SET ends_at = excluded.ends_at""",
        digest,
        ends_at,
    )


async def has_tried(db: Database, digest: UUID, now: datetime) -> bool:
    row = await db.fetchrow("-- has_tried\nSELECT FROM kit.rate_limits WHERE digest = $1 AND ends_at > $2", digest, now)
    return row is not None


async def forget_tries(db: Database, now: datetime) -> None:
    """Deletes what is over, a bounded part at a time. It waits for no row, so it never waits in a circle with `count_tries`."""
    await db.fetch(
        """-- forget_tries
        DELETE FROM kit.rate_limits WHERE digest = ANY(ARRAY(
            SELECT digest FROM kit.rate_limits WHERE ends_at <= $1 ORDER BY ends_at LIMIT $2 FOR UPDATE SKIP LOCKED))""",
        now,
        FORGET_AT_ONCE,
    )
