"""What a stack needs of its Kafka and its PostgreSQL: embedded, given, and in containers, they all offer this."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from confluent_kafka.admin import AdminClient

from event_contracts.topics import Topic


class Server(Protocol):
    """Life and death. Calls block. `stop` and `kill` keep address and data, `close` is the end."""

    @property
    def pid(self) -> int | None:
        """None when it is down, or not a process of this machine."""

    @property
    def data_dir(self) -> Path | None:
        """Where its files lie; None when they are out of reach."""

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...
    def restart(self) -> None: ...
    def close(self) -> None: ...


class KafkaServer(Server, Protocol):
    """See `deploy.local.kafka.Kafka`."""

    admin_user: str
    admin_password: str

    @property
    def bootstrap(self) -> str: ...
    @property
    def admin(self) -> AdminClient: ...
    def create_topics(self, topics: Iterable[Topic]) -> None: ...
    def create_users(self, passwords: Mapping[str, str]) -> None: ...
    def create_acls(self, topics: Iterable[Topic]) -> None: ...


class PostgresServer(Server, Protocol):
    """See `deploy.local.postgres.Postgres`."""

    @property
    def admin_dsn(self) -> str: ...
    def create_system_database(self, system: str) -> tuple[str, str]: ...
    def base_backup(self, to: Path) -> None: ...
    def replace_data(self, from_backup: Path) -> None: ...
