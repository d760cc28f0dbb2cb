"""The product's systems inside the test's process: real code on real databases, each process a set of objects that can die.

A kill is `Killed`, raised where an armed fault point would send SIGKILL: nothing of ours catches it, and what the process
had in its memory is dropped. The next use of the system starts a new process on the same database.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from functools import cached_property
from typing import Any, TypeVar

import asyncpg
import httpx

from account_service.mails.sending import JOB as MAIL_JOB
from deploy.local.databases import Dsn
from evidence_log import sequencer
from logistics_gateway.app import SERVICE as GATEWAY
from servicekit.app.service import ROLL_PARTITIONS, Job, Service, open_kit
from servicekit.core import faults
from servicekit.core.clock import Clock
from servicekit.core.errors import KitError, TooMany, Unavailable
from servicekit.core.faults import Fault
from servicekit.core.health import Health
from servicekit.db import outbox
from servicekit.db.migrate import check_schema
from servicekit.db.outbox import Relay
from servicekit.db.postgres import Database
from servicekit.http.app import make_app
from servicekit.kit import Kit
from servicekit.participant.revocations import Follower
from tests.faults.simulation_broker import Reader, SimulatedProducer
from tests.faults.simulation_ground import NAMES, POLICY, SERVICES, Ground, Killed, SimulatedClock
from vault_service import app as vault_app
from vault_service import epochs
from vault_service.handlers import Vault
from vault_service.settings import VaultSettings

R = TypeVar("R")
# The witness is a process of another account with an HTTP client of its own, mails need a server: other tests have them.
LEFT_OUT = {sequencer.JOBS[1].name, MAIL_JOB}


class System:
    """A database and at most one process on it that serves; `zombies` are processes that believe they still do."""

    def __init__(self, run: Run, name: str) -> None:
        self.run, self.name = run, name
        template = Dsn.parse(run.ground.templates[name])
        self.database = f"{template.database}_{run.number}"
        self.dsn = str(Dsn(template.user, template.password, template.host, template.port, self.database))
        self._template, self._user = template.database, template.user
        self.process: Process | VaultProcess | None = None
        self.zombies: list[Process | VaultProcess] = []
        self.kills = 0
        self.has_backup = False
        self.rows_then: dict[str, int] = {}

    async def create(self) -> None:
        await self._copy(self._template, self.database)

    async def _copy(self, source: str, copy: str) -> None:
        await self.run.admin.execute(f'CREATE DATABASE "{copy}" TEMPLATE "{source}" STRATEGY WAL_LOG')
        await self.run.admin.execute(f'GRANT CONNECT ON DATABASE "{copy}" TO "{self._user}"')

    async def drop(self) -> None:
        await self.die()
        for name in (self.database, f"{self.database}_before"):
            await self.run.admin.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    async def back_up(self) -> None:
        """A copy of the database as it is now; its processes are started again."""
        await self.die()
        await self._cut()
        await self.run.admin.execute(f'DROP DATABASE IF EXISTS "{self.database}_before"')
        await self._copy(self.database, f"{self.database}_before")
        self.has_backup = True
        if self.name == "vault":
            self.rows_then["keys"] = await self.count("keys")

    async def restore(self) -> None:
        """The copy takes the database's place, and stays a copy."""
        await self.die()
        await self.run.admin.execute(f'DROP DATABASE "{self.database}" WITH (FORCE)')
        await self._copy(f"{self.database}_before", self.database)

    async def _cut(self) -> None:
        await self.run.admin.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1", self.database
        )

    async def up(self) -> Process | VaultProcess:
        """A process that dies while it starts is started again, as those who run it would do."""
        while self.process is None:
            kind = VaultProcess if self.name == "vault" else Process
            try:
                self.process = await kind.start(self)
            except Killed:
                self.kills += 1
        return self.process

    async def die(self, *, zombies: bool = True) -> None:
        """The process and all that it had in memory are gone; with `zombies` those that it left behind, too."""
        gone = [self.process] if self.process is not None else []
        if zombies:
            gone += self.zombies
            self.zombies = []
        self.process = None
        for process in gone:
            await process.close()

    async def end_zombies(self) -> None:
        for zombie in self.zombies:
            await zombie.close()
        self.zombies.clear()

    async def alive(self, work: Callable[[Any], Awaitable[R]]) -> R | None:
        """Runs `work` in the process; None when it dies of it."""
        try:
            return await work(await self.up())
        except (Killed, asyncio.CancelledError):
            # Cancelled is what waited for a task in which the process died, unless all is to end.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            self.kills += 1
            await self.die(zombies=False)
            return None

    async def count(self, table: str) -> int:
        return len(await self.fetch(f"SELECT FROM {table}"))

    async def fetch(self, sql: str, *args: Any) -> list[asyncpg.Record]:
        """What stands in the database, whoever runs."""
        process = await self.up()
        rows: list[asyncpg.Record] = await process.db.fetch(sql, *args)
        return rows


