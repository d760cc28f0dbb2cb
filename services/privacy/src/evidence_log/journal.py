"""The copy of the log outside of all databases: a database that was restored from a backup takes up again what it lacks.

One line per leaf, in the form of an exported log. It is written before the database commits, so it is never behind.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from evidence_log.handlers import log_line
from evidence_log.leaves import MAX_LEAF, canonical
from evidence_log.merkle import leaf_hash
from servicekit.core.errors import KitError

_LONGEST_LINE: Final = 2 * MAX_LEAF


class JournalRefused(KitError):
    """EVIDENCE_FILE is not the log of this database: it lacks leaves, or was changed. Put the whole file back."""

    code = "journal_refused"
    status = 503


class Journal:
    """The file, for one writer at a time (the holder of the sequencer's lock). Calls block."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def size(self) -> int:
        """How many leaves it holds. A last line that a crash cut off is taken away: no database has committed it."""
        try:
            with self._path.open("r+b") as file:
                end = file.seek(0, os.SEEK_END)
                start = max(0, end - _LONGEST_LINE)
                file.seek(start)
                tail = file.read()
                whole = tail.rfind(b"\n") + 1
                if whole < len(tail):
                    file.truncate(start + whole)
                lines = tail[:whole].splitlines()
        except FileNotFoundError:
            return 0
        return _index(lines[-1]) + 1 if lines else 0

    def append(self, first: int, leaves: list[tuple[bytes, bytes]]) -> None:
        """Adds (hash, body) from the index `first` on, and returns when they are on the disk."""
        lines = b"".join(log_line(first + place, hash_, body) for place, (hash_, body) in enumerate(leaves))
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(descriptor, "ab") as file:
                file.write(lines)
                file.flush()
                os.fsync(descriptor)
        except OSError as error:
            raise JournalRefused(f"EVIDENCE_FILE cannot be written ({type(error).__name__}): make room.") from None

    def read(self, start: int, limit: int) -> list[bytes]:
        """The bodies from the index `start` on, at most `limit`."""
        found = []
        for index, body in self._leaves():
            if index >= start:
                found.append(body)
            if len(found) == limit:
                break
        return found

    def _leaves(self) -> Iterator[tuple[int, bytes]]:
        with self._path.open("rb") as file:
            for place, line in enumerate(file):
                try:
                    entry = json.loads(line)
                    body = canonical(entry["leaf"])
                    if entry["index"] != place or entry["hash"] != leaf_hash(body).hex():
                        raise JournalRefused
                except (KeyError, TypeError, ValueError):
                    raise JournalRefused from None
                yield place, body


def _index(line: bytes) -> int:
    try:
        return int(json.loads(line)["index"])
    except (KeyError, TypeError, ValueError):
        raise JournalRefused from None
