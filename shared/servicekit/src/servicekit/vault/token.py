"""Sealed tokens, version 1: one value under one key, committed to that key and bound to where it belongs.

    0x01 | key id 16 | nonce 12 | key commitment 32 | AES-256-GCM-SIV ciphertext and tag

The format, for any language, is docs/token.md. Pure: no I/O, no clock.
"""

import hmac
import secrets
from typing import Final
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from msgspec import Struct

from event_contracts.personal import MAX_TOKEN_BYTES, MIN_TOKEN_BYTES, TOKEN_VERSION

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
MAX_PLAINTEXT_BYTES: Final = MAX_TOKEN_BYTES - MIN_TOKEN_BYTES

_LABEL: Final = b"seal/v1"
_BODY_LABEL: Final = b"body/v1"
_NO_SALT: Final = HMAC(bytes(32), SHA256())
_KEY_ID = slice(1, 17)
_NONCE = slice(17, 29)
_COMMITMENT = slice(29, 61)
_BODY = slice(61, None)


class TokenRefused(ValueError):
    """The token does not open here: it was changed, moved, or sealed under another key. Nothing of it was believed."""


class SealingKey(Struct, frozen=True, eq=False):
    """A vault key made ready: derived once, used for many tokens. It shows nothing but its id."""

    key_id: UUID
    commitment: bytes
    aead: AESGCMSIV
    expand: HMAC

    @classmethod
    def derive(cls, key_id: UUID, key: bytes) -> "SealingKey":
        """From the 32 bytes that the vault keeps. Raises ValueError for any other length."""
        if len(key) != KEY_BYTES:
            raise ValueError("a vault key has 32 bytes; check what was handed in")
        # HKDF-SHA256 (RFC 5869) with no salt; one block of output is all that is asked for. A copy saves half of the time.
        extract = _NO_SALT.copy()
        extract.update(key)
        commitment = HMAC(extract.finalize(), SHA256())
        encryption, expand = commitment.copy(), commitment.copy()
        commitment.update(_LABEL + b"/commit\x01")
        encryption.update(_LABEL + b"/enc\x01")
        return cls(key_id, commitment.finalize(), AESGCMSIV(encryption.finalize()), expand)

    def digest(self, text: bytes) -> bytes:
        """An HMAC under a key of its own that derives from this one: without this key nobody can compute or compare it."""
        derived = self.expand.copy()
        derived.update(_BODY_LABEL + b"\x01")
        return hmac.digest(derived.finalize(), text, "sha256")

    def __repr__(self) -> str:
        return f"SealingKey({self.key_id})"


def seal(
    key: SealingKey,
    plaintext: bytes,
    *,
    data_class: str,
    model_name: str,
    subject: UUID,
    anchor: UUID,
    nonce: bytes | None = None,
) -> bytes:
    """Seal at most MAX_PLAINTEXT_BYTES for this subject and anchor. `nonce` is drawn when not handed in."""
    if len(plaintext) > MAX_PLAINTEXT_BYTES:
        raise ValueError("the value is too long to be sealed; MAX_PLAINTEXT_BYTES is the limit")
    nonce = secrets.token_bytes(NONCE_BYTES) if nonce is None else nonce
    bound = _aad(data_class, model_name, subject, anchor, key.key_id)
    body = key.aead.encrypt(nonce, plaintext, bound)
    return b"".join((bytes((TOKEN_VERSION,)), key.key_id.bytes, nonce, key.commitment, body))


def open_token(
    token: bytes, key: SealingKey, *, data_class: str, model_name: str, subject: UUID, anchor: UUID
) -> bytes:
    """Open a token that must be of this class, model, subject and anchor. Raises TokenRefused, with nothing of it.

    What binds the token is stated by the caller, from the row or event at hand; of the token only the key id counts.
    """
    if not MIN_TOKEN_BYTES <= len(token) <= MAX_TOKEN_BYTES or token[0] != TOKEN_VERSION:
        raise TokenRefused("not a sealed token of a known version")
    if token[_KEY_ID] != key.key_id.bytes:
        raise TokenRefused("the token names another key than the one handed in; lease the key that it names")
    # Before decryption: GCM-SIV alone does not commit to its key, so one ciphertext can open under two.
    if not hmac.compare_digest(token[_COMMITMENT], key.commitment):
        raise TokenRefused("the token is not committed to this key; it was changed, or the vault is another one")
    try:
        return key.aead.decrypt(token[_NONCE], token[_BODY], _aad(data_class, model_name, subject, anchor, key.key_id))
    except InvalidTag:
        raise TokenRefused("the token was changed, or moved from where it was sealed") from None


def _aad(data_class: str, model_name: str, subject: UUID, anchor: UUID, key_id: UUID) -> bytes:
    parts = (_LABEL, data_class.encode(), model_name.encode(), subject.bytes, anchor.bytes, key_id.bytes)
    return b"".join([len(part).to_bytes(2, "big") + part for part in parts])