class Process:
    """One process of a service in the roles `api`, `consume`, `relay` and `jobs`."""

    def __init__(self, service: Service, kit: Kit, run: Run, stack: AsyncExitStack) -> None:
        self.kit, self.db, self._stack, self._service = kit, kit.db, stack, service
        health = Health(service.name, "all", "0", kit.clock)
        self.follower = Follower(kit, service.holdings, health, is_alone=not service.participates)
        self.readers = {each.reader: Reader(kit, each, run.broker) for each in service.readers}
        self.relay = Relay(kit.db, lambda: SimulatedProducer(run.broker), kit.clock, kit.outbox.wake, kit.gate)  # type: ignore[union-attr]
        self._health = health

    @cached_property
    def http(self) -> httpx.AsyncClient:
        """Its API, which takes longer to make than all else of a process. People's tokens live by the machine's clock."""
        kit, service = self.kit, self._service
        routers = [service.router(kit)] if service.router is not None else []
        app = make_app(kit.settings, Clock(), self._health, routers, work=kit.works)
        return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")

    @classmethod
    async def start(cls, system: System) -> Process:
        run, service = system.run, SERVICES[system.name]
        settings = run.ground.settings_of(system.name, system.dsn, run.folder / "evidence.jsonl")
        async with AsyncExitStack() as stack:
            kit = await stack.enter_async_context(open_kit(service, settings, run.clock))
            await kit.vault._http.aclose()
            kit.vault._http = httpx.AsyncClient(transport=VaultTransport(run), base_url="http://vault")
            kit.vault._patience = 0.2
            if service is GATEWAY:
                kit.own.producer = SimulatedProducer(run.broker)
            return cls(service, kit, run, stack.pop_all())

    async def close(self) -> None:
        """As a kill does: nothing is said to anybody."""
        self.db._pool.terminate()
        with suppress(Exception):
            await self._stack.aclose()

    async def follow(self) -> None:
        """One turn, with the manners of `Follower.run`."""
        try:
            await self.follower.turn()
        except (Unavailable, TooMany):
            self.follower._is_compared = False
        except Exception:  # noqa: BLE001 - as `Follower.run` does: what cannot be applied keeps the gate shut
            self.follower._is_compared = False
            self.follower._shut()

    async def publish(self) -> int:
        if not self.kit.gate.is_open:
            return 0
        with suppress(*outbox._AWAY):
            return await self.relay.publish_batch()
        return 0

    async def work(self) -> None:
        """One run of each job."""
        for job in self._service.jobs:
            if job.name not in LEFT_OUT:
                await self._run_job(job)

    async def roll_partitions(self) -> None:
        await ROLL_PARTITIONS.run(self.kit)

    async def _run_job(self, job: Job) -> None:
        if not self.kit.gate.is_open:
            return
        with suppress(KitError, OSError):
            if job.is_work:
                async with self.kit.work():
                    await job.run(self.kit)
            else:
                await job.run(self.kit)


