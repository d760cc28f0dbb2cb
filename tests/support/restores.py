"""Brings one service's database back from a base backup of the whole server, and Kafka from a copy, as an operator does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
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


def copy_kafka(stack: Stack, to: Path) -> datetime:
    """A copy of all that Kafka stores, taken while it is down; it runs again when this returns. Says when it was taken."""
    assert stack.kafka.data_dir is not None, "the files of this Kafka are out of reach"
    stack.kafka.stop()
    taken = datetime.now(UTC)
    shutil.copytree(stack.kafka.data_dir, to)
    stack.kafka.start()
    return taken


def restore_kafka(stack: Stack, copy: Path, since: datetime) -> dict[str, str]:
    """`deploy/runbooks/restore.md`, part by part: no process of a service may run. Returns what `republish` said, by system."""
    assert stack.kafka.data_dir is not None, "the files of this Kafka are out of reach"
    stack.kafka.stop()
    shutil.rmtree(stack.kafka.data_dir)
    shutil.copytree(copy, stack.kafka.data_dir)
    stack.kafka.start()
    return {system: _republish(stack, system, since) for system in stack.specs}


def _republish(stack: Stack, system: str, since: datetime) -> str:
    command = [sys.executable, "-m", stack.specs[system].module, "republish", "--since", since.isoformat()]
    environment = stack.env_of(system)
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=TIMEOUT)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


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
