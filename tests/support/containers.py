"""Kafka and PostgreSQL in containers (TEST_INFRA=docker), with the same calls as the embedded ones.

Kafka's image is used as a distribution of Kafka only: it runs with the settings of `deploy.local.kafka_settings`, so
the same users, ACLs and refusals hold. (testcontainers' own KafkaContainer rewrites the settings of another image,
without SASL.)
"""

import io
import os
import secrets
import tarfile
import time
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
from confluent_kafka.admin import AdminClient
from testcontainers.core.container import DockerContainer

from deploy.local import kafka_admin
from deploy.local.databases import Dsn, SystemDatabases, close_to_strangers
from deploy.local.jars import KAFKA_VERSION
from deploy.local.kafka_settings import ADMIN_USER, add_admin, cluster_id, server_properties
from deploy.local.postgres import SETTINGS
from deploy.local.processes import HOST, Port, StackError

if TYPE_CHECKING:
    from event_contracts.topics import Topic

KAFKA_IMAGE = os.environ.get("KAFKA_IMAGE", f"apache/kafka:{KAFKA_VERSION}")
POSTGRES_IMAGE = os.environ.get("POSTGRES_IMAGE", "postgres:18")
START_TIMEOUT = 120.0

RUN_KAFKA = """
printf %s "$PROPERTIES" > /tmp/server.properties
/opt/kafka/bin/kafka-storage.sh format --ignore-formatted -t "$ID" -c /tmp/server.properties "$0" "$1" > /dev/null
exec /opt/kafka/bin/kafka-server-start.sh /tmp/server.properties
"""
# A restore is laid beside the data and takes its place at the next start, since nothing can be run in a stopped
# container.
RUN_POSTGRES = """
if [ -d /tmp/restore ]; then rm -rf "$PGDATA" && cp -a /tmp/restore "$PGDATA" && rm -rf /tmp/restore; fi
exec docker-entrypoint.sh postgres "$@"
"""


class _Container:
    """A container whose port and files survive `stop` and `kill`."""

    def __init__(self, image: str) -> None:
        port = Port()
        self.port = port.number
        port.release()
        self.container = DockerContainer(image)
        self._created = False

    pid: int | None = None
    data_dir: Path | None = None

    def start(self) -> None:
        if self._created:
            self.inner.start()
        else:
            self._created = True  # also when the start fails half-way: `close` removes what there is
            self.container.start()
        self._wait()

    def stop(self) -> None:
        self.inner.stop(timeout=10)

    def kill(self) -> None:
        self.inner.kill()

    def restart(self) -> None:
        self.stop()
        self.start()

    def close(self) -> None:
        if self._created:
            self.container.stop()
            self._created = False

    @property
    def inner(self) -> Any:
        return self.container.get_wrapped_container()

    def serves(self) -> bool:
        raise NotImplementedError

    def _wait(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while not self.serves():
            self.inner.reload()
            if self.inner.status == "exited" or time.monotonic() > deadline:
                raise StackError(f"The container did not start; it says:\n{self.inner.logs(tail=15).decode()}")
            time.sleep(0.2)


class ContainerKafka(_Container):
    """See `deploy.local.kafka.Kafka`."""

    def __init__(self) -> None:
        super().__init__(KAFKA_IMAGE)
        self.admin_user, self.admin_password = ADMIN_USER, secrets.token_hex(16)
        # The same port inside and outside, so that what the broker advertises holds on both sides.
        properties = server_properties(
            self.admin_password, f"0.0.0.0:{self.port}", self.bootstrap, f"{HOST}:{self.port + 1}", Path("/tmp/data")
        )
        self.container.with_bind_ports(self.port, self.port)
        self.container.with_envs(PROPERTIES=properties, ID=cluster_id(), KAFKA_HEAP_OPTS="-Xms128m -Xmx384m")
        self.container.with_kwargs(entrypoint=["sh", "-c", RUN_KAFKA, *add_admin(self.admin_password)])

    @property
    def bootstrap(self) -> str:
        return f"{HOST}:{self.port}"

    @cached_property
    def admin(self) -> AdminClient:
        return kafka_admin.admin_client(self.bootstrap, self.admin_user, self.admin_password)

    def create_topics(self, topics: "Iterable[Topic]") -> None:
        kafka_admin.create_topics(self.admin, topics)

    def create_users(self, passwords: Mapping[str, str]) -> None:
        kafka_admin.create_users(self.admin, passwords)

    def create_acls(self, topics: "Iterable[Topic]") -> None:
        kafka_admin.create_acls(self.admin, topics)

    def serves(self) -> bool:
        return kafka_admin.serves(self.admin)


class ContainerPostgres(_Container):
    """See `deploy.local.postgres.Postgres`."""

    def __init__(self) -> None:
        super().__init__(POSTGRES_IMAGE)
        self._password = secrets.token_hex(16)
        settings = {**SETTINGS, "listen_addresses": "*"}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self.container.with_bind_ports(5432, self.port)
        self.container.with_envs(
            POSTGRES_USER=ADMIN_USER,
            POSTGRES_PASSWORD=self._password,
            POSTGRES_DB="postgres",
            POSTGRES_INITDB_ARGS="--auth=scram-sha-256 --data-checksums --locale=C.UTF-8",
        )
        self.container.with_kwargs(entrypoint=["sh", "-c", RUN_POSTGRES, "sh", *options])
        self._databases = SystemDatabases(self.admin_dsn)

    @property
    def admin_dsn(self) -> str:
        return str(Dsn(ADMIN_USER, self._password, HOST, self.port, "postgres"))

    def create_system_database(self, system: str) -> tuple[str, str]:
        return self._databases.create(system)

    def serves(self) -> bool:
        try:
            close_to_strangers(self.admin_dsn)
        except (OSError, asyncpg.PostgresConnectionError, asyncpg.CannotConnectNowError):
            return False
        return True

    def base_backup(self, to: Path) -> None:
        login = ["env", f"PGPASSWORD={self._password}", "pg_basebackup", "-h", HOST, "-U", ADMIN_USER]
        self._run("rm", "-rf", "/tmp/backup")
        self._run(*login, "-D", "/tmp/backup", "--checkpoint=fast", "--wal-method=stream")
        chunks, _ = self.inner.get_archive("/tmp/backup/.")
        with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
            archive.extractall(to, filter="data")

    def replace_data(self, from_backup: Path) -> None:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            archive.add(from_backup, "restore")
        self.inner.put_archive("/tmp", packed.getvalue())
        self._run("chown", "-R", "postgres", "/tmp/restore")
        self._run("chmod", "0700", "/tmp/restore")
        self.restart()

    def _run(self, *command: str) -> None:
        code, output = self.inner.exec_run(list(command), user="root")
        if code != 0:
            raise StackError(f"{command[0]} failed in the container: {output.decode(errors='replace')}")
