"""`Service`: all the wiring of a service as data, and `main`, which runs one role of it."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any, Final, TypeAlias

from fastapi import APIRouter

from event_contracts import Event
from event_contracts.privacy import PRIVACY_COMMANDS
from servicekit.app.probes import STARTING, connect_once_up, serving_probes
from servicekit.app.process import run_process, stop_signal
from servicekit.app.republish import REPUBLISH, SayAgain, republish, since_of
from servicekit.core.clock import Clock, pause_until_any
from servicekit.core.errors import KitError
from servicekit.core.faults import check_armed
from servicekit.core.gc_settings import settle
from servicekit.core.health import Health, Progress
from servicekit.core.logs import code, get_log
from servicekit.core.metrics import JOB_RUNS
from servicekit.core.policy import Policy
from servicekit.core.settings import Settings
from servicekit.db import outbox as outboxes
from servicekit.db.migrate import KIT_MIGRATIONS, check_schema, migrate
from servicekit.db.outbox import Outbox, Relay
from servicekit.db.postgres import Database
from servicekit.db.writers import OldestWriter, check_writers, read_writers
from servicekit.http.app import make_app
from servicekit.http.limits import forget_tries
from servicekit.http.serving import serving
from servicekit.kafka import positions_command, quarantine_command
from servicekit.kafka.client import Producer
from servicekit.kafka.consuming import Consumes, run_reader
from servicekit.kafka.replay import emit_decision, tend
from servicekit.kit import Kit, RecordDecision
from servicekit.participant.exports import EXPORT, EXPORT_EVERY, export_next
from servicekit.participant.holdings import Holding
from servicekit.participant.participant import ANSWERS, participant
from servicekit.participant.revocations import Follower
from servicekit.vault.client import ServiceIdentity, VaultClient

log = get_log("service")
ROLES: Final = ("api", "consume", "relay", "jobs")
COMMANDS: Final = ("migrate",)
# Commands with words of their own behind them.
TOOLS: Final = {each.COMMAND: each for each in (positions_command, quarantine_command)}
# A process that is told to stop has 10 s in all (docs/faults.md#26-sigterm-under-load), its parts most of it.
STOP_SECONDS: Final = 9.5
PARTS_SECONDS: Final = 6.0
SIGN_OFF_SECONDS: Final = 1.0
Connect: TypeAlias = Callable[[str, str], Awaitable[Database]]
LEAST_STALE: Final = timedelta(seconds=30)
TEND_EVERY: Final = timedelta(seconds=5)
Tool: TypeAlias = Callable[["Kit"], Awaitable[None]]


@dataclass(frozen=True)
class Job:
    """Work that is done every so often, by one process or several: it must be right however many run it.

    `is_work=False`: it says itself, with `kit.work()`, when keys are in use; a run that takes long would hold an erasure up.
    `needs` as in `Health.loop`.
    """

    name: str
    every: timedelta
    run: Callable[[Kit], Awaitable[None]]
    is_work: bool = True
    needs: str = ""


@dataclass(frozen=True)
class Service:
    """A service as data. `own` makes what its hooks get from `kit.context`: an async context manager over the kit.

    `say_again(tx, since)` has what went to Kafka past the outbox sent again, and returns how much: see `republish.py`.
    `record_decision` puts on record what operators decide; a participant tells the privacy service.
    """

    name: str
    migrations: Path
    emits: Sequence[type[Event]] = ()
    consumes: Sequence[Consumes] = ()
    holdings: Sequence[Holding] = ()
    jobs: Sequence[Job] = ()
    router: Callable[[Kit], APIRouter] | None = None
    settings: type[Settings] = Settings
    own: Callable[[Kit], AbstractAsyncContextManager[object]] | None = None
    say_again: SayAgain | None = None
    record_decision: RecordDecision | None = None
    package: str = "servicekit"

    @property
    def readers(self) -> tuple[Consumes, ...]:
        """What it consumes; with holdings also the privacy service's commands."""
        return (*self.consumes, participant(self.holdings)) if self.participates else tuple(self.consumes)

    @property
    def publishes(self) -> tuple[type[Event], ...]:
        return (*self.emits, *ANSWERS) if self.participates else tuple(self.emits)

    @property
    def participates(self) -> bool:
        # Whoever asks does not answer itself.
        return bool(self.holdings) and all(event.topic != PRIVACY_COMMANDS for event in self.emits)

    @property
    def tables(self) -> list[str]:
        """What holds personal data: an erasure waits for writers of these."""
        return [holding.table for holding in self.holdings]

    @property
    def migration_folders(self) -> list[Path]:
        return [KIT_MIGRATIONS, self.migrations]


