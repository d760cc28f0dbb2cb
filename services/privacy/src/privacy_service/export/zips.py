"""A zip archive as a stream: what was written can be taken at once, and nothing is kept but a list of the files. Pure."""

import hashlib
import io
import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, Final

# So much is gathered before it is sent.
CHUNK: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class File:
    """A finished file of the archive: its path, its size in bytes and its SHA-256 in hex, as unpacked."""

    path: str
    size: int
    sha256: str


class _Chunks(io.RawIOBase):
    """Takes what zipfile writes. It cannot seek, so zipfile puts sizes and sums behind each file."""

    def __init__(self) -> None:
        self.pending = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        view = memoryview(data)  # type: ignore[arg-type]
        self.pending += view
        return view.nbytes


class ZipStream:
    """One file at a time: `begin`, any number of `write`, and the next. `take` gives the bytes that are ready to send."""

    def __init__(self, made_at: datetime) -> None:
        self._chunks = _Chunks()
        self._zip = zipfile.ZipFile(self._chunks, "w", zipfile.ZIP_DEFLATED)
        self._date = made_at.astimezone(UTC).timetuple()[:6]
        self._member: IO[bytes] | None = None
        self._path, self._size, self._hash = "", 0, hashlib.sha256()
        self.files: list[File] = []

    def begin(self, path: str) -> None:
        self._end()
        info = zipfile.ZipInfo(path, self._date)
        info.compress_type = zipfile.ZIP_DEFLATED
        info.external_attr = 0o600 << 16  # for its owner alone, where a file system knows that
        self._member = self._zip.open(info, "w")
        self._path, self._size, self._hash = path, 0, hashlib.sha256()

    def write(self, text: str) -> None:
        assert self._member is not None
        data = text.encode()
        self._member.write(data)
        self._size += len(data)
        self._hash.update(data)

    def end(self) -> None:
        """Ends the file under way, so that `files` lists it."""
        self._end()

    def close(self) -> None:
        self._end()
        self._zip.close()

    @property
    def ready(self) -> int:
        return len(self._chunks.pending)

    def take(self) -> bytes:
        taken = bytes(self._chunks.pending)
        self._chunks.pending.clear()
        return taken

    def _end(self) -> None:
        if self._member is None:
            return
        self._member.close()
        self._member = None
        self.files.append(File(self._path, self._size, self._hash.hexdigest()))
