"""What a process is told by its environment. Every service reads the same names;
a service adds its own in its `settings.py`.
"""

import os
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from servicekit.core.errors import Misconfigured


class Settings(BaseSettings):
    """Each field is the environment variable of its name in capitals; an empty variable counts as absent.

    Nothing is required here, because each role needs a different part: a role says what it needs with `require`.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True, env_ignore_empty=True)

    database_dsn: str = Field("", repr=False)
    migrations_dsn: str = Field("", repr=False)
    kafka_bootstrap: str = ""
    kafka_user: str = ""
    kafka_password_file: Path | None = None
    # A name that no other process of the service has, and that this one keeps: started again after a crash it has its
    # partitions back at once. Without one they wait for the dead process's session to end.
    kafka_member: str = ""
    # Lists of topics beside our own: a third party's.
    topics_files: Annotated[tuple[Path, ...], NoDecode] = ()
    vault_url: str = ""
    identity_key_file: Path | None = None
    http_host: str = "127.0.0.1"
    http_port: int = Field(8000, ge=0, le=65_535)
    # For the operator alone: /livez, /readyz and /metrics.
    health_host: str = "127.0.0.1"
    health_port: int = Field(8001, ge=0, le=65_535)
    # How long a sender may take for a request's head, for its body and until the next request, and how long for the next
    # part of an answer.
    http_head_seconds: float = Field(10, gt=0)
    http_body_seconds: float = Field(10, gt=0)
    http_idle_seconds: float = Field(15, gt=0)
    http_write_seconds: float = Field(30, gt=0)
    http_connections: int = Field(500, gt=0)
    http_connections_per_peer: int = Field(100, gt=0)
    http_requests: int = Field(500, gt=0)
    http_trusted_proxies: Annotated[tuple[str, ...], NoDecode] = ()
    # For each peer and process: requests without a valid token.
    strangers_per_minute: float = Field(600, gt=0)
    strangers_burst: int = Field(300, ge=1)
    # All limits of docs/limits.md times this.
    limits_factor: float = Field(1, gt=0)
    policy_files: Annotated[tuple[Path, ...], NoDecode] = ()
    customer_public_key_file: Path | None = None
    staff_public_key_file: Path | None = None
    # The ids of what callers make are computed under it (`servicekit.http.ids`); only the role `api` needs it.
    id_key_file: Path | None = None
    log_level: str = "INFO"

    @field_validator("policy_files", "topics_files", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(Path(part) for part in value.split(os.pathsep) if part) if isinstance(value, str) else value

    @field_validator("http_trusted_proxies", mode="before")
    @classmethod
    def _networks(cls, value: object) -> object:
        return tuple(str(ip_network(part.strip())) for part in value.split(",")) if isinstance(value, str) else value

    def require(self, *names: str) -> None:
        """Raises `Misconfigured` with the environment variables that are missing among the fields `names`."""
        missing = [name.upper() for name in names if not getattr(self, name)]
        if missing:
            raise Misconfigured(f"The environment lacks {', '.join(missing)}: set them and start again.")

    def read(self, name: str) -> bytes:
        """The content of the file that the field `name` points to, without blanks at its end.

        Raises `Misconfigured` when the variable is absent or the file cannot be read.
        """
        self.require(name)
        try:
            return Path(getattr(self, name)).read_bytes().rstrip()
        except OSError as error:
            raise Misconfigured(f"The file that {name.upper()} names cannot be read: {type(error).__name__}.") from None
