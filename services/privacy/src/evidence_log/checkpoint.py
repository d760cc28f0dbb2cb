"""Checkpoints: signed statements of a log's size and root. C2SP signed-note, tlog-checkpoint, tlog-cosignature (Ed25519). Pure.

<origin>
<size>
<root, base64>

— <key name> <base64 of key id and signature>
"""

import base64
import binascii
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

LOG: Final = 0x01
WITNESS: Final = 0x04
MAX_NOTE: Final = 16 * 1024
_DASH: Final = "— "
_HASH_BYTES: Final = 32


class BadNote(ValueError):
    """The text is no checkpoint, or not signed by the key that was asked for; the message says which."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log says about itself: after `size` leaves its root is `root`."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """What is signed."""
        return f"{self.origin}\n{self.size}\n{_b64(self.root)}\n"


@dataclass(frozen=True, slots=True)
class Verifier:
    """A public key with its name and kind (`LOG` or `WITNESS`): a *vkey* of the signed-note format."""

    name: str
    kind: int
    key: bytes

    @property
    def key_id(self) -> bytes:
        return sha256(self.name.encode() + b"\n" + bytes([self.kind]) + self.key).digest()[:4]

    @property
    def vkey(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{_b64(bytes([self.kind]) + self.key)}"

    @classmethod
    def parse(cls, vkey: str) -> "Verifier":
        """Raises `BadNote`."""
        try:
            name, key_id, rest = vkey.strip().split("+", 2)
            material = _strict(rest)
        except ValueError:
            raise BadNote("the public key is not in the form <name>+<id>+<key>") from None
        found = cls(name, material[0] if material else 0, material[1:])
        if (
            not _is_name(name)
            or found.key_id.hex() != key_id
            or len(found.key) != 32
            or found.kind not in (LOG, WITNESS)
        ):
            raise BadNote("the public key's parts do not fit together")
        return found

    def time_of(self, checkpoint: Checkpoint, signature: bytes) -> int | None:
        """Whether the signature is of this key: 0 for a log's, the time (POSIX seconds) of a witness's, None if not."""
        message, seconds = checkpoint.text.encode(), 0
        if self.kind == WITNESS:
            seconds, signature = int.from_bytes(signature[:8]), signature[8:]
            message = _cosigned(checkpoint, seconds)
        try:
            Ed25519PublicKey.from_public_bytes(self.key).verify(signature, message)
        except InvalidSignature:
            return None
        return seconds


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key that signs checkpoints as log or as witness."""

    name: str
    kind: int
    key: Ed25519PrivateKey

    @classmethod
    def load(cls, name: str, kind: int, pem: bytes) -> "Signer":
        """From PKCS#8 PEM. Raises ValueError for another kind of key."""
        key = load_pem_private_key(pem, None)
        if not isinstance(key, Ed25519PrivateKey) or not _is_name(name):
            raise ValueError("checkpoints are signed with an Ed25519 key that has a name without spaces and plus signs")
        return cls(name, kind, key)

    @property
    def verifier(self) -> Verifier:
        raw = self.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return Verifier(self.name, self.kind, raw)

    def line(self, checkpoint: Checkpoint, seconds: int = 0) -> str:
        """The signature line; a witness states the time."""
        signature = (
            seconds.to_bytes(8) + self.key.sign(_cosigned(checkpoint, seconds))
            if self.kind == WITNESS
            else self.key.sign(checkpoint.text.encode())
        )
        return f"{_DASH}{self.name} {_b64(self.verifier.key_id + signature)}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A checkpoint with its signatures as (name, key id, signature)."""

    checkpoint: Checkpoint
    signatures: tuple[tuple[str, bytes, bytes], ...]

    def time_of(self, by: Verifier) -> int:
        """As `Verifier.time_of`. Raises `BadNote` when there is no valid signature of that key."""
        found = [s for name, key_id, s in self.signatures if (name, key_id) == (by.name, by.key_id)]
        times = [by.time_of(self.checkpoint, signature) for signature in found]
        if not times or None in times:
            raise BadNote(f"no valid signature by {by.name}")
        return max(time for time in times if time is not None)


def signed(checkpoint: Checkpoint, *lines: str) -> str:
    """The note: the text, an empty line and the signature lines."""
    return f"{checkpoint.text}\n{''.join(lines)}"


def parse_note(note: str) -> Note:
    """A note in the one spelling that its content has. Raises `BadNote`; signatures are not verified here."""
    text, gap, rest = note.rpartition("\n\n")
    lines = rest.split("\n")
    if not gap or len(note) > MAX_NOTE or lines.pop() != "" or not lines:
        raise BadNote("a checkpoint is a text, an empty line and signature lines")
    return Note(_parse_text(text), tuple(map(parse_line, lines)))


def parse_line(line: str) -> tuple[str, bytes, bytes]:
    """Name, key id and signature of one line. Raises `BadNote`."""
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    signature = _strict(encoded)
    if not line.startswith(_DASH) or not _is_name(name) or len(signature) < 5:
        raise BadNote("a signature line is a dash, a name and a signature")
    return name, signature[:4], signature[4:]


def _parse_text(text: str) -> Checkpoint:
    # No extension lines: nobody would check what they say.
    lines = text.split("\n")
    if len(lines) != 3 or not all(line and line.isprintable() for line in lines):
        raise BadNote("a checkpoint's text is origin, size and root")
    origin, size, root = lines
    if not size.isascii() or not size.isdecimal() or str(int(size[:20])) != size:
        raise BadNote("a checkpoint's size is a plain number")
    hash_ = _strict(root)
    if len(hash_) != _HASH_BYTES:
        raise BadNote("a checkpoint's root has 32 bytes")
    return Checkpoint(origin, int(size), hash_)


def _cosigned(checkpoint: Checkpoint, seconds: int) -> bytes:
    return f"cosignature/v1\ntime {seconds}\n{checkpoint.text}".encode()


def _is_name(name: str) -> bool:
    return bool(name) and "+" not in name and name.isprintable() and not any(map(str.isspace, name))


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _strict(text: str) -> bytes:
    """Base64 in its only spelling. Raises `BadNote`."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BadNote("this is not base64") from None
    if _b64(data) != text:
        raise BadNote("this is not base64 as it is written")
    return data