class VaultProcess:
    """One process of the vault in the role `api`."""

    def __init__(self, vault: Vault, settings: VaultSettings) -> None:
        self.vault, self.db = vault, vault.db
        health = Health("vault", "api", "0", vault.clock)
        self.transport = httpx.ASGITransport(vault_app._api(settings, vault.clock, health, vault))

    @classmethod
    async def start(cls, system: System) -> VaultProcess:
        run, folder = system.run, system.run.ground.folder / "keys"
        settings = VaultSettings(
            database_dsn=system.dsn,
            policy_files=str(POLICY / "policy.yaml"),
            service_keys_dir=folder / "service_keys",
            kek_dir=folder / "kek",
            revocations_file=run.folder / "revocations.jsonl",
            revocations_key_file=folder / "revocations.pem",
        )
        db = await Database.connect(system.dsn, "vault-api")
        try:
            await check_schema(db, vault_app.MIGRATIONS)
            kek = await epochs.prepare(db, epochs.make_provider(settings), run.clock)
            return cls(await vault_app._open_vault(settings, run.clock, db, kek), settings)
        except BaseException:
            db._pool.terminate()
            raise

    async def close(self) -> None:
        self.db._pool.terminate()


class VaultTransport(httpx.AsyncBaseTransport):
    """From a service to the vault. `run.lost_calls` says of the next calls whether `request` or `reply` is lost."""

    def __init__(self, run: Run) -> None:
        self._run = run

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        lost = self._run.lost_calls.popleft() if self._run.lost_calls else ""
        if lost == "request":
            raise httpx.ConnectError("lost", request=request)
        vault = self._run.systems["vault"]
        response: httpx.Response | None = await vault.alive(
            lambda process: process.transport.handle_async_request(request)
        )
        if response is None or lost:
            raise httpx.ReadError("lost", request=request)
        await response.aread()
        return response


class Run:
    """All systems of one list of operations, their broker and their clock."""

    def __init__(self, ground: Ground) -> None:
        ground.runs += 1
        self.ground, self.number = ground, ground.runs
        self.folder = ground.folder / f"run-{self.number}"
        self.folder.mkdir()
        self.broker, self.clock = ground.make_broker(), SimulatedClock()
        self.lost_calls: deque[str] = deque()
        self.lost_requests: deque[str] = deque()
        self.systems = {name: System(self, name) for name in NAMES}
        self.admin: Any = None

    async def open(self) -> None:
        self.admin = await asyncpg.connect(self.ground.admin_dsn)
        for system in self.systems.values():
            await system.create()

    async def close(self) -> None:
        faults.arm({})
        for system in self.systems.values():
            await system.drop()
        await self.admin.close()
        await self.broker.close()

    @property
    def kills(self) -> int:
        return sum(system.kills for system in self.systems.values())

    def arm(self, point: str, hit: int) -> None:
        """In addition to what is armed."""
        faults._ARMED[point] = Fault("kill", at=faults.HITS[point] + hit)

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Nothing fails within the block, and what was to fail next fails after it."""
        armed, hits = dict(faults._ARMED), faults.HITS.copy()
        lost = [[*losses] for losses in self.losses]
        faults.arm({})
        for losses in self.losses:
            losses.clear()
        try:
            yield
        finally:
            faults.arm(armed)
            faults.HITS.update(hits)
            for losses, before in zip(self.losses, lost, strict=True):
                losses.extend(before)

    @property
    def losses(self) -> Sequence[deque[str]]:
        return self.lost_calls, self.lost_requests, self.broker.losses

    async def tick(self, seconds: float) -> None:
        """Time passes, for the vault's database as well, whose clock counts the leases of holders."""
        before = self.clock.now().date()
        self.clock.added += seconds
        vault = await self.systems["vault"].up()
        await vault.db.fetch("UPDATE holders SET lease_until = lease_until - make_interval(secs => $1)", seconds)
        if self.clock.now().date() != before:
            for name in SERVICES:
                await self.systems[name].alive(lambda process: process.roll_partitions())
