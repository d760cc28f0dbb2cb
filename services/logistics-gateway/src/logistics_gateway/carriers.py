"""What travels between the gateway and a carrier: JWE in both directions (docs/carrier.md).

Out: RFC 7516 compact form, `ECDH-ES+A256KW` (RFC 7518 §4.6) with `A256GCM` (§5.3). A key agreement costs many times
the rest of a message, so one ephemeral key serves a short window of messages to one carrier; each message has a content
key and a nonce of its own.
Back: a JWE to the gateway's reply key, opened with a JOSE library.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDH,
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_p256
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import aes_key_wrap
from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey
from pydantic import ValidationError

from event_contracts.base64url import decode, encode
from event_contracts.carrier import CarrierReply
from event_contracts.moments import IMPLAUSIBLE, is_implausible
from servicekit.core.errors import Misconfigured, Poison

ALG, ENC = "ECDH-ES+A256KW", "A256GCM"
KEY_BYTES, NONCE_BYTES, TAG_BYTES, RECORD_KEY_BYTES = 32, 12, 16, 16
MAX_REPLY_BYTES = 16 * 1024


class Agreement:
    """One key agreement with a carrier: the header that all its messages share, and the key that wraps theirs."""

    def __init__(self, public: X25519PublicKey | EllipticCurvePublicKey, kid: str, begun: float) -> None:
        epk, secret = _agree(public)
        header = {"alg": ALG, "enc": ENC, "kid": kid, "epk": epk, "typ": "shipment+jwe"}
        self.header = encode(json.dumps(header, separators=(",", ":")).encode()).encode()
        self.wrapping_key = concat_kdf(secret)
        self.begun = begun
        self.messages = 0


class Envelopes:
    """Seals messages to one carrier's registered key. `now` is a clock that never goes back, in seconds."""

    def __init__(self, jwk: Mapping[str, Any], now: Callable[[], float], seconds: float, messages: int) -> None:
        """Raises `Misconfigured` unless `jwk` is a public X25519 or P-256 key with a `kid`."""
        self._public, self._kid = read_public_jwk(jwk)
        self._now = now
        self._seconds, self._messages = seconds, messages
        self._agreement = Agreement(self._public, self._kid, now())

    def seal(self, payload: bytes) -> bytes:
        """A compact JWE."""
        agreement = self._current()
        fresh = os.urandom(KEY_BYTES + NONCE_BYTES)
        content_key, nonce = fresh[:KEY_BYTES], fresh[KEY_BYTES:]
        sealed = AESGCM(content_key).encrypt(nonce, payload, agreement.header)
        wrapped = aes_key_wrap(agreement.wrapping_key, content_key)
        ciphertext, tag = sealed[:-TAG_BYTES], sealed[-TAG_BYTES:]
        return b".".join((agreement.header, *(encode(part).encode() for part in (wrapped, nonce, ciphertext, tag))))

    def _current(self) -> Agreement:
        agreement = self._agreement
        if agreement.messages >= self._messages or self._now() - agreement.begun >= self._seconds:
            agreement = self._agreement = Agreement(self._public, self._kid, self._now())
        agreement.messages += 1
        return agreement


