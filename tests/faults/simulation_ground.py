"""What all runs of the simulation in one test module stand on: migrated databases to copy, keys, a clock that can be set.

A kill is `Killed`, raised where an armed fault point would send SIGKILL: nothing of ours catches it.
"""

from __future__ import annotations

import asyncio
import os
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from fastapi import FastAPI

from account_service.app import SERVICE as ACCOUNT
from account_service.settings import AccountSettings
from deploy.local import keys
from deploy.local.databases import execute
from deploy.local.interfaces import PostgresServer
from event_contracts.topics import CARRIERS
from evidence_log import sequencer
from lanes.loading import load_lanes
from logistics_gateway import sending
from logistics_gateway.app import SERVICE as GATEWAY
from logistics_gateway.settings import GatewaySettings
from order_service.app import SERVICE as ORDER
from order_service.settings import OrderSettings
from privacy_service.app import SERVICE as PRIVACY
from privacy_service.settings import PrivacySettings
from servicekit.core import faults
from servicekit.core.clock import Clock
from servicekit.core.policy import Policy
from servicekit.core.settings import Settings
from servicekit.db.migrate import migrate
from servicekit.kafka import batches
from servicekit.participant import participant, revocations
from tests.faults.simulation_broker import Broker
from vault_service import app as vault_app

R = TypeVar("R")
POLICY = Path(__file__).resolve().parents[2] / "shared" / "policy"
SERVICES = {service.name: service for service in (ORDER, ACCOUNT, GATEWAY, PRIVACY)}
NAMES = (*SERVICES, "vault")
# The witness is a process of another account with an HTTP client of its own: other tests have it.
LEFT_OUT = {sequencer.JOBS[1].name}


class Killed(BaseException):
    """A process died here. No `except Exception` sees it."""


class SimulatedClock(Clock):
    """The machine's clock and what the simulation added to it; `jumped` is by how much somebody set the wall clock wrong."""

    def __init__(self) -> None:
        super().__init__(timedelta())
        self.added = self.jumped = 0.0

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.added + self.jumped)

    def boottime(self) -> float:
        return super().boottime() + self.added


@pytest.fixture(scope="module")
def ground(postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """Migrated databases to copy, and keys; in this module a fault point kills by `Killed`, and nothing waits for long."""
    folder = tmp_path_factory.mktemp("simulation")
    keys.write_keys(folder / "keys", NAMES, CARRIERS)
    ground = Ground(postgres_server.admin_dsn, folder)
    if not os.environ.get("POSTGRES_DSN"):
        # The server is this module's own, and is never killed: nothing has to reach the disk.
        settings = ("fsync", "full_page_writes", "synchronous_commit")
        execute(ground.admin_dsn, *(f"ALTER SYSTEM SET {each} = off" for each in settings), "SELECT pg_reload_conf()")
    for name in NAMES:
        app, owner = postgres_server.create_system_database(name)
        folders = vault_app.MIGRATIONS if name == "vault" else SERVICES[name].migration_folders
        asyncio.run(migrate(owner, folders))
        ground.templates[name] = app
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(faults, "os", types.SimpleNamespace(kill=_die, getpid=lambda: 0, environ=os.environ))
        patch.setattr(revocations, "WAIT_SECONDS", 0.0)
        patch.setattr(revocations, "TELL_SECONDS", 0.0)
        patch.setattr(batches, "FIRST_PAUSE", 0.001)
        patch.setattr(participant, "LOOKS", 1)
        # What each new process would read again and find the same: most of the time that its start takes.
        patch.setattr(FastAPI, "openapi", _once(FastAPI.openapi, lambda app: app.title))
        patch.setattr(Policy, "load", _once(Policy.load, str))
        patch.setattr(sending, "load_lanes", _once(load_lanes, str))
        yield ground


def _once(make: Callable[[Any], R], name: Callable[[Any], str]) -> Callable[[Any], R]:
    """The result of the first call for all of the same name."""
    made: dict[str, R] = {}

    def get(argument: Any) -> R:
        key = name(argument)
        if key not in made:
            made[key] = make(argument)
        return made[key]

    return get


def _die(pid: int, number: int) -> None:
    raise Killed


@dataclass
class Ground:
    """What all runs of a module share."""

    admin_dsn: str
    folder: Path
    templates: dict[str, str] = field(default_factory=dict)
    runs: int = 0
    make_broker: Callable[[], Broker] = Broker

    def settings_of(self, name: str, dsn: str, evidence_file: Path) -> Settings:
        folder = self.folder / "keys"
        common: dict[str, Any] = {
            "database_dsn": dsn,
            "vault_url": "http://vault",
            "identity_key_file": keys.identity_file(folder, name),
            "policy_files": str(POLICY / "policy.yaml"),
            "customer_public_key_file": folder / "customer.pub.pem",
            "staff_public_key_file": folder / "staff.pub.pem",
            "id_key_file": keys.id_key_file(folder, name),
            "lanes_dir": POLICY / "lanes",
        }
        match name:
            case "account":
                return AccountSettings(**common, mail_key_file=keys.mail_key_file(folder))
            case "logistics-gateway":
                carriers: dict[str, Any] = {"carriers_dir": folder / "carriers", "reply_key_file": folder / "reply.jwk"}
                return GatewaySettings(**common, **carriers, blocked_retry_seconds=1, stale_seconds=1)
            case "privacy":
                return PrivacySettings(
                    **common,
                    evidence_key_file=folder / "evidence" / "log.pem",
                    evidence_file=evidence_file,
                    erasure_wait_seconds=5,
                    command_retry_seconds=1,
                    hold_check_seconds=60,
                )
            case "order":
                return OrderSettings(**common)
            case _:
                return Settings(**common)
