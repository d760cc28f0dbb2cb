"""Rate limits for look-ups by something personal:
counted under a keyed digest, in memory, for minutes (PROTOCOLS §8).
"""

import hashlib
import hmac
import secrets
from collections import OrderedDict
from dataclasses import dataclass

from servicekit.clock import Clock
from servicekit.errors import TooMany
from servicekit.metrics import RATE_LIMITED


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class RateLimit:
    """A token bucket per term: `burst` at once, then `per_minute`. It counts in this process only.

    A term is kept as a digest under a key that this process drew for itself, and forgotten when its bucket is full
    again. At most `size` terms are counted; beyond that the one that was seen longest ago is forgotten (law L12).
    """

    def __init__(self, name: str, clock: Clock, *, per_minute: float, burst: int, size: int = 20_000) -> None:
        self._name, self._clock = name, clock
        self._per_second, self._burst, self._size = per_minute / 60, burst, size
        self._key = secrets.token_bytes(32)
        self._buckets: OrderedDict[bytes, _Bucket] = OrderedDict()

    def take(self, term: bytes | str) -> None:
        """Count one try. Raises `TooMany` with the seconds to wait when the bucket is empty."""
        now = self._clock.boottime()
        bucket = self._bucket(term, now)
        if bucket.tokens < 1:
            RATE_LIMITED.labels(self._name).inc()
            raise TooMany(retry_after=(1 - bucket.tokens) / self._per_second)
        bucket.tokens -= 1

    def _bucket(self, term: bytes | str, now: float) -> _Bucket:
        message = term.encode() if isinstance(term, str) else term
        digest = hmac.new(self._key, message, hashlib.sha256).digest()
        bucket = self._buckets.setdefault(digest, _Bucket(self._burst, now))
        bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.at) * self._per_second)
        bucket.at = now
        self._buckets.move_to_end(digest)
        self._forget(now)
        return bucket

    def _forget(self, now: float) -> None:
        """Drop the terms whose buckets are full again, oldest first, and the oldest of too many."""
        full_after = self._burst / self._per_second
        while self._buckets:
            digest, oldest = next(iter(self._buckets.items()))
            if len(self._buckets) <= self._size and now - oldest.at < full_after:
                return
            del self._buckets[digest]
