"""A small disk of a test's own, which can be filled and emptied."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

CHUNK = 64 * 1024


class SmallDisk:
    """A tmpfs of `megabytes`; `folder` is its top. Where mounting is refused, it lies in a user namespace that a process
    of ours holds open, and is reached through that process. Raises `RuntimeError` where neither is allowed."""

    def __init__(self, megabytes: int) -> None:
        self._mount = Path(tempfile.mkdtemp(prefix="small-disk-"))
        self._mount.chmod(0o755)
        self._holder: subprocess.Popen[str] | None = None
        mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0755", "small-disk", str(self._mount)]
        if subprocess.run(mount, check=False, capture_output=True).returncode == 0:
            self.folder = self._mount
            return
        script = f"{' '.join(mount)} && echo mounted && exec cat"
        self._holder = subprocess.Popen(
            ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "mounted\n":
            self.close()
            raise RuntimeError("No disk can be made too small here: run the tests as root, or allow user namespaces.")
        self.folder = Path(f"/proc/{self._holder.pid}/root{self._mount}")

    @property
    def _ballast(self) -> Path:
        return self.folder / "ballast"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def fill(self) -> None:
        """Not a byte is left; again and again, for whoever uses the disk gives some back."""
        file = os.open(self._ballast, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            for size in (CHUNK, 1):
                while _wrote(file, size):
                    continue
        finally:
            os.close(file)

    def free(self) -> None:
        """Space is back."""
        self._ballast.unlink(missing_ok=True)

    @contextmanager
    def full(self) -> Iterator[None]:
        """Within the block."""
        self.fill()
        try:
            yield
        finally:
            self.free()

    def close(self) -> None:
        """The disk is gone, with all on it. Harmless when repeated."""
        if self._holder is not None:
            self._holder.kill()
            self._holder.communicate()
        elif self._mount.is_mount():
            subprocess.run(["umount", "--lazy", str(self._mount)], check=True)
        shutil.rmtree(self._mount, ignore_errors=True)


def _wrote(file: int, size: int) -> bool:
    try:
        return os.write(file, bytes(size)) > 0
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return False
