"""All key files of one stack, and the tokens that a person at the keyboard needs.

Layout of the folder (mode 0700, files 0600):

    identities/<system>.pem          a service's own Ed25519 key (PKCS#8)
    service_keys/<system>.pem        its public half (SPKI), for the vault
    ids/<system>.key                 32 random bytes in hex: a service makes ids under them
    customer.pem, customer.pub.pem   sign and verify customers' tokens (Ed25519)
    staff.pem, staff.pub.pem         the same for staff
    kek/epoch-1.key, kek/index.key   32 random bytes each, the vault's
    revocations.pem                  signs the vault's list of revocations (Ed25519)
    reply.jwk, reply.pub.json        the gateway's X25519 key, private and public, for what carriers answer
    carriers/<carrier>.json          a carrier's public X25519 JWK, for the gateway
    carrier_keys/<carrier>.json      the carrier's private JWK
    evidence/log.pem, log.vkey       sign and verify the evidence log's checkpoints (Ed25519; C2SP's form of a public key)
    witness/witness.pem, .vkey       the same for its witness
    mail.key                         codes of confirmations are derived under it (32 random bytes in hex)
    mail-ca.pem, smtp.password       written by the local mail server
    kafka/<user>.password            written by the stack
"""

import json
import os
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal
from uuid import UUID, uuid4

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from joserfc import jwt
from joserfc.jwk import OKPKey

from evidence_log.checkpoint import LOG, WITNESS, Signer
from evidence_log.witness import WitnessSettings
from privacy_service.settings import PrivacySettings

AUDIENCE = "shop"
StaffRole = Literal["support", "privacy_officer", "auditor", "accounting"]


def write_keys(folder: Path, systems: Iterable[str], carriers: Iterable[str]) -> None:
    """Write every key that a new stack of these systems and carriers needs into the new folder."""
    for part in ("", "identities", "service_keys", "ids", "kek", "carriers", "carrier_keys", "evidence", "witness"):
        (folder / part).mkdir(mode=0o700)
    for name in ("customer", "staff"):
        _write_pair(folder / f"{name}.pem", folder / f"{name}.pub.pem")
    for system in systems:
        add_service(folder, system)
    _write(mail_key_file(folder), secrets.token_hex(32).encode())
    for name in ("epoch-1.key", "index.key"):
        _write(folder / "kek" / name, secrets.token_bytes(32))
    _write_note_key(folder / "evidence" / "log.pem", PrivacySettings().evidence_origin, LOG)
    _write_note_key(folder / "witness" / "witness.pem", WitnessSettings().witness_name, WITNESS)
    _write(folder / "revocations.pem", _private_pem(Ed25519PrivateKey.generate()))
    reply_key = _carrier_key("gateway")
    _write(folder / "reply.jwk", _jwk(reply_key, private=True))
    _write(reply_key_file(folder), _jwk(reply_key, private=False))
    for carrier in carriers:
        add_carrier(folder, carrier)


def add_service(folder: Path, system: str) -> None:
    """The keys of one service: its private key, the public one where the vault looks, and the key of its ids."""
    _write_pair(identity_file(folder, system), folder / "service_keys" / f"{system}.pem")
    _write(id_key_file(folder, system), secrets.token_hex(32).encode())


def add_carrier(folder: Path, carrier: str) -> None:
    """The key pair of one carrier: the public half where the gateway looks, the private half for the carrier."""
    key = _carrier_key(carrier)
    _write(carrier_key_file(folder, carrier), _jwk(key, private=True))
    _write(folder / "carriers" / f"{carrier}.json", _jwk(key, private=False))


def log_key_file(folder: Path) -> Path:
    """Where the evidence log's public key is, for whoever checks certificates."""
    return folder / "evidence" / "log.vkey"


def witness_key_file(folder: Path) -> Path:
    """Where the public key of its witness is."""
    return folder / "witness" / "witness.vkey"


def identity_file(folder: Path, system: str) -> Path:
    """Where a service's private key is."""
    return folder / "identities" / f"{system}.pem"


def id_key_file(folder: Path, system: str) -> Path:
    """Where the key is under which a service makes ids."""
    return folder / "ids" / f"{system}.key"


def reply_key_file(folder: Path) -> Path:
    """Where the public JWK is to which carriers encrypt their replies."""
    return folder / "reply.pub.json"


def mail_key_file(folder: Path) -> Path:
    """Where the account service's key is under which codes of confirmations are derived."""
    return folder / "mail.key"


def carrier_key_file(folder: Path, carrier: str) -> Path:
    """Where a carrier's private JWK is."""
    return folder / "carrier_keys" / f"{carrier}.json"


def customer_token(folder: Path, subject: UUID | str, scope: str = "customer", minutes: float = 60) -> str:
    """A customer's JWT (Ed25519), as sign-in gives it: iss "account", aud "shop", sub, scope (customer or guest)."""
    claims = {"iss": "account", "sub": str(UUID(str(subject))), "scope": scope}
    return _token(folder / "customer.pem", claims, minutes)


def staff_token(folder: Path, role: StaffRole, subject: UUID | None = None, minutes: float = 600) -> str:
    """A staff member's JWT (Ed25519): iss "staff", aud "shop", sub (random by default), role."""
    return _token(folder / "staff.pem", {"iss": "staff", "sub": str(subject or uuid4()), "role": role}, minutes)


def _token(key_file: Path, claims: dict[str, str], minutes: float) -> str:
    now = datetime.now(UTC)
    times = {"iat": int(now.timestamp()), "exp": int((now + timedelta(minutes=minutes)).timestamp())}
    key = OKPKey.import_key(key_file.read_bytes())
    # RFC 9864's name of the algorithm; joserfc warns of the older and wider "EdDSA".
    return jwt.encode({"alg": "Ed25519"}, {**claims, **times, "aud": AUDIENCE}, key, algorithms=["Ed25519"])


def _carrier_key(name: str) -> OKPKey:
    return OKPKey.generate_key("X25519", parameters={"kid": f"{name}-1", "use": "enc"}, private=True)


def _jwk(key: OKPKey, private: bool) -> bytes:
    return json.dumps(key.as_dict(private=private), indent=1).encode()


def _write_note_key(private_file: Path, name: str, kind: int) -> None:
    key = Ed25519PrivateKey.generate()
    _write(private_file, _private_pem(key))
    _write(private_file.with_suffix(".vkey"), f"{Signer(name, kind, key).verifier.vkey}\n".encode())


def _write_pair(private_file: Path, public_file: Path) -> None:
    key = Ed25519PrivateKey.generate()
    _write(private_file, _private_pem(key))
    _write(public_file, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def _private_pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(path: Path, content: bytes) -> None:
    # Created with its mode, and never over an existing key.
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
