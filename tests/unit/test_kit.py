"""The blind index's digests: nobody without the index key can compute them (law L2)."""

import hashlib
from dataclasses import dataclass
from typing import Any

import pytest

from servicekit.kit import Kit

EMAIL = "Jane.Canary@example.org"


@dataclass
class IndexVault:
    """Hands out one index key for every kind."""

    key: bytes

    async def index_key(self, kind: str) -> bytes:
        return self.key


def kit_with(key: bytes) -> Kit:
    unused: Any = None
    vault: Any = IndexVault(key)
    return Kit("account", unused, unused, unused, vault, unused)


async def test_a_digest_depends_on_the_index_key() -> None:
    digest = await kit_with(b"one key").digest("email", EMAIL)
    assert digest != await kit_with(b"another").digest("email", EMAIL)
    assert digest != hashlib.sha256(EMAIL.casefold().encode()).digest()
    assert len(digest) == 32


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("email", EMAIL, f"  {EMAIL.upper()} "),
        ("phone", "+49 (0) 151 / 123", "+490151123"),
        ("order_number", "ab-12 cd", "AB12CD"),
    ],
)
async def test_a_term_has_one_digest_however_it_is_written(kind: str, one: str, other: str) -> None:
    kit = kit_with(bytes(32))
    assert await kit.digest(kind, one) == await kit.digest(kind, other)
