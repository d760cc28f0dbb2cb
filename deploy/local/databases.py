"""A database per system, with two roles: the application's, for rows only, and the owner's, which migrates."""

import asyncio
import secrets
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import asyncpg

IDLE_SECONDS = 30


@dataclass(frozen=True)
class Dsn:
    """A PostgreSQL connection URI in its parts; `str` puts it together."""

    user: str
    password: str
    host: str
    port: int
    database: str
    query: str = ""

    @classmethod
    def parse(cls, dsn: str) -> "Dsn":
        """From `postgresql://user:password@host:port/database?query`."""
        parts = urlsplit(dsn)
        user, password = unquote(parts.username or "postgres"), unquote(parts.password or "")
        host, port = parts.hostname or "localhost", parts.port or 5432
        return cls(user, password, host, port, parts.path.lstrip("/") or "postgres", parts.query)

    def __str__(self) -> str:
        query = f"?{self.query}" if self.query else ""
        login = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}"
        return f"postgresql://{login}@{self.host}:{self.port}/{self.database}{query}"


class SystemDatabases:
    """Creates the databases on the server of `admin_dsn`, and drops what it created. `suffix` ends every name."""

    def __init__(self, admin_dsn: str, suffix: str = "") -> None:
        self._admin = Dsn.parse(admin_dsn)
        self._suffix = suffix
        self._created: list[tuple[str, str]] = []

    def create(self, system: str) -> tuple[str, str]:
        """Create database and roles of `system` → (DSN of the application's role, DSN of the owner's role)."""
        app = system.replace("-", "_") + self._suffix
        owner = system.replace("-", "_") + "_owner" + self._suffix
        app_password, owner_password = secrets.token_hex(16), secrets.token_hex(16)
        self._created.append((app, owner))
        here = replace(self._admin, database=app)
        execute(str(self._admin), *_database(app, owner, app_password, owner_password))
        execute(str(here), *_privileges(app, owner))
        return (
            str(replace(here, user=app, password=app_password)),
            str(replace(here, user=owner, password=owner_password)),
        )

    def drop_all(self) -> None:
        """Drop every database and role that `create` made; connections to them are cut."""
        while self._created:
            app, owner = self._created.pop()
            drop = [f'DROP DATABASE IF EXISTS "{app}" WITH (FORCE)', f'DROP ROLE IF EXISTS "{app}", "{owner}"']
            execute(str(self._admin), *drop)


def close_to_strangers(admin_dsn: str) -> None:
    """Take PUBLIC's right to connect to the server's own databases; what CREATE DATABASE grants is taken for each."""
    names = ("postgres", "template1")
    execute(admin_dsn, *(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC" for name in names))


def execute(dsn: str, *statements: str) -> None:
    """Run the statements one after the other, each in a transaction of its own. Blocks, also inside an event loop."""

    async def run() -> None:
        connection = await asyncpg.connect(dsn, timeout=20, command_timeout=60)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    _blocking(run())


def _blocking(work: Coroutine[Any, Any, None]) -> None:
    # In a thread of its own: the caller may be in an event loop, where asyncio.run is refused.
    with ThreadPoolExecutor(max_workers=1) as thread:
        thread.submit(asyncio.run, work).result()


def _database(app: str, owner: str, app_password: str, owner_password: str) -> list[str]:
    return [
        f"CREATE ROLE \"{owner}\" LOGIN PASSWORD '{owner_password}'",
        f"CREATE ROLE \"{app}\" LOGIN PASSWORD '{app_password}'",
        f'GRANT "{owner}" TO CURRENT_USER',  # what an administrator who is not a super user needs to create for it
        f'CREATE DATABASE "{app}" OWNER "{owner}" TEMPLATE template0 ENCODING \'UTF8\'',
        f'REVOKE ALL ON DATABASE "{app}" FROM PUBLIC',
        f'GRANT CONNECT ON DATABASE "{app}" TO "{app}"',
        # An erasure waits for every transaction that may write here: a forgotten shell ends by itself.
        f"ALTER DATABASE \"{app}\" SET idle_in_transaction_session_timeout = '{IDLE_SECONDS}s'",
    ]


def _privileges(app: str, owner: str) -> list[str]:
    """Whatever the owner will create, in any schema, the application may use and not alter."""
    defaults = f'ALTER DEFAULT PRIVILEGES FOR ROLE "{owner}"'
    return [
        f'ALTER SCHEMA public OWNER TO "{owner}"',
        "REVOKE ALL ON SCHEMA public FROM PUBLIC",
        f'GRANT USAGE ON SCHEMA public TO "{app}"',
        f'{defaults} GRANT USAGE ON SCHEMAS TO "{app}"',
        f'{defaults} GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO "{app}"',
        f'{defaults} GRANT USAGE ON SEQUENCES TO "{app}"',
        f"{defaults} REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC",
        f'{defaults} GRANT EXECUTE ON FUNCTIONS TO "{app}"',
    ]
