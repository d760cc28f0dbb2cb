"""Writes tokens.json: sealed tokens made by other code than ours. `python -m tests.contract.vectors.generate_tokens`.

The format is docs/token.md. Neither our kit nor `cryptography` is imported here.
"""

import json
from hashlib import sha256
from pathlib import Path
from uuid import UUID

from tests.contract.vectors.gcm_siv import encrypt, hkdf_sha256
from tests.contract.vectors.two_keys import two_key_ciphertext

HERE = Path(__file__).parent

CASES = (
    ("identity", "Reviewer", "{}"),
    ("contact", "Contact", '{"email":"jane@example.org","phone":"+4915112345678"}'),
    ("delivery", "Delivery", '{"consignee":{"name":"山田花子","lines":["千代田区丸の内1-9-1"]}}'),
    ("order_record", "OrderRecord", json.dumps({"lines": ["x" * 100] * 20})),
    ("payment", "Payment", ""),
)


def token(key: bytes, key_id: UUID, nonce: bytes, plaintext: bytes, bound: bytes) -> bytes:
    """0x01, key id, nonce, key commitment, AES-256-GCM-SIV ciphertext and tag."""
    sealed = encrypt(hkdf_sha256(key, b"seal/v1/enc"), nonce, plaintext, bound)
    return b"\x01" + key_id.bytes + nonce + hkdf_sha256(key, b"seal/v1/commit") + sealed


def bound(data_class: str, model: str, subject: UUID, anchor: UUID, key_id: UUID) -> bytes:
    """The associated data: each part after its length in two bytes."""
    parts = (b"seal/v1", data_class.encode(), model.encode(), subject.bytes, anchor.bytes, key_id.bytes)
    return b"".join(len(part).to_bytes(2, "big") + part for part in parts)


def _bytes(label: str, size: int) -> bytes:
    return sha256(label.encode()).digest()[:size]


def _uuid(label: str) -> UUID:
    return UUID(bytes=_bytes(label, 16), version=4)


def sealed_case(number: int, data_class: str, model: str, plaintext: str) -> dict[str, str]:
    key, nonce = _bytes(f"key {number}", 32), _bytes(f"nonce {number}", 12)
    key_id, subject, anchor = (_uuid(f"{name} {number}") for name in ("key id", "subject", "anchor"))
    aad = bound(data_class, model, subject, anchor, key_id)
    return {
        "key": key.hex(),
        "key_id": str(key_id),
        "nonce": nonce.hex(),
        "data_class": data_class,
        "model": model,
        "subject": str(subject),
        "anchor": str(anchor),
        "plaintext": plaintext,
        "encryption_key": hkdf_sha256(key, b"seal/v1/enc").hex(),
        "commitment": hkdf_sha256(key, b"seal/v1/commit").hex(),
        "aad": aad.hex(),
        "token": token(key, key_id, nonce, plaintext.encode(), aad).hex(),
    }


def two_key_case() -> dict[str, str | list[str]]:
    """One GCM-SIV ciphertext for one key id, with the same associated data, that opens under two vault keys."""
    keys = (_bytes("first of two", 32), _bytes("second of two", 32))
    key_id, subject, anchor = (_uuid(f"{name} of two") for name in ("key id", "subject", "anchor"))
    nonce, aad = _bytes("nonce of two", 12), bound("identity", "Reviewer", subject, anchor, key_id)
    encryption_keys = (hkdf_sha256(keys[0], b"seal/v1/enc"), hkdf_sha256(keys[1], b"seal/v1/enc"))
    return {
        "keys": [key.hex() for key in keys],
        "encryption_keys": [key.hex() for key in encryption_keys],
        "key_id": str(key_id),
        "nonce": nonce.hex(),
        "data_class": "identity",
        "model": "Reviewer",
        "subject": str(subject),
        "anchor": str(anchor),
        "aad": aad.hex(),
        "ciphertext": two_key_ciphertext(encryption_keys, nonce, (aad, aad)).hex(),
    }


def make_vectors() -> dict[str, object]:
    return {
        "format": "docs/token.md",
        "tokens": [sealed_case(number, *case) for number, case in enumerate(CASES, start=1)],
        "two_keys": two_key_case(),
    }


if __name__ == "__main__":
    (HERE / "tokens.json").write_text(json.dumps(make_vectors(), indent=1, ensure_ascii=False) + "\n", "utf-8")