def main(service: Service, arguments: Sequence[str] | None = None) -> None:
    """Runs `api`, `consume`, `relay`, `jobs` or `all` until SIGTERM, or a command. Exits 2 on a wrong call."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    since = since_of(given)
    tool = _tool(service, given)
    if since is None and tool is None and (len(given) != 1 or given[0] not in (*ROLES, "all", *COMMANDS)):
        known = "|".join((*ROLES, "all", *COMMANDS, *TOOLS, REPUBLISH))
        print(f"usage: {service.name} {known}", file=sys.stderr)
        raise SystemExit(2)
    settings = service.settings()
    has_keys = given[0] != "migrate"
    work = partial(_run, service, settings, given[0], since, tool)
    if run_process(service.name, given[0], settings.log_level, work, has_keys=has_keys):
        raise SystemExit(1)


def _tool(service: Service, given: Sequence[str]) -> Tool | None:
    """An operator's command with words of its own, ready to run."""
    module = TOOLS.get(given[0]) if given else None
    if module is None:
        return None
    call = module.parse(service.name, given[1:])
    return lambda kit: module.run(kit, service.readers, call)


async def _run(
    service: Service, settings: Settings, role: str, since: datetime | None, tool: Tool | None = None
) -> None:
    check_armed()
    if role == "migrate":
        settings.require("migrations_dsn")
        applied = await migrate(settings.migrations_dsn, service.migration_folders)
        log.info("migrated", migrations=len(applied))
        return
    stopping = stop_signal()
    if role in (*ROLES, "all"):
        await _serve(service, settings, ROLES if role == "all" else (role,), role, stopping)
        return
    async with open_kit(service, settings) as kit:
        if since is not None:
            moved, again = await republish(kit, since, service.say_again)
            print(f"{moved} positions went back; {again} records are published again when {service.name} runs")
        elif tool is not None:
            await tool(kit)
            await _sign_off(kit)


async def _sign_off(kit: Kit) -> None:
    """All parts have ended: no erasure need wait for this process. Without this its leases run out by themselves."""
    try:
        await asyncio.wait_for(kit.vault.sign_off(), SIGN_OFF_SECONDS)
    except (KitError, TimeoutError) as error:
        log.warning("not_signed_off", error=error)


@asynccontextmanager
async def open_kit(
    service: Service, settings: Settings, clock: Clock | None = None, connect: Connect = Database.connect
) -> AsyncIterator[Kit]:
    """The kit of one process. Refuses a schema or a policy that it does not know."""
    settings.require("database_dsn", "vault_url", "identity_key_file", "policy_files")
    clock = clock or Clock()
    policy = Policy.load(settings.policy_files)
    async with AsyncExitStack() as stack:
        db = await connect(settings.database_dsn, service.name)
        stack.push_async_callback(db.close)
        await check_schema(db, service.migration_folders)
        await check_writers(db, service.tables)
        identity = ServiceIdentity(service.name, settings.read("identity_key_file"), clock)
        vault = VaultClient(settings.vault_url, identity, clock)
        stack.push_async_callback(vault.close)
        outbox = Outbox(service.name, clock, frozenset(event.topic_of(service.name) for event in service.publishes))
        record = service.record_decision or (emit_decision if service.participates else None)
        kit = Kit(service.name, settings, clock, policy, vault, db, outbox, record_decision=record)
        if service.own is not None:
            kit = replace(kit, own=await stack.enter_async_context(service.own(kit)))
        yield kit


async def _serve(
    service: Service, settings: Settings, roles: Sequence[str], role: str, stopping: asyncio.Event
) -> None:
    clock = Clock()
    health = Health(service.name, role, package_version(service.package), clock)
    connect = partial(connect_once_up, health=health, stopping=stopping)
    async with serving_probes(health, settings), open_kit(service, settings, clock, connect) as kit:
        await _run_parts(service, kit, roles, health, stopping)
        await _sign_off(kit)


async def _run_parts(service: Service, kit: Kit, roles: Sequence[str], health: Health, stopping: asyncio.Event) -> None:
    # Shuts the gate before anything is served.
    follower = Follower(kit, service.holdings, health, is_alone=not service.participates)
    parts = [
        ("revocations", follower.run(stopping, health.loop("revocations"))),
        *_parts(service, kit, roles, health, stopping),
    ]
    if "api" in roles:
        # A part as the others: requests get their time to end while the readers get theirs, and not after it.
        parts.append(("http", _serve_http(service, kit, health, stopping)))
    tasks = {asyncio.ensure_future(run): name for name, run in parts}
    settle()
    health.accept(STARTING)
    log.info("started", parts=len(tasks))
    stop = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait([stop, *tasks], return_when=asyncio.FIRST_COMPLETED)
        stopping.set()
        # Whatever hangs then, in a part or in what is closed after them: a kill loses nothing.
        signal.setitimer(signal.ITIMER_REAL, STOP_SECONDS)
        _, late = await asyncio.wait([stop, *tasks], timeout=PARTS_SECONDS)
        for task in late:
            log.warning("cancelled", part=code(tasks.get(task, "stop")))
            task.cancel()
        # A part that failed ends the process: better none than one that only seems to work.
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result
    finally:
        stop.cancel()


