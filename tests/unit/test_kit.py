"""Digests that nobody without their key can compute (law L2): the blind index's, and those of what was asked for."""

import hashlib
import hmac
import secrets
from dataclasses import dataclass, replace
from typing import Annotated, Any
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import BaseModel, Field, SecretStr

from servicekit.core.errors import Gone, KeyReused
from servicekit.kit import Kit, body_digest, same_body
from servicekit.vault.token import SealingKey

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


def test_the_context_is_what_the_service_made_and_of_no_other_type() -> None:
    kit = replace(kit_with(bytes(32)), own=IndexVault(b"key"))
    assert kit.context(IndexVault).key == b"key"
    with pytest.raises(TypeError, match="account holds no Kit of its own"):
        kit.context(Kit)


async def test_a_digest_depends_on_the_index_key() -> None:
    digest = await kit_with(b"one key").digest("email", EMAIL)
    assert digest != await kit_with(b"another").digest("email", EMAIL)
    assert digest != hashlib.sha256(EMAIL.casefold().encode()).digest()
    assert len(digest) == 32


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("info@faß.example", "info@fass.example"),
        ("straße@shop.example", "strasse@shop.example"),
        ("ﬁ@shop.example", "fi@shop.example"),
        ("x²@shop.example", "x2@shop.example"),
    ],
)
async def test_two_mailboxes_have_two_digests(one: str, other: str) -> None:
    kit = kit_with(bytes(32))
    assert await kit.digest("email", one) != await kit.digest("email", other)


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


class Order(BaseModel):
    sku: str
    note: str | None = None
    password: Annotated[SecretStr, Field(min_length=1)] = SecretStr("")


def test_a_digest_of_a_body_names_its_key_and_leaves_passwords_out() -> None:
    key, other = (SealingKey.derive(uuid4(), secrets.token_bytes(32)) for _ in range(2))
    digest = body_digest(key, Order(sku="A", password=SecretStr("one")))
    assert digest[:16] == key.key_id.bytes
    assert digest == body_digest(key, Order(sku="A", note=None, password=SecretStr("two")))
    same_body(digest, digest)
    for changed in (Order(sku="B"), Order(sku="A", note="A")):
        with pytest.raises(KeyReused):
            same_body(digest, body_digest(key, changed))
    for stored in (None, body_digest(other, Order(sku="A"))):
        with pytest.raises(Gone):
            same_body(stored, digest)


def test_the_key_of_a_digest_is_not_the_one_that_encrypts_or_commits() -> None:
    raw = secrets.token_bytes(32)
    key = SealingKey.derive(uuid4(), raw)
    hkdf = HKDF(SHA256(), 32, salt=None, info=b"body/v1")
    assert key.digest(b"what was asked") == hmac.digest(hkdf.derive(raw), b"what was asked", "sha256")
    assert key.digest(b"") not in (key.commitment, hmac.digest(raw, b"", "sha256"))
