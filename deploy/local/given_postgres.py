"""Databases of our own on a PostgreSQL server that somebody else runs (POSTGRES_DSN)."""

import os
import secrets
from pathlib import Path

from deploy.local.databases import SystemDatabases
from deploy.local.postgres import Postgres
from deploy.local.processes import StackError


class GivenPostgres:
    """The same calls as `Postgres`. Names get a random suffix; `stop` and `close` drop what was created.

    `admin_dsn` must be of a role that may create databases and roles, on PostgreSQL 15 to 18. Nothing else there is
    touched.
    """

    data_dir: Path | None = None
    pid: int | None = None

    def __init__(self, admin_dsn: str) -> None:
        self.admin_dsn = admin_dsn
        self._databases = SystemDatabases(admin_dsn, suffix=f"_{secrets.token_hex(4)}")

    def create_system_database(self, system: str) -> tuple[str, str]:
        """See `Postgres.create_system_database`."""
        return self._databases.create(system)

    def launch(self) -> None:
        """Nothing: it runs."""

    def wait(self) -> None:
        """Nothing: it runs."""

    def start(self) -> None:
        """Nothing: it runs."""

    def stop(self) -> None:
        """Drop the databases and roles that were created here."""
        self._databases.drop_all()

    def close(self) -> None:
        """The same as `stop`."""
        self.stop()

    def kill(self) -> None:
        """Refused: the server is not ours."""
        raise _not_ours()

    def restart(self) -> None:
        """Refused: the server is not ours."""
        raise _not_ours()

    def base_backup(self, to: Path) -> None:
        """Refused: the server is not ours."""
        raise _not_ours()

    def replace_data(self, from_backup: Path) -> None:
        """Refused: the server is not ours."""
        raise _not_ours()


def _not_ours() -> StackError:
    return StackError(
        "POSTGRES_DSN names a server that is not ours to kill or restore. Unset it to use the embedded one."
    )


def choose_postgres() -> "Postgres | GivenPostgres":
    """The server that the environment variable POSTGRES_DSN names, or the embedded one."""
    dsn = os.environ.get("POSTGRES_DSN")
    return GivenPostgres(dsn) if dsn else Postgres()