class ReplyKey:
    """The gateway's private key: opens carriers' replies, and is the root of keys that only the gateway has."""

    def __init__(self, jwk: Mapping[str, Any]) -> None:
        """Raises `Misconfigured` unless `jwk` is a private X25519 or P-256 key."""
        try:
            self._key = OKPKey.import_key(dict(jwk)) if jwk["kty"] == "OKP" else ECKey.import_key(dict(jwk))
            self._root = decode(jwk["d"])
        except (JoseError, KeyError, ValueError, TypeError):
            raise Misconfigured("REPLY_KEY_FILE must hold a private X25519 or P-256 JWK with `d`.") from None
        self._registry = jwe.JWERegistry(algorithms=[ALG, ENC])
        self._digest_key = self._derive(b"gateway/v1/disclosure digest")

    def open_reply(self, value: bytes | None) -> CarrierReply | None:
        """What a carrier answered; None for a reply of a kind that we do not know.

        Raises `Poison`: in clear, not to this key, tampered with, or no reply.
        """
        if value is None or len(value) > MAX_REPLY_BYTES:
            raise Poison("reply_size")
        try:
            opened = jwe.decrypt_compact(value, self._key, registry=self._registry)
        # A broken header can make the library fail with nearly anything, and its text could hold the input.
        except Exception:  # noqa: BLE001
            raise Poison("reply_not_sealed_to_us") from None
        try:
            return CarrierReply.model_validate_json(opened.plaintext or b"")
        except ValidationError as error:
            if _is_of_unknown_kind(error):
                return None
            raise Poison(IMPLAUSIBLE if is_implausible(error) else "reply_breaks_contract") from None

    def record_keys(self, carrier: str) -> Callable[[UUID], bytes]:
        """Names consignees on one carrier's topic: a person's parcels keep their order, and carriers cannot compare."""
        key = self._derive(f"gateway/v1/record key/{carrier}".encode())
        return lambda consignee: hmac.digest(key, consignee.bytes, "sha256")[:RECORD_KEY_BYTES].hex().encode()

    def digest(self, shipment_id: UUID, message: bytes) -> bytes:
        """The ledger's proof of what left: nobody without this key can test a guess against it. 32 bytes."""
        return hmac.digest(self._digest_key, shipment_id.bytes + message, "sha256")

    def _derive(self, info: bytes) -> bytes:
        return HKDF(SHA256(), KEY_BYTES, salt=None, info=info).derive(self._root)


def _is_of_unknown_kind(error: ValidationError) -> bool:
    """Whether the kind, a text, is all that the contract does not know."""
    return all(
        each["loc"] == ("kind",) and each["type"] == "enum" and isinstance(each["input"], str)
        for each in error.errors(include_url=False, include_context=False)
    )


def concat_kdf(secret: bytes) -> bytes:
    """NIST SP 800-56A's Concat KDF as RFC 7518 §4.6.2 uses it for a 256-bit wrapping key, without party info."""
    algorithm = ALG.encode()
    info = len(algorithm).to_bytes(4, "big") + algorithm + bytes(4) + bytes(4) + (8 * KEY_BYTES).to_bytes(4, "big")
    return hashlib.sha256((1).to_bytes(4, "big") + secret + info).digest()


def read_public_jwk(jwk: Mapping[str, Any]) -> tuple[X25519PublicKey | EllipticCurvePublicKey, str]:
    """The public key of a JWK (RFC 7517, RFC 8037) and its `kid`. Raises `Misconfigured`, also for a private key."""
    try:
        if "d" in jwk:
            raise ValueError
        kid = str(jwk["kid"])
        if (jwk["kty"], jwk["crv"]) == ("OKP", "X25519"):
            return X25519PublicKey.from_public_bytes(decode(jwk["x"])), kid
        if (jwk["kty"], jwk["crv"]) == ("EC", "P-256"):
            point = b"\x04" + decode(jwk["x"]) + decode(jwk["y"])
            return EllipticCurvePublicKey.from_encoded_point(SECP256R1(), point), kid
    except (KeyError, ValueError, TypeError):
        pass
    raise Misconfigured("A carrier's key must be a public JWK: X25519 (OKP) or P-256 (EC), with `kid` and without `d`.")


def read_jwk(file: Path) -> dict[str, Any]:
    """Raises `Misconfigured` unless the file holds one JSON object."""
    try:
        jwk = json.loads(file.read_bytes())
    except (OSError, ValueError):
        jwk = None
    if not isinstance(jwk, dict):
        raise Misconfigured(f"{file.name} cannot be read as a JWK: write one JSON object into it.")
    return jwk


def _agree(public: X25519PublicKey | EllipticCurvePublicKey) -> tuple[dict[str, str], bytes]:
    """A fresh ephemeral key: its public JWK, and the secret that it shares with the carrier's."""
    if isinstance(public, X25519PublicKey):
        ephemeral = X25519PrivateKey.generate()
        epk = {"kty": "OKP", "crv": "X25519", "x": encode(ephemeral.public_key().public_bytes_raw())}
        return epk, ephemeral.exchange(public)
    on_curve: EllipticCurvePrivateKey = generate_p256(SECP256R1())
    numbers = on_curve.public_key().public_numbers()
    x, y = (encode(number.to_bytes(32, "big")) for number in (numbers.x, numbers.y))
    return {"kty": "EC", "crv": "P-256", "x": x, "y": y}, on_curve.exchange(ECDH(), public)
