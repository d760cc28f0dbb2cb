"""PostgreSQL on this machine: an embedded server from a Python package, or databases of our own on a given server.

The server listens on the loopback address only, has no Unix socket, wants SCRAM passwords of everybody and keeps
checksums and fsync on. Its WAL is not compressed, so that a search of the bytes finds what was written. Values of
TOAST-able columns may still be compressed (pglz) when a row passes 2 kB: `default_toast_compression` cannot be
switched off, so migrations set STORAGE EXTERNAL where it matters, and the byte search reads tables by COPY as well as
from the files.
"""

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from deploy.local.cache import PROJECT
from deploy.local.databases import Dsn, SystemDatabases, close_to_strangers
from deploy.local.postgres_binaries import binaries
from deploy.local.processes import HOST, Port, Process, StackError, as_user, spawn, unprivileged_user

ADMIN_USER = "admin"
START_TIMEOUT = 240.0

SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "max_connections": "200",
    "fsync": "on",
    # After a crash: one call for the file system instead of one for each file, which takes a minute on a slow disk.
    "recovery_init_sync_method": "syncfs",
    "wal_compression": "off",
    # An ERROR's text, DETAIL and STATEMENT may quote the row at hand. The service that caused it logs it without.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}


class Postgres:
    """An embedded server with its data in `folder` (by default a new temporary one). Calls block; `start` … `close`.

    `stop` and `kill` keep port and data, so `start` brings the same server back; `close` removes the data. Run by
    root, the server and its files belong to an unprivileged user, who must be able to reach `folder`.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._user = unprivileged_user()
        self._password = secrets.token_hex(16)
        self._port = Port()
        self._process: Process | None = None
        self._folder = folder or Path(tempfile.mkdtemp(prefix=f"{PROJECT}-postgres-"))
        self.data_dir: Path | None = self._folder / "data"
        self.log = self._folder / "postgres.log"
        self._databases = SystemDatabases(self.admin_dsn)

    @property
    def admin_dsn(self) -> str:
        """The DSN of the super user."""
        return str(Dsn(ADMIN_USER, self._password, HOST, self._port.number, "postgres"))

    @property
    def pid(self) -> int | None:
        """Of the postmaster; None while it is down."""
        return self._process.pid if self._process is not None and self._process.is_running else None

    def create_system_database(self, system: str) -> tuple[str, str]:
        """A database with its two roles → (DSN of the application's role, DSN of the owner's, for migrations)."""
        return self._databases.create(system)

    def start(self) -> None:
        """Start the server (creating its data the first time) and wait until it accepts connections."""
        self.launch()
        self.wait()

    def launch(self) -> None:
        """`start` without waiting."""
        if self.pid is not None:
            return
        if not self._data.exists():
            self._initialise()
        options = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
        command: list[str | Path] = [binaries() / "postgres", "-D", self._data, "-p", str(self._port.number), *options]
        # SIGINT is Postgres' fast shutdown; SIGTERM would wait for the clients to leave.
        self._process = spawn("postgres", command, log=self.log, user=self._user, stop_signal=signal.SIGINT)

    def wait(self) -> None:
        """Wait until the server accepts connections; raises StackError with the end of its log."""
        process, deadline = self._process, time.monotonic() + START_TIMEOUT
        if process is None:
            raise StackError("PostgreSQL was not started: call start() first.")
        while not self._accepts():
            if not process.is_running or time.monotonic() > deadline:
                process.kill()
                raise StackError(f"PostgreSQL did not start; the end of {self.log} is:\n{process.log_tail()}")
            time.sleep(0.05)
        close_to_strangers(self.admin_dsn)

    def stop(self) -> None:
        """Fast shutdown (clients are cut off), SIGKILL after 10 s; port and data stay."""
        if self._process is not None:
            self._process.stop()

    def kill(self) -> None:
        """SIGKILL the postmaster and its backends; port and data stay."""
        if self._process is not None:
            self._process.kill()

    def restart(self) -> None:
        """Stop and start on the same port and data."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop for good and remove the data."""
        self.kill()  # the checkpoint of an orderly end would only be for the data that goes
        self._port.release()
        shutil.rmtree(self._folder, ignore_errors=True)

    def base_backup(self, to: Path) -> None:
        """Write a base backup of the running server (pg_basebackup, WAL included) into the new folder `to`."""
        to.mkdir(mode=0o700, parents=True)
        target = ["-h", HOST, "-p", str(self._port.number), "-U", ADMIN_USER]
        options = ["--no-password", "--checkpoint=fast", "--wal-method=stream", "--no-sync"]
        environment = {**os.environ, "PGPASSWORD": self._password}
        _run([binaries() / "pg_basebackup", *target, "-D", to, *options], "take a base backup", environment)

    def replace_data(self, from_backup: Path) -> None:
        """Stop, put a copy of the base backup in the place of the data, start: what a restore does."""
        self.stop()
        shutil.rmtree(self._data)
        shutil.copytree(from_backup, self._data)
        self._give_to_user()
        self.start()

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _accepts(self) -> bool:
        command = [str(binaries() / "pg_isready"), "-q", "-h", HOST, "-p", str(self._port.number), "-t", "1"]
        return subprocess.run(command, check=False, stdin=subprocess.DEVNULL, capture_output=True).returncode == 0

    def _initialise(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        password_file = self._folder / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(self._password)
        self._give_to_user()
        access = ["-U", ADMIN_USER, "-A", "scram-sha-256", f"--pwfile={password_file}"]
        options = ["-E", "UTF8", "--locale=C.UTF-8", "--data-checksums", "--no-sync"]
        try:
            _run(
                [binaries() / "initdb", "-D", self._data, *access, *options], "create its data folder", user=self._user
            )
        finally:
            password_file.unlink(missing_ok=True)

    def _give_to_user(self) -> None:
        self._folder.chmod(0o700)
        if self._user is not None:
            for path in (self._folder, *self._folder.rglob("*")):
                shutil.chown(path, self._user)
            _require_reachable(self._folder, self._user)
        if self._data.exists():
            self._data.chmod(0o700)


def _require_reachable(folder: Path, user: str) -> None:
    if subprocess.run(["test", "-x", str(folder)], check=False, **as_user(user)).returncode != 0:
        raise StackError(
            f"PostgreSQL refuses to run as root, and the user {user} cannot reach {folder}. "
            "Use a folder whose parents everybody may enter (chmod o+x), or run as another user than root."
        )


def _run(
    command: Sequence[str | Path], purpose: str, environment: dict[str, str] | None = None, user: str | None = None
) -> None:
    done = subprocess.run(
        list(map(str, command)),
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=environment,
        **as_user(user),
    )
    if done.returncode != 0:
        reason = done.stderr.decode(errors="replace").strip()
        raise StackError(f"PostgreSQL could not {purpose}: {reason}")
