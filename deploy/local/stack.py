"""The whole system on this machine: Kafka, PostgreSQL, keys, topics, databases and the service processes.

In a test: `with Stack() as stack: …`. From the shell: `python -m deploy.local.cli up|status|down|customer-token`.
"""

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.local import keys
from deploy.local.cache import PROJECT
from deploy.local.given_postgres import choose_postgres
from deploy.local.interfaces import KafkaServer, PostgresServer
from deploy.local.kafka import Kafka
from deploy.local.mail import MailServer
from deploy.local.processes import StackError
from deploy.local.services import ROOT, SERVICES, WITNESS, ServiceProcess, ServiceSpec
from event_contracts.privacy import PRIVACY_COMMANDS
from event_contracts.topics import CARRIERS, REVOCATIONS, TOPICS, Topic, load_topics

POLICY_DIR = ROOT / "shared" / "policy"
INHERITED = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "LD_PRELOAD",
    "FAKETIME",
    "FAULTS_RECORD",
)
MIGRATE_TIMEOUT = 120
# Here everybody has one address, so the limits that count by it (docs/limits.md) are ten times as high.
LIMITS_FACTOR = "10"


def say(line: str) -> None:
    """Progress, for people."""
    print(line, file=sys.stderr, flush=True)


class Stack:
    """Everything, in temporary folders that `close` removes. Calls block.

    `services` and `extra` (third parties) run with the role `all`, or with `split` one process per role. `kafka` and
    `postgres` are the embedded ones unless given; either way the stack starts and closes them. `overrides[system]` is
    added to the environment of that system's processes at their next start: a proxy's address, a fault to arm. All go by
    `policy_files`, the base first.
    """

    def __init__(
        self,
        services: Sequence[ServiceSpec] = SERVICES,
        extra: Sequence[ServiceSpec] = (),
        *,
        split: bool = False,
        kafka: KafkaServer | None = None,
        postgres: PostgresServer | None = None,
        progress: Callable[[str], None] = say,
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"{PROJECT}-"))
        self.keys, self.logs, self.mailbox = self.folder / "keys", self.folder / "logs", self.folder / "mail"
        self.kafka: KafkaServer = kafka or Kafka(self.folder / "kafka")
        self.postgres: PostgresServer = postgres or choose_postgres()
        self.specs = {spec.system: spec for spec in (*services, *extra)}
        self.topics: tuple[Topic, ...] = (*TOPICS, *(t for s in extra if s.topics for t in load_topics(s.topics)))
        self.policy_files = [
            *sorted(POLICY_DIR.glob("*.yaml")),
            *(file for spec in extra for file in spec.policy_files),
        ]
        self.overrides: defaultdict[str, dict[str, str]] = defaultdict(dict)
        self.processes: list[ServiceProcess] = []
        self.mail: MailServer | None = None
        self._extra, self._split, self._progress = tuple(extra), split, progress
        self._passwords = {user: secrets.token_hex(16) for user in (*self.specs, *CARRIERS)}
        self._dsns: dict[str, tuple[str, str]] = {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Bring everything up and wait until all are healthy; when that fails, take everything down and raise."""
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop all processes and remove all files, whatever fails on the way. Harmless when repeated."""
        vaults = [process for process in self.processes if process.system == "vault"]
        others = [process for process in self.processes if process.system != "vault"]
        with ExitStack() as ending:  # runs its callbacks last to first
            ending.callback(shutil.rmtree, self.folder, ignore_errors=True)
            ending.callback(self.postgres.close)
            ending.callback(self.kafka.close)
            if self.mail is not None:
                ending.callback(self.mail.close)
            ending.callback(_close_together, vaults)  # after the others: what they still finish may need a key
            ending.callback(_close_together, others)

    def process(self, system: str, role: str = "all") -> ServiceProcess:
        """The (first) process of a system with this role."""
        for process in self.processes:
            if (process.system, process.role) == (system, role):
                return process
        raise StackError(f"This stack runs no process of {system} with the role {role}; it has: {self._names()}.")

    def start_another(self, system: str, role: str = "all") -> ServiceProcess:
        """One more process of this system and role, beside those that run; healthy when this returns."""
        process = self._add(self.specs[system], role)
        process.start()
        return process

    def url(self, system: str) -> str:
        """Where the system's API is."""
        return self.process(system, "api" if self._split else "all").url

    def dsn(self, system: str) -> str:
        """The DSN of the application's role."""
        return self._dsns[system][0]

    def owner_dsn(self, system: str) -> str:
        """The DSN of the role that owns the schema and migrates."""
        return self._dsns[system][1]

    def kafka_credentials(self, user: str) -> tuple[str, str]:
        """User and password (SCRAM-SHA-512) of a system or a carrier."""
        return user, self._passwords[user]

    @property
    def kafka_users(self) -> tuple[str, ...]:
        """All systems and carriers."""
        return tuple(self._passwords)

    def carrier_key_file(self, carrier: str) -> Path:
        """The private JWK with which the carrier opens its messages."""
        return keys.carrier_key_file(self.keys, carrier)

    def env_of(self, system: str) -> dict[str, str]:
        """The environment that every process of the system gets (but for its ports)."""
        if system == WITNESS.system:
            return self._env_of_witness()
        spec = self.specs[system]
        return {
            **{name: os.environ[name] for name in INHERITED if name in os.environ},
            "LIMITS_FACTOR": os.environ.get("LIMITS_FACTOR", LIMITS_FACTOR),
            "PYTHONPATH": os.pathsep.join(map(str, spec.pythonpath)),
            "PYTHONUNBUFFERED": "1",
            "LOG_LEVEL": "INFO",
            "DATABASE_DSN": self.dsn(system),
            "KAFKA_BOOTSTRAP": self.kafka.bootstrap,
            "KAFKA_USER": system,
            "KAFKA_PASSWORD_FILE": str(self._password_file(system)),
            "VAULT_URL": self.url("vault") if "vault" in self.specs else "",
            "IDENTITY_KEY_FILE": str(keys.identity_file(self.keys, system)),
            "ID_KEY_FILE": str(keys.id_key_file(self.keys, system)),
            "POLICY_FILES": os.pathsep.join(map(str, self.policy_files)),
            "TOPICS_FILES": os.pathsep.join(str(s.topics) for s in self._extra if s.topics),
            "LANES_DIR": str(POLICY_DIR / "lanes"),
            "CUSTOMER_PUBLIC_KEY_FILE": str(self.keys / "customer.pub.pem"),
            "STAFF_PUBLIC_KEY_FILE": str(self.keys / "staff.pub.pem"),
            **{name: str(self.keys / file) for name, file in OWN_KEYS.get(system, {}).items()},
            **(self._rights() if system == "privacy" else {}),
            **(self.mail.environment if system == "account" and self.mail is not None else {}),
            **({"REVOCATIONS_FILE": str(self.folder / "revocations.jsonl")} if system == "vault" else {}),
            **self.overrides[system],
        }

    def _rights(self) -> dict[str, str]:
        return {
            # Nobody is here who could think again within a day.
            "ERASURE_WAIT_SECONDS": "0",
            "COMMAND_RETRY_SECONDS": "1",
            # Each look at a hold asks every system: much more often and people who are held would be all that it does.
            "HOLD_CHECK_SECONDS": "10",
            "EVIDENCE_FILE": str(self.folder / "evidence.jsonl"),
            "WITNESS_URL": self.process(WITNESS.system).url,
        }

    def _env_of_witness(self) -> dict[str, str]:
        return {
            **{name: os.environ[name] for name in INHERITED if name in os.environ},
            "PYTHONPATH": os.pathsep.join(map(str, WITNESS.pythonpath)),
            "PYTHONUNBUFFERED": "1",
            "WITNESS_FILE": str(self.keys / "witness" / "checkpoints"),
            **{name: str(self.keys / file) for name, file in OWN_KEYS[WITNESS.system].items()},
            **self.overrides[WITNESS.system],
        }

    def _start(self) -> None:
        with self._step("Starting Kafka and PostgreSQL"), ThreadPoolExecutor(max_workers=2) as threads:
            servers = [threads.submit(self.kafka.start), threads.submit(self.postgres.start)]
            self.logs.mkdir()
            keys.write_keys(self.keys, self.specs, CARRIERS)
            self.mail = MailServer(self.mailbox, self.keys)
            self.mail.start()
            for server in servers:
                server.result()
        with self._step("Creating topics, users and databases"):
            self._fill_kafka()
            for system in self.specs:
                self._dsns[system] = self.postgres.create_system_database(system)
        for spec in self.specs.values():
            for role in spec.roles if self._split else ("all",):
                self._add(spec, role)
        if "privacy" in self.specs:
            self._add(WITNESS, "all")
        with self._step("Migrating"):
            self._migrate()
        with self._step(f"Starting {len(self.processes)} service processes"):
            for process in self.processes:
                process.launch()
            for process in self.processes:
                process.wait_healthy()

    def _migrate(self) -> None:
        """Run all systems' migrations, each as the owner of its database."""
        log = self.logs / "migrate.log"
        owners = {system: {**self.env_of(system), "MIGRATIONS_DSN": self.owner_dsn(system)} for system in self.specs}
        sources = dict.fromkeys(str(path) for spec in self.specs.values() for path in (*spec.pythonpath, ROOT))
        # On its standard input, since whoever may list processes sees their arguments.
        given = json.dumps([[self.specs[system].module, environment] for system, environment in owners.items()])
        with log.open("ab") as output:
            code = subprocess.run(
                [sys.executable, "-m", "deploy.local.migrations"], check=False, input=given.encode(), stdout=output,
                stderr=output, env={**os.environ, "PYTHONPATH": os.pathsep.join(sources)}, timeout=MIGRATE_TIMEOUT,
            ).returncode  # fmt: skip
        if code != 0:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise StackError(f"A migration failed; the end of {log} is:\n{tail}")

    def _fill_kafka(self) -> None:
        passwords = self.keys / "kafka"
        passwords.mkdir(mode=0o700)
        for user, password in self._passwords.items():
            self._password_file(user).touch(mode=0o600)
            self._password_file(user).write_text(password)
        self.kafka.create_users(self._passwords)
        self.kafka.create_topics(self.topics)
        # A third party takes part in rights requests, so it reads what every participant reads.
        systems = tuple(spec.system for spec in self._extra)
        common = [replace(t, consumers=systems) for t in TOPICS if t.name in (PRIVACY_COMMANDS, REVOCATIONS)]
        self.kafka.create_acls((*self.topics, *common))

    def _add(self, spec: ServiceSpec, role: str) -> ServiceProcess:
        count = sum((p.system, p.role) == (spec.system, role) for p in self.processes)
        name = f"{spec.system}-{role}" + (f"-{count + 1}" if count else "")
        process = ServiceProcess(spec, role, name, self.logs / f"{name}.log", lambda: self.env_of(spec.system))
        self.processes.append(process)
        return process

    def _password_file(self, user: str) -> Path:
        return self.keys / "kafka" / f"{user}.password"

    def _names(self) -> str:
        return ", ".join(process.name for process in self.processes) or "none"

    @contextmanager
    def _step(self, what: str) -> Iterator[None]:
        self._progress(f"{what} …")
        begin = time.monotonic()
        yield
        self._progress(f"{what}: {time.monotonic() - begin:.1f} s")


def _close_together(processes: Sequence[ServiceProcess]) -> None:
    with ThreadPoolExecutor(max_workers=16) as threads:
        list(threads.map(ServiceProcess.close, processes))


OWN_KEYS: Mapping[str, Mapping[str, str]] = {
    "account": {"CUSTOMER_KEY_FILE": "customer.pem", "MAIL_KEY_FILE": "mail.key"},
    "logistics-gateway": {"CARRIERS_DIR": "carriers", "REPLY_KEY_FILE": "reply.jwk"},
    "privacy": {"EVIDENCE_KEY_FILE": "evidence/log.pem", "WITNESS_PUBLIC_KEY_FILE": "witness/witness.vkey"},
    "witness": {"WITNESS_KEY_FILE": "witness/witness.pem", "WITNESS_LOG_KEY_FILE": "evidence/log.vkey"},
    "vault": {"SERVICE_KEYS_DIR": "service_keys", "KEK_DIR": "kek", "REVOCATIONS_KEY_FILE": "revocations.pem"},
}
