"""Brings one service's database back from a base backup of the whole server, as an operator does."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.local.databases import Dsn
from deploy.local.postgres import Postgres
from deploy.local.postgres_binaries import binaries
from deploy.local.stack import Stack

TIMEOUT = 120


@contextmanager
def server_on(backup: Path, original_dsn: str) -> Iterator[str]:
    """A second server on a copy of the base backup, with the same users; yields the DSN of its super user."""
    server = Postgres()
    server._password = Dsn.parse(original_dsn).password
    server._data.mkdir()
    try:
        server.replace_data(backup)
        yield server.admin_dsn
    finally:
        server.close()


def restore_database(stack: Stack, backup_dsn: str, system: str) -> None:
    """Puts the backup's database in the place of the live one, owners and grants included. Nothing may be connected to it."""
    database = Dsn.parse(stack.dsn(system)).database
    with tempfile.TemporaryDirectory() as folder:
        dump = Path(folder) / "dump"
        _run(backup_dsn, "pg_dump", "--format=custom", f"--dbname={database}", f"--file={dump}")
        recreate = ("--clean", "--create", "--exit-on-error", "--dbname=postgres")
        _run(stack.postgres.admin_dsn, "pg_restore", *recreate, str(dump))


def _run(dsn: str, program: str, *arguments: str) -> None:
    parts = Dsn.parse(dsn)
    login = {"PGHOST": parts.host, "PGPORT": str(parts.port), "PGUSER": parts.user, "PGPASSWORD": parts.password}
    ran = subprocess.run(
        [binaries() / program, "--no-password", *arguments],
        env=os.environ | login,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )
    assert ran.returncode == 0, ran.stderr
