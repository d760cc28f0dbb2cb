"""The services of a stack as data, and one running process of a service."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from sys import executable
from typing import Any

import httpx

from deploy.local.processes import HOST, Port, Process, StackError, spawn
from servicekit.http.tls import tls_of

ROOT = Path(__file__).resolve().parents[2]
ROLES = ("api", "consume", "relay", "jobs")
HEALTHY_TIMEOUT = 240.0


def _sources(*folders: str) -> tuple[Path, ...]:
    return tuple(
        ROOT / folder / "src"
        for folder in ("shared/event-contracts", "shared/country-data", "shared/servicekit", *folders)
    )


@dataclass(frozen=True)
class ServiceSpec:
    """One service: its name in policy, Kafka and Postgres, and how to run it.

    `module` is what `python -m` runs with a role or `migrate`; `roles` are what it is split into. `topics` (a JSON
    file) and `policy_files` are what a third party brings along.
    """

    system: str
    module: str
    pythonpath: tuple[Path, ...] = field(default_factory=_sources)
    roles: tuple[str, ...] = ROLES
    topics: Path | None = None
    policy_files: tuple[Path, ...] = ()


SERVICES: tuple[ServiceSpec, ...] = (
    ServiceSpec("vault", "vault_service", _sources("services/privacy"), roles=("api", "jobs")),
    ServiceSpec("account", "account_service", _sources("services/account")),
    ServiceSpec("order", "order_service", _sources("shared/lanes", "services/order")),
    ServiceSpec("logistics-gateway", "logistics_gateway", _sources("shared/lanes", "services/logistics-gateway")),
    ServiceSpec("privacy", "privacy_service", _sources("services/privacy")),
)


# Under an account of its own elsewhere: no database, no Kafka, no key of the vault.
WITNESS = ServiceSpec("witness", "evidence_log.witness", _sources("services/privacy"), roles=("all",))


def load_specification(text: str) -> ServiceSpec:
    """The `ServiceSpec` at `MODULE:NAME`. Raises ImportError, AttributeError, TypeError or ValueError."""
    module, _, name = text.partition(":")
    found = getattr(import_module(module), name)
    if not isinstance(found, ServiceSpec):
        raise TypeError(f"{text} is no ServiceSpec")
    return found


class ServiceProcess:
    """One process of a service. It has a port for the operator and, with the role `api`, one for its routes."""

    def __init__(
        self, spec: ServiceSpec, role: str, name: str, log: Path, environment: Callable[[], Mapping[str, str]]
    ) -> None:
        self.spec, self.system, self.role, self.name, self.log = spec, spec.system, role, name, log
        self._environment = environment
        self._port, self._health_port = Port(), Port()
        self._process: Process | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._port.number}"

    @property
    def health_url(self) -> str:
        """Where /livez, /readyz and /metrics are."""
        return f"http://{HOST}:{self._health_port.number}"

    @property
    def pid(self) -> int | None:
        """None while it is down."""
        return self._process.pid if self._process is not None and self._process.is_running else None

    @property
    def exit_code(self) -> int | None:
        """Of its last run; None when it runs or never ran; minus the signal's number when a signal ended it."""
        return None if self._process is None else self._process.exit_code

    def launch(self, extra: Mapping[str, str] | None = None) -> None:
        """Start it, on the same ports as ever, without waiting. `extra` is added to its environment for this run."""
        if self.pid is not None:
            return
        address = {"HTTP_HOST": HOST, "HTTP_PORT": str(self._port.number)}
        address |= {"HEALTH_HOST": HOST, "HEALTH_PORT": str(self._health_port.number)}
        command = [executable, "-m", self.spec.module, self.role]
        environment = {**self._environment(), **address, **(extra or {})}
        self._process = spawn(self.name, command, log=self.log, env=environment)

    def start(self, extra: Mapping[str, str] | None = None) -> None:
        """`launch` and `wait_healthy`."""
        self.launch(extra)
        self.wait_healthy()

    def wait_healthy(self, timeout: float = HEALTHY_TIMEOUT) -> None:
        """Wait until /readyz says ok. Raises StackError with the end of its log when it ends or takes too long."""
        deadline = time.monotonic() + timeout
        while not self.health().get("ok"):
            if self.pid is None or time.monotonic() > deadline:
                what = "does not become healthy" if self.pid is not None else f"ended with code {self.exit_code}"
                raise StackError(f"{self.name} {what}; the end of {self.log} is:\n{self.log_tail()}")
            time.sleep(0.1)

    def health(self) -> dict[str, Any]:
        """What /readyz says, also with a status other than 200; {} when nobody answers within 2 s."""
        return read_health(self.health_url)

    def stop(self, timeout: float = 10) -> None:
        """SIGTERM, and SIGKILL after `timeout` seconds."""
        if self._process is not None:
            self._process.stop(timeout)

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()

    def restart(self, extra: Mapping[str, str] | None = None) -> None:
        """`stop` and `start`."""
        self.stop()
        self.start(extra)

    def pause(self) -> None:
        """SIGSTOP."""
        if self._process is not None:
            self._process.pause()

    def resume(self) -> None:
        """SIGCONT."""
        if self._process is not None:
            self._process.resume()

    def close(self) -> None:
        """Stop for good."""
        self.stop()
        self._port.release()
        self._health_port.release()

    def log_tail(self) -> str:
        """The last lines of its log."""
        return "" if self._process is None else self._process.log_tail()


def read_health(url: str) -> dict[str, Any]:
    """The JSON object of `url`/readyz; {} when nobody answers within 2 s."""
    try:
        health = httpx.get(f"{url}/readyz", timeout=2, trust_env=False, verify=tls_of(url)).json()
    except (httpx.HTTPError, ValueError):
        return {}
    return health if isinstance(health, dict) else {}
