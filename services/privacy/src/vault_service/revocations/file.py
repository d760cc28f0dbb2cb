"""The append-only file of the revocation list, outside all databases and backups: what stands in it was approved.

One line of JSON per entry, signed with Ed25519: `{"entry": {…}, "signature": base64url}`. A process verifies each line
once. A last line without its end was being written when the process died, so nobody was told of it: it is cut off.
"""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from event_contracts import base64url
from event_contracts.vault_api import Entry
from servicekit.core.errors import Misconfigured
from servicekit.core.revocation_list import FIRST_HASH, first_break

_LABEL: Final = b"revocation/v1\n"


class ListRefused(Misconfigured):
    """The file of revocations does not fit this vault's database. Nothing is served until the right file is there."""

    code = "revocation_list"
    status = 503


@dataclass(frozen=True, slots=True)
class Tip:
    """Where the list ends: number and hash of its last entry."""

    number: int = 0
    hash: str = FIRST_HASH


class _Line(msgspec.Struct, frozen=True):
    entry: Entry
    signature: str


class RevocationFile:
    """Blocks on the disk. Between `read` and `append` the caller stays in `locked`."""

    def __init__(self, path: Path, key: Ed25519PrivateKey) -> None:
        self._path, self._key, self._public = path, key, key.public_key()
        self._busy = Lock()  # `read` and `append` run in threads
        self._identity: tuple[int, int] | None = None
        self._end, self._tip = 0, Tip()

    @classmethod
    def open(cls, path: Path, key_pem: bytes) -> "RevocationFile":
        """Raises Misconfigured when the key is none."""
        try:
            key = load_pem_private_key(key_pem, None)
        except (ValueError, TypeError):
            key = None
        if not isinstance(key, Ed25519PrivateKey):
            raise Misconfigured("REVOCATIONS_KEY_FILE holds no Ed25519 private key (PKCS#8, PEM): restore it.")
        return cls(path, key)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else appends meanwhile. Vaults on one database wait for each other there, so whoever is in the way is
        a vault on another database. Raises ListRefused."""
        try:
            lock = os.open(self._path.with_name(self._path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise _unreadable(error) from None
        try:
            _lock(lock)
            yield
        finally:
            os.close(lock)

    def read(self) -> Tip:
        """Verify what was appended since the last time, by whichever process. Raises ListRefused."""
        with self._busy:
            return self._read()

    def _read(self) -> Tip:
        try:
            with self._path.open("rb") as file:
                status = os.fstat(file.fileno())
                if (status.st_dev, status.st_ino) != self._identity:
                    self._forget()
                    self._identity = (status.st_dev, status.st_ino)
                if status.st_size < self._end:
                    raise ListRefused("REVOCATIONS_FILE is shorter than it was: put the whole file back.")
                file.seek(self._end)
                added = file.read()
        except FileNotFoundError:
            self._forget()
            return self._tip
        except OSError as error:
            raise _unreadable(error) from None
        whole = added[: added.rfind(b"\n") + 1]
        entries = [self._verified(line, self._tip.number + place) for place, line in _numbered(whole)]
        wrong = first_break(entries, self._tip.number, self._tip.hash)
        if wrong is not None:
            raise ListRefused(f"REVOCATIONS_FILE was changed: entry {wrong} does not follow on the one before.")
        self._go_on(entries, len(whole))
        return self._tip

    def entries_after(self, number: int) -> list[Entry]:
        """Of what `read` has verified. Raises ListRefused."""
        try:
            with self._path.open("rb") as file:
                content = file.read(self._end)
        except OSError as error:
            raise _unreadable(error) from None
        return [self._verified(line, place) for place, line in _numbered(content) if place > number]

    def append(self, entries: Sequence[Entry]) -> None:
        """On the disk when this returns; they must follow on what `read` gave. Raises ListRefused."""
        content = b"".join(self._signed(entry) for entry in entries)
        with self._busy:
            assert first_break(entries, self._tip.number, self._tip.hash) is None
            self._write(content)
            self._go_on(entries, len(content))

    def _write(self, content: bytes) -> None:
        is_new = self._identity is None
        try:
            with self._path.open("ab") as file:
                file.truncate(self._end)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                status = os.fstat(file.fileno())
            if is_new:
                _flush_folder(self._path.parent)
        except OSError as error:
            why = (
                f"REVOCATIONS_FILE cannot be written ({type(error).__name__}): make room, or give the vault its folder."
            )
            raise ListRefused(why) from None
        self._identity = (status.st_dev, status.st_ino)

    def _signed(self, entry: Entry) -> bytes:
        signature = base64url.encode(self._key.sign(_LABEL + bytes.fromhex(entry.hash)))
        return msgspec.json.encode(_Line(entry, signature)) + b"\n"

    def _verified(self, line: bytes, number: int) -> Entry:
        try:
            read = msgspec.json.decode(line, type=_Line)
            signature = base64url.decode(read.signature)
            self._public.verify(signature, _LABEL + bytes.fromhex(read.entry.hash))
        except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, InvalidSignature):
            raise ListRefused(
                f"REVOCATIONS_FILE was changed, or REVOCATIONS_KEY_FILE is another key: line {number} is not signed."
            ) from None
        return read.entry

    def _go_on(self, entries: Sequence[Entry], size: int) -> None:
        self._end += size
        if entries:
            self._tip = Tip(entries[-1].number, entries[-1].hash)

    def _forget(self) -> None:
        self._identity, self._end, self._tip = None, 0, Tip()


def _lock(descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ListRefused("A vault on another database writes REVOCATIONS_FILE: stop one of the two.") from None


def _numbered(content: bytes) -> Iterator[tuple[int, bytes]]:
    return enumerate(content.split(b"\n")[:-1], start=1)


def _flush_folder(folder: Path) -> None:
    """So that a new file's name is on the disk as well."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unreadable(error: OSError) -> ListRefused:
    return ListRefused(f"REVOCATIONS_FILE cannot be used ({type(error).__name__}): restore it, or its folder's rights.")
