"""Opens sealed tokens, wrapped keys and messages to carriers as an attacker would: by docs/token.md, docs/vault.md,
docs/carrier.md and the RFCs alone, nothing of ours.

It knows no associated data and needs none. A tag that nobody checks hinders nobody: what is left of AES-256-GCM-SIV is
a counter mode whose first block is the tag, so a token that was moved, or whose model is unknown, opens here as well.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap

VERSION, KEY_ID, NONCE, COMMITMENT, CONTENT = 0, slice(1, 17), slice(17, 29), slice(29, 61), slice(61, None)
SHORTEST = 77
TAG = 16
# base64url of at least 77 bytes of which the first is 0x01; nothing of the alphabet stands before it
TEXT_TOKEN = re.compile(rb"(?<![A-Za-z0-9_-])A[Q-Za-f][A-Za-z0-9_-]{101,}")
# header, encrypted key, nonce, ciphertext, tag of a compact JWE (RFC 7516)
JWE = re.compile(rb"eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]{16}\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]{22}")


@dataclass(frozen=True)
class StolenKey:
    """A key of the vault, and the row of the dump in which it lay."""

    key: bytes
    key_id: uuid.UUID
    subject: uuid.UUID
    data_class: str
    anchor: uuid.UUID


class KeyRing:
    """Every key that could be unwrapped. `of` tries all of them at once: a key gives itself away by its commitment."""

    def __init__(self, keys: Iterable[StolenKey]) -> None:
        self._by_commitment: dict[bytes, StolenKey] = {}
        self._by_id: dict[bytes, StolenKey] = {}
        for each in keys:
            self._by_commitment[_expand(each.key, b"seal/v1/commit")] = each
            self._by_id[each.key_id.bytes] = each

    def __len__(self) -> int:
        return len(self._by_id)

    def of(self, token: bytes) -> StolenKey | None:
        """The key that opens the token; failing that, the one that it names."""
        return self._by_commitment.get(token[COMMITMENT]) or self._by_id.get(token[KEY_ID])


def open_token(token: bytes, key: bytes) -> bytes:
    """What the token holds; noise if the key is another one."""
    return counter_mode(_expand(key, b"seal/v1/enc"), token[NONCE], token[CONTENT])


def unwrap(wrapped: bytes, kek: bytes) -> bytes:
    """The key of a row of the vault; noise if the KEK is another one."""
    return counter_mode(kek, wrapped[:12], wrapped[12:])


def counter_mode(key: bytes, nonce: bytes, content: bytes) -> bytes:
    """AES-256-GCM-SIV (RFC 8452) without the check: `content` is ciphertext and tag."""
    # Section 4: eight bytes of each of six blocks; the first two make the authentication key, which nobody needs.
    blocks = _encrypt(key, b"".join(number.to_bytes(4, "little") + nonce for number in range(2, 6)))
    encryption_key = b"".join(blocks[place : place + 8] for place in range(0, 64, 16))
    ciphertext, tag = content[:-TAG], content[-TAG:]
    first, rest = int.from_bytes(tag[:4], "little"), tag[4:15] + bytes([tag[15] | 0x80])
    count = -(-len(ciphertext) // 16)
    counters = b"".join(((first + n) % 2**32).to_bytes(4, "little") + rest for n in range(count))
    stream = _encrypt(encryption_key, counters)[: len(ciphertext)]
    return (int.from_bytes(ciphertext) ^ int.from_bytes(stream)).to_bytes(len(ciphertext))


class CarrierKey:
    """A carrier's private JWK (X25519), with which messages to it open: `ECDH-ES+A256KW` with `A256GCM` (RFC 7518)."""

    def __init__(self, jwk: str) -> None:
        self._private = X25519PrivateKey.from_private_bytes(_base64url(json.loads(jwk)["d"].encode()))
        # The gateway uses one ephemeral key for a window of messages.
        self._wrapping_key = lru_cache(maxsize=1024)(self._agree)

    def open(self, envelope: bytes) -> bytes | None:
        """What a compact JWE holds; None if it is to another key."""
        header, wrapped, nonce, ciphertext, tag = envelope.split(b".")
        try:
            key = aes_key_unwrap(self._wrapping_key(header), _base64url(wrapped))
            return AESGCM(key).decrypt(_base64url(nonce), _base64url(ciphertext) + _base64url(tag), header)
        except (InvalidUnwrap, InvalidTag, ValueError, KeyError):
            return None

    def _agree(self, header: bytes) -> bytes:
        """The Concat KDF of RFC 7518 §4.6.2, one round of SHA-256."""
        named = json.loads(_base64url(header))
        public = X25519PublicKey.from_public_bytes(_base64url(named["epk"]["x"].encode()))
        parts = (named["alg"].encode(), *(_base64url(named.get(party, "").encode()) for party in ("apu", "apv")))
        fields = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        round_one = (1).to_bytes(4, "big") + self._private.exchange(public) + fields + (256).to_bytes(4, "big")
        return hashlib.sha256(round_one).digest()


def tokens_in(content: bytes) -> Iterator[bytes]:
    """Whatever could be a sealed token: these very bytes, and base64url texts inside of them."""
    if len(content) >= SHORTEST and content[VERSION] == 1:
        yield content
    for match in TEXT_TOKEN.finditer(content):
        text = match[0]
        if len(text) % 4 != 1:
            yield _base64url(text)


def _base64url(text: bytes) -> bytes:
    return base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))


def _expand(key: bytes, info: bytes) -> bytes:
    """HKDF-SHA256 (RFC 5869) without salt, one block of output."""
    return hmac.digest(hmac.digest(bytes(32), key, "sha256"), info + b"\x01", "sha256")


def _encrypt(key: bytes, blocks: bytes) -> bytes:
    encryptor = Cipher(AES(key), ECB()).encryptor()
    return encryptor.update(blocks) + encryptor.finalize()
