"""Passwords: argon2id, computed in few threads off the event loop, with a bounded queue before them."""

import asyncio
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from account_service.settings import AccountSettings
from servicekit.core.errors import TooMany

T = TypeVar("T")


class Passwords:
    """Makes and verifies hashes. Raises `TooMany` when `argon2_waiting` of them are waiting already (law L12)."""

    def __init__(self, settings: AccountSettings) -> None:
        self._hasher = PasswordHasher(
            time_cost=settings.argon2_time_cost,
            memory_cost=settings.argon2_memory_kib,
            parallelism=settings.argon2_lanes,
        )
        self._threads = ThreadPoolExecutor(settings.argon2_threads, thread_name_prefix="argon2")
        self._room = settings.argon2_threads + settings.argon2_waiting
        self._nobody = self._hasher.hash("nobody's password")

    async def hash(self, password: str) -> str:
        return await self._run(lambda: self._hasher.hash(_spelling(password)))

    async def verify(self, stored: str | None, password: str) -> bool:
        """Whether `password` is the one of the hash `stored`.

        Without a hash it costs the same, and the answer is no.
        """
        right = await self._run(lambda: _verify(self._hasher, stored or self._nobody, _spelling(password)))
        return right and stored is not None

    async def _run(self, work: Callable[[], T]) -> T:
        if self._room == 0:
            raise TooMany(retry_after=5)
        self._room -= 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._room += 1


def _verify(hasher: PasswordHasher, stored: str, password: str) -> bool:
    try:
        return hasher.verify(stored, password)
    except (VerificationError, InvalidHashError):
        return False


def _spelling(password: str) -> str:
    """One spelling of the same characters (RFC 8265 §4.2), whatever keyboard they were typed on."""
    return unicodedata.normalize("NFC", password)