async def _serve_http(service: Service, kit: Kit, health: Health, stopping: asyncio.Event) -> None:
    routers = [service.router(kit)] if service.router is not None else []
    app = make_app(kit.settings, kit.clock, health, routers, work=kit.works, limits=kit.limits)
    async with serving(app, kit.settings):
        await stopping.wait()


def _parts(
    service: Service, kit: Kit, roles: Sequence[str], health: Health, stopping: asyncio.Event
) -> list[tuple[str, Any]]:
    parts: list[tuple[str, Any]] = []
    # Every role rolls the partitions: which roles run is the operator's choice, and none may be missed after a week.
    jobs = [_watch_writers(service, kit, health), ROLL_PARTITIONS]
    if "consume" in roles:
        for consumes in service.readers:
            progress = health.loop(f"consume.{consumes.reader}")
            parts.append((consumes.reader, run_reader(kit, consumes, stopping, progress)))
    if "relay" in roles and service.publishes and kit.outbox is not None:
        relay = Relay(kit.db, lambda: Producer(kit.settings), kit.clock, kit.outbox.wake, kit.gate, kit.outbox.topics)
        parts.append(("relay", relay.run(stopping, health.loop("relay"))))
        jobs.append(_watch_depth(health))
    if "jobs" in roles:
        jobs += [*service.jobs, _tend_quarantine(service), FORGET_TRIES]
        if service.participates:
            jobs.append(_export_of(service))
    for job in jobs:
        progress = health.loop(f"job.{job.name}", max(job.every * 3, LEAST_STALE), needs=job.needs)
        parts.append((job.name, _run_job(kit, job, stopping, progress)))
    return parts


def _watch_writers(service: Service, kit: Kit, health: Health) -> Job:
    """Health names the oldest transaction that an erasure would wait for.

    Every process looks: one without another loop, as the API, would be healthy with no database behind it.
    """
    oldest = OldestWriter(kit.clock)
    health.facts["oldest_writer"] = oldest.fact

    async def run(kit: Kit) -> None:
        oldest.note(await read_writers(kit.db, service.tables))

    return Job("writers", timedelta(seconds=5), run, is_work=False, needs="postgres")


def _watch_depth(health: Health) -> Job:
    depth = 0

    async def run(kit: Kit) -> None:
        nonlocal depth
        depth = await outboxes.depth(kit.db)

    health.facts["outbox_depth"] = lambda: depth
    return Job("outbox_depth", timedelta(seconds=1), run, is_work=False)


def _export_of(service: Service) -> Job:
    return Job(EXPORT, EXPORT_EVERY, lambda kit: export_next(kit, service.holdings), is_work=False)


def _tend_quarantine(service: Service) -> Job:
    return Job("tend_quarantine", TEND_EVERY, lambda kit: tend(kit, service.readers), is_work=False)


async def _run_job(kit: Kit, job: Job, stopping: asyncio.Event, progress: Progress) -> None:
    """Runs the job every so often, and when it is woken. One that keeps failing gives no sign of life."""
    wake = kit.wakes[job.name]
    while await kit.gate.passed(stopping):
        wake.clear()
        try:
            if job.is_work:
                async with kit.work():
                    await job.run(kit)
            else:
                await job.run(kit)
        except Exception as error:  # noqa: BLE001 - a job may raise anything, and others go on
            # The next run tries again; the metric and the log say that this one failed.
            log.error("job_failed", job=code(job.name), error=error)
            JOB_RUNS.labels(job.name, "failed").inc()
        else:
            JOB_RUNS.labels(job.name, "done").inc()
            progress.beat()
        await pause_until_any((stopping, wake), job.every.total_seconds())


async def _roll_partitions(kit: Kit) -> None:
    async def work(tx: Any) -> None:
        await outboxes.roll_partitions(tx, kit.clock.now().date(), outboxes.KEEP_DAYS)

    await kit.run_tx("roll_partitions", work)


async def _forget_tries(kit: Kit) -> None:
    await forget_tries(kit.db, kit.clock.now())


ROLL_PARTITIONS: Final = Job("roll_partitions", timedelta(hours=1), _roll_partitions)
FORGET_TRIES: Final = Job("forget_tries", timedelta(minutes=5), _forget_tries, is_work=False)
