"""What is written down about a stack in the background: `stack.json` for us, `stack.env` for the shell (mode 0600)."""

import json
import os
import shlex
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from deploy.local import keys
from deploy.local.processes import find
from deploy.local.stack import Stack


@dataclass
class Child:
    """A process of the stack; `health_url` is empty for Kafka and PostgreSQL."""

    system: str
    role: str
    pid: int
    created: float
    health_url: str = ""

    @property
    def is_running(self) -> bool:
        return find(self.pid, self.created) is not None


@dataclass
class State:
    """The supervisor (pid and create time, since pids are used again), its children, and the folders to remove."""

    supervisor: int
    created: float
    folders: list[str] = field(default_factory=list)
    children: list[Child] = field(default_factory=list)
    ready: bool = False

    @property
    def is_running(self) -> bool:
        return find(self.supervisor, self.created) is not None

    @property
    def keys(self) -> Path:
        """The folder of the stack's keys."""
        return Path(self.folders[0]) / "keys"

    @property
    def mailbox(self) -> Path:
        """The folder of the mails that were sent."""
        return Path(self.folders[0]) / "mail"


def state_file(local: Path) -> Path:
    return local / "stack.json"


def env_file(local: Path) -> Path:
    return local / "stack.env"


def read_state(local: Path) -> State | None:
    """None when nothing is up and nothing was left behind."""
    try:
        content = json.loads(state_file(local).read_text())
    except FileNotFoundError:
        return None
    return State(**{**content, "children": [Child(**child) for child in content["children"]]})


def write_state(local: Path, state: State) -> None:
    _write(state_file(local), json.dumps(asdict(state), indent=1))


def remove_state(local: Path) -> None:
    state_file(local).unlink(missing_ok=True)
    env_file(local).unlink(missing_ok=True)


def children_of(stack: Stack) -> list[Child]:
    """All processes of the stack that run now."""
    listed = [("kafka", "", stack.kafka.pid, ""), ("postgres", "", stack.postgres.pid, "")]
    listed += [(process.system, process.role, process.pid, process.health_url) for process in stack.processes]
    return [
        Child(system, role, pid, psutil.Process(pid).create_time(), health_url)
        for system, role, pid, health_url in listed
        if pid is not None
    ]


def write_env(local: Path, stack: Stack) -> None:
    """`stack.env`: KEY=value lines, for `set -a; . .local/stack.env; set +a`."""
    lines = [f"{name}={shlex.quote(value)}" for name, value in stack_environment(stack).items()]
    _write(env_file(local), "\n".join(lines) + "\n")


def stack_environment(stack: Stack) -> dict[str, str]:
    """What a client at the keyboard needs: addresses, folders, tokens, users and passwords, DSNs, key files."""
    environment = {f"{_name(system, GATEWAY)}_URL": stack.url(system) for system in stack.specs}
    environment |= {f"{_name(process.name)}_HEALTH_URL": process.health_url for process in stack.processes}
    environment |= {
        "KAFKA_BOOTSTRAP": stack.kafka.bootstrap,
        "KAFKA_DATA": str(stack.kafka.data_dir or ""),
        "KAFKA_ADMIN_USER": stack.kafka.admin_user,
        "KAFKA_ADMIN_PASSWORD": stack.kafka.admin_password,
        "PGDATA": str(stack.postgres.data_dir or ""),
        "POSTGRES_ADMIN_DSN": stack.postgres.admin_dsn,
        "LOG_DIR": str(stack.logs),
        "MAIL_DIR": str(stack.mailbox),
        "KEYS_DIR": str(stack.keys),
        "VAULT_KEK_DIR": str(stack.keys / "kek"),
        "GATEWAY_REPLY_KEY_FILE": str(keys.reply_key_file(stack.keys)),
        "EVIDENCE_LOG_KEY_FILE": str(keys.log_key_file(stack.keys)),
        "EVIDENCE_WITNESS_KEY_FILE": str(keys.witness_key_file(stack.keys)),
        "SUPPORT_TOKEN": keys.staff_token(stack.keys, "support"),
        "OFFICER_TOKEN": keys.staff_token(stack.keys, "privacy_officer"),
        "AUDITOR_TOKEN": keys.staff_token(stack.keys, "auditor"),
        "ACCOUNTING_TOKEN": keys.staff_token(stack.keys, "accounting"),
    }
    for user in stack.kafka_users:
        environment[f"KAFKA_{_name(user)}_USER"], environment[f"KAFKA_{_name(user)}_PASSWORD"] = (
            stack.kafka_credentials(user)
        )
    for carrier in set(stack.kafka_users) - stack.specs.keys():
        environment[f"CARRIER_{_name(carrier)}_KEY_FILE"] = str(stack.carrier_key_file(carrier))
    for system in stack.specs:
        environment[f"{_name(system)}_DSN"] = stack.dsn(system)
        environment[f"{_name(system)}_OWNER_DSN"] = stack.owner_dsn(system)
        environment[f"{_name(system)}_KEY_FILE"] = str(keys.identity_file(stack.keys, system))
    return environment


GATEWAY = {"logistics-gateway": "gateway"}  # GATEWAY_URL is its name in the shell


def _name(system: str, shorter: dict[str, str] | None = None) -> str:
    return (shorter or {}).get(system, system).replace("-", "_").upper()


def _write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(content)
    new.replace(path)
