"""The key-encrypting keys, one per epoch, held outside the databases behind a small interface."""

import hmac
import re
import secrets
import stat
from functools import cache
from pathlib import Path
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

from servicekit.errors import Misconfigured, Unavailable

KEK_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_INDEX_LABEL: Final = b"index/v1/"


class WrongKek(Unavailable):
    """A stored key does not unwrap: the row was changed, or the KEK is another one. It is not erased; restore it."""

    code = "wrong_kek"


class Kek(Protocol):
    """What the vault asks of a provider: a file, an HSM, a cloud's key service."""

    def wrap(self, epoch: int, key: bytes, bound: bytes) -> bytes:
        """`key` under the epoch's KEK, with `bound` as associated data. Raises Misconfigured without that KEK."""

    def unwrap(self, epoch: int, wrapped: bytes, bound: bytes) -> bytes:
        """The key again. Raises WrongKek (changed, moved, another KEK) and Misconfigured (no KEK of that epoch)."""

    def index_key(self, kind: str) -> bytes:
        """32 bytes: the key of the blind index `kind`."""


class FileKek:
    """KEKs as files of 32 bytes, `epoch-<n>.key` and `index.key`, in a folder for this user alone. For local use."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        _refuse_if_shared(folder, "KEK_DIR")
        self._aead = cache(lambda epoch: AESGCMSIV(_read(folder / f"epoch-{epoch}.key")))
        self._index = _read(folder / "index.key")

    def newest_epoch(self) -> int:
        """The highest epoch that has a file. Raises Misconfigured when there is none."""
        found = (re.fullmatch(r"epoch-([1-9][0-9]{0,8})\.key", path.name) for path in self._folder.iterdir())
        epochs = [int(match[1]) for match in found if match is not None]
        if not epochs:
            raise Misconfigured("KEK_DIR holds no epoch-<n>.key: restore it from escrow, or make one for a new vault.")
        return max(epochs)

    def wrap(self, epoch: int, key: bytes, bound: bytes) -> bytes:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._aead(epoch).encrypt(nonce, key, bound)

    def unwrap(self, epoch: int, wrapped: bytes, bound: bytes) -> bytes:
        try:
            return self._aead(epoch).decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], bound)
        except (InvalidTag, ValueError):
            raise WrongKek from None

    def index_key(self, kind: str) -> bytes:
        # HKDF-SHA256 (RFC 5869) with no salt; one block of output is all that is asked for.
        extracted = hmac.digest(bytes(32), self._index, "sha256")
        return hmac.digest(extracted, _INDEX_LABEL + kind.encode() + b"\x01", "sha256")


def _read(path: Path) -> bytes:
    _refuse_if_shared(path, path.name)
    try:
        key = path.read_bytes()
    except OSError as error:
        raise _unreadable(path.name, error) from None
    if len(key) != KEK_BYTES:
        raise Misconfigured(f"{path.name} in KEK_DIR does not hold {KEK_BYTES} bytes: restore it.")
    return key


def _refuse_if_shared(path: Path, name: str) -> None:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise _unreadable(name, error) from None
    if mode & 0o077:
        raise Misconfigured(f"{name} can be read by other users: take group's and others' rights away (chmod go=).")


def _unreadable(name: str, error: OSError) -> Misconfigured:
    return Misconfigured(f"{name} cannot be read ({type(error).__name__}): set KEK_DIR, or restore its files.")
