"""KEKs as files of 32 bytes in a folder, for one machine without a key service."""

import os
import re
import secrets
import stat
from collections.abc import Collection
from datetime import timedelta
from pathlib import Path
from typing import Final

from servicekit.core.errors import Misconfigured
from vault_service.kek import KEK_BYTES, KekMissing

_NAME: Final = re.compile(r"epoch-([1-9][0-9]{0,8})\.key")


class FileKek:
    """`epoch-<n>.key` and `index.key` in a folder for this user alone. Copies in escrow are people's work (runbook)."""

    name = "file"

    def __init__(self, folder: Path, deletion_delay: timedelta = timedelta(0)) -> None:
        """`deletion_delay`: how long the file of an empty epoch stays, so that a mistake can be undone."""
        self._folder = folder
        self.deletion_delay = self.waits = deletion_delay
        _refuse_if_shared(folder, "KEK_DIR")

    async def first(self) -> tuple[int, bytes]:
        epochs = self._epochs()
        if not epochs:
            raise Misconfigured("KEK_DIR holds no epoch-<n>.key: restore it from escrow, or make one for a new vault.")
        return max(epochs), b""

    async def create(self, after: int) -> tuple[int, bytes]:
        epoch = max((after, *self._epochs()))
        while True:
            epoch += 1
            try:
                self._write(epoch, secrets.token_bytes(KEK_BYTES))
            except FileExistsError:
                continue  # another process has just made that one
            except OSError as error:
                raise _unusable(f"epoch-{epoch}.key", "made", error) from None
            return epoch, b""

    async def load(self, epoch: int, handle: bytes) -> bytes:
        return _read(self._path(epoch))

    async def destroy(self, epoch: int, handle: bytes) -> None:
        # Overwritten first, for file systems that write in place; on others the medium's own encryption is what helps.
        try:
            with self._path(epoch).open("r+b", buffering=0) as file:
                file.write(secrets.token_bytes(KEK_BYTES))
                os.fsync(file.fileno())
            self._path(epoch).unlink()
            self._sync()
        except FileNotFoundError:
            return
        except OSError as error:
            raise _unusable(f"epoch-{epoch}.key", "destroyed", error) from None

    async def create_index(self) -> bytes:
        """It is made with the vault, and never here: another one would find nobody in the directory."""
        return b""

    async def load_index(self, handle: bytes) -> bytes:
        return _read(self._folder / "index.key")

    async def strays(self, known: Collection[tuple[int, bytes]]) -> list[str]:
        accounted = {epoch for epoch, _ in known}
        return [self._path(epoch).name for epoch in sorted(self._epochs()) if epoch not in accounted]

    def _path(self, epoch: int) -> Path:
        return self._folder / f"epoch-{epoch}.key"

    def _epochs(self) -> list[int]:
        found = (_NAME.fullmatch(path.name) for path in self._folder.iterdir())
        return [int(match[1]) for match in found if match is not None]

    def _write(self, epoch: int, key: bytes) -> None:
        """All of the file or nothing, on disk before anything is wrapped under it. Raises FileExistsError."""
        draft = self._folder / f".draft-{secrets.token_hex(8)}"
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(key)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, self._path(epoch))
        finally:
            draft.unlink()
        self._sync()

    def _sync(self) -> None:
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _read(path: Path) -> bytes:
    _refuse_if_shared(path, path.name)
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        raise KekMissing(f"{path.name} is not in KEK_DIR: restore it from escrow.") from None
    except OSError as error:
        raise _unusable(path.name, "read", error) from None
    if len(key) != KEK_BYTES:
        raise Misconfigured(f"{path.name} in KEK_DIR does not hold {KEK_BYTES} bytes: restore it.")
    return key


def _refuse_if_shared(path: Path, name: str) -> None:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        raise KekMissing(f"{name} is not there: set KEK_DIR, or restore its files from escrow.") from None
    except OSError as error:
        raise _unusable(name, "read", error) from None
    if mode & 0o077:
        raise Misconfigured(f"{name} can be read by other users: take group's and others' rights away (chmod go=).")


def _unusable(name: str, what: str, error: OSError) -> Misconfigured:
    return Misconfigured(f"{name} cannot be {what} ({type(error).__name__}): check KEK_DIR, its rights and its disk.")
