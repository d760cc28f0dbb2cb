"""Lists of operations on the whole product in one process, in the manner of janus: what people do, what time does, what breaks.

An operation is a name and two numbers, which choose among whatever there is: any list is a valid one, so Hypothesis can
leave out or simplify any part of a list that fails. `Simulation.play` runs a list and checks what must never be otherwise after
each operation; `heal` then repairs all faults, and what was begun has to come to its end.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple
from uuid import UUID

from deploy.local import keys
from event_contracts.carrier import replies_topic, shipments_topic
from event_contracts.topics import CARRIERS, TOPICS
from servicekit.core import faults
from tests.faults.simulation_ground import NAMES, SERVICES, Ground, Killed
from tests.faults.simulation_people import PEOPLE, People, Person
from tests.faults.simulation_systems import Process, Run
from tests.support.carrier import Desk, seal_reply

TICKS: Final = (1.0, 10.0, 61.0, 3_600.0, 86_400.0, 40 * 86_400.0, 4_000 * 86_400.0)
JUMPS: Final = (-3_600.0, -86_400.0, 3_600.0, 400 * 86_400.0)
# Points of what a simulated process does not run (rotation of KEKs, the witness, exports, Kafka for the vault's list).
NEVER_REACHED: Final = (
    "vault.kek_",
    "vault.epoch_",
    "vault.rewrapped",
    "vault.claimed",
    "vault.published",
    "vault.marked",
    "evidence.witnessed",
    "export.",
)
HEALING_ROUNDS: Final = 60
UNDER_WAY: Final = (
    ("unpublished rows", "SELECT count(*) FROM kit.outbox WHERE published_at IS NULL"),
    ("records in quarantine", "SELECT count(*) FROM kit.quarantine WHERE ended_at IS NULL"),
)
SAGAS_UNDER_WAY: Final = "SELECT step::text FROM rights_subjects WHERE step NOT IN ('done', 'held')"
UNSENT: Final = "SELECT shipment_id FROM disclosures WHERE state = 'recorded' OR recall = 'due' OR erasure = 'due'"


class Op(NamedTuple):
    """One operation; `a` and `b` choose what it is done to. Where `CHOICES` has names for it, `a` is one of them."""

    name: str
    a: Any = 0
    b: int = 0


READERS: Final = tuple(f"{name}.{each.reader}" for name, service in SERVICES.items() for each in service.readers)
POINTS: Final = tuple(sorted(point for point in faults.POINTS if not point.startswith(NEVER_REACHED)))
CHOICES: Final[dict[str, tuple[str, ...]]] = {
    **dict.fromkeys(("follow", "relay", "jobs"), tuple(SERVICES)),
    **dict.fromkeys(("crash", "back_up", "restore"), NAMES),
    **dict.fromkeys(("consume", "replay", "rebalance"), READERS),
    "carry": CARRIERS,
    "kill": POINTS,
    "repeat": tuple(topic.name for topic in TOPICS),
}


@dataclass
class Simulation(People):
    """The world of one list of operations."""

    desks: dict[str, Desk] = field(default_factory=dict)
    read: dict[str, list[int]] = field(default_factory=dict)
    replies: list[tuple[str, UUID, str]] = field(default_factory=list)
    stalled: list[tuple[str, Process, Callable[[], Awaitable[Any]]]] = field(default_factory=list)
    restores: Counter[str] = field(default_factory=Counter)
    replays: set[tuple[str, str]] = field(default_factory=set)
    set_back: float = 0.0

    # -- what happens by itself ----------------------------------------------------------------------------------------

    async def tick(self, a: int, b: int) -> None:
        await self.run.tick(TICKS[a % len(TICKS)])

    async def follow(self, a: str, b: int) -> None:
        await self.run.systems[a].alive(Process.follow)

    async def relay(self, a: str, b: int) -> None:
        await self.run.systems[a].alive(Process.publish)

    async def consume(self, a: str, b: int) -> None:
        """One reader takes a batch of 1 to 4 records, or all there are."""
        await self._read(a, limit=b % 5 or 500, shuffle=b)

    async def jobs(self, a: str, b: int) -> None:
        await self.run.systems[a].alive(Process.work)

    async def carry(self, a: str, b: int) -> None:
        """A carrier reads what has come; from an odd `b` on every record a second time."""
        topic, desk = shipments_topic(a), self.desks[a]
        for log, start in zip(self.run.broker.logs[topic], list(self.read[a]), strict=True):
            for record in log[0 if b % 2 else start :]:
                self.replies += [
                    (a, shipment, kind) for shipment, kind in desk.receive(record.value or b"", record.key or b"")
                ]
        self.read[a] = [len(log) for log in self.run.broker.logs[topic]]

    async def reply(self, a: int, b: int) -> None:
        """Carriers answer, `b` of what they have to say, or all."""
        for _ in range(b % 4 or len(self.replies)):
            if self.replies:
                carrier, shipment_id, kind = self.replies.pop(0)
                gateway = (self.run.ground.folder / "keys" / "reply.pub.json").read_text()
                sealed = seal_reply(gateway, carrier, shipment_id, kind, self.run.clock.now())
                self.run.broker.append(replies_topic(carrier), str(shipment_id).encode(), sealed, ())

    async def flow(self, a: int, b: int) -> None:
        """Everybody does what there is to do, 1 to 4 times."""
        for _ in range(1 + a % 4):
            await self.round()

    async def forget(self, a: int, b: int) -> None:
        """Somebody's erasure from its opening to its approval, and until nobody may think again."""
        await self.erase(a, b)
        await self.round()
        await self.round()
        await self.approve(-1, 0)
        await self.run.tick(10)
        await self.round()

    async def round(self) -> int:
        """Every part of every system once. Returns how many records were read and published."""
        moved = 0
        for name in SERVICES:
            system = self.run.systems[name]
            await system.alive(Process.follow)
            for number in range(len((await self._up(name)).readers)):
                moved += await self._read_of(name, number, 500, 0)
            await system.alive(Process.work)
            moved += await system.alive(Process.publish) or 0
        for carrier in CARRIERS:
            await self.carry(carrier, 0)
        moved += len(self.replies)
        await self.reply(0, 0)
        return moved

    # -- what breaks ---------------------------------------------------------------------------------------------------

    async def kill(self, a: str, b: int) -> None:
        """Whoever comes to this fault point next, or the time after, dies there."""
        self.run.arm(a, 1 + b % 2)

    async def crash(self, a: str, b: int) -> None:
        await self.run.systems[a].die(zombies=False)

    async def jump(self, a: int, b: int) -> None:
        """The clock on the wall jumps, for everybody; the one that leases are counted by does not."""
        by = JUMPS[a % len(JUMPS)]
        self.run.clock.jumped += by
        self.set_back += max(0.0, -by)

    async def lose_call(self, a: int, b: int) -> None:
        """The next calls of the vault: a request or a reply is lost, after `a` that are not."""
        self.run.lost_calls.extend([*[""] * (a % 4), ("request", "reply")[b % 2]])

    async def lose_request(self, a: int, b: int) -> None:
        """The same for what people ask of the services."""
        self.run.lost_requests.append(("request", "reply")[b % 2])

    async def lose_produce(self, a: int, b: int) -> None:
        """The same for the broker; a reply may be lost with half of the records written."""
        self.run.broker.losses.extend([*[""] * (a % 4), ("request", "reply", "half")[b % 3]])

    async def repeat(self, a: str, b: int) -> None:
        """A record comes again, behind those that came since."""
        self.run.broker.repeat(a, b)

    async def replay(self, a: str, b: int) -> None:
        """A reader begins every topic anew, as a new group would."""
        name, _, reader = a.partition(".")
        self.replays.add((name, reader))
        await (await self._up(name)).db.fetch("DELETE FROM kit.positions WHERE reader = $1", reader)
        (await self._up(name)).readers[reader].applier = None

    async def rebalance(self, a: str, b: int) -> None:
        """A process stops in the middle of a batch, before or after its transaction; another one takes over."""
        name, _, reader = a.partition(".")
        system = self.run.systems[name]

        async def stall(process: Process) -> None:
            rest = await process.readers[reader].stall(1 + b // 2 % 3, delivers=b % 2 == 1)
            if rest is not None:
                self.stalled.append((name, process, rest))
                system.zombies.append(process)
                system.process = None

        await system.alive(stall)

    async def wake(self, a: int, b: int) -> None:
        """A process that stopped goes on where it was."""
        if not self.stalled:
            return
        name, process, rest = self.stalled.pop(a % len(self.stalled))
        system = self.run.systems[name]
        if process not in system.zombies:
            return
        system.zombies.remove(process)
        # It goes on in the place of the one that serves, and is gone once it has found out.
        try:
            await rest()
        except (Killed, Exception):  # noqa: BLE001 - whatever it says, it ends there
            pass
        finally:
            await process.close()

    async def back_up(self, a: str, b: int) -> None:
        """A copy of one database; its process starts again."""
        await self.run.systems[a].back_up()

    async def restore(self, a: str, b: int) -> None:
        """The copy comes back. The vault's only if it lacks no key: with one it would stay closed until an operator decides."""
        system = self.run.systems[a]
        if system.has_backup and (system.name != "vault" or await system.count("keys") == system.rows_then["keys"]):
            await system.restore()
            self.restores[system.name] += 1

    # -- healing -------------------------------------------------------------------------------------------------------

    async def heal(self) -> None:
        """All faults end, stopped processes die, everybody asks again for what they have no answer to; until nothing moves."""
        faults.arm({})
        for losses in self.run.losses:
            losses.clear()
        for system in self.run.systems.values():
            await system.end_zombies()
        self.stalled.clear()
        for _ in range(HEALING_ROUNDS):
            # A service that has just started opens its gate first.
            await self.round()
            await self.lift(0, 0)
            await self.ask_again()
            if not (self.holds or self.unanswered()):
                break
        assert not self.holds, "a hold cannot be lifted"
        assert not self.unanswered(), f"{self.unanswered()} get no answer"
        # Whatever was to be done at a time that the clock had passed before is due again by then.
        await self.run.tick(self.set_back)
        quiet = 0
        for _ in range(HEALING_ROUNDS):
            moved = await self.round()
            await self.run.tick(10)
            for number in range(len(self.requests)):
                await self.approve(number, 0)
            quiet = 0 if moved else quiet + 1
            if quiet >= 3 and not await self.under_way():
                return
        raise AssertionError(f"it does not come to an end: {await self.under_way()}")

    async def under_way(self) -> list[str]:
        """What has not come to its end: sagas and readers, unpublished rows and what waits in quarantine, by system."""
        found: list[str] = []
        for name in SERVICES:
            process = await self._up(name)
            if not process.kit.gate.is_open:
                found.append(f"{name}: the gate is shut")
            found += [
                f"{name}.{each}: not at the end" for each, reader in process.readers.items() if not reader.is_at_end()
            ]
            for what, sql in UNDER_WAY:
                count = await process.db.fetchval(sql)
                if count:
                    found.append(f"{name}: {count} {what}")
        sagas = await self.run.systems["privacy"].fetch(SAGAS_UNDER_WAY)
        found += [f"privacy: a saga at {row['step']}" for row in sagas]
        if await self.run.systems["logistics-gateway"].fetch(UNSENT):
            found.append("logistics-gateway: disclosures that were not sent")
        return found

    # -- helpers -------------------------------------------------------------------------------------------------------

    async def play(self, ops: Iterable[Op], check: Callable[[Simulation], Awaitable[None]]) -> None:
        """Each operation, then the check, with no fault in its way."""
        for op in ops:
            await getattr(self, op.name)(op.a, op.b)
            with self.run.undisturbed():
                await check(self)

    async def _up(self, name: str) -> Any:
        return await self.run.systems[name].up()

    async def _read(self, which: str, limit: int, shuffle: int) -> None:
        name, _, reader = which.partition(".")
        await self.run.systems[name].alive(lambda process: process.readers[reader].step(limit, shuffle))

    async def _read_of(self, name: str, number: int, limit: int, shuffle: int) -> int:
        async def step(process: Process) -> int:
            return await list(process.readers.values())[number].step(limit, shuffle)

        return await self.run.systems[name].alive(step) or 0


# Nobody registers here: it is as if the inventory had read of each person's account.
KNOWN = """INSERT INTO inventory (subject_id, system, data_class, anchor, first_seen, last_seen)
    SELECT known, 'account', 'pseudonym', known, now(), now() FROM unnest($1::uuid[]) AS known"""


@asynccontextmanager
async def simulation(ground: Ground, seed: int = 0) -> AsyncIterator[Simulation]:
    """A new world: databases, processes, people and carriers. `seed` chooses the ids that people choose."""
    run = Run(ground)
    rng = random.Random(seed)
    people = []
    for _ in range(PEOPLE):
        subject_id = UUID(int=rng.getrandbits(128), version=4)
        token = keys.customer_token(ground.folder / "keys", subject_id)
        people.append(Person(subject_id, {"Authorization": f"Bearer {token}"}))
    desks = {
        name: Desk(keys.carrier_key_file(ground.folder / "keys", name).read_text(), now=run.clock.now)
        for name in CARRIERS
    }
    read = {name: [0] * len(run.broker.logs[shipments_topic(name)]) for name in CARRIERS}
    world = Simulation(run, rng, people, desks=desks, read=read)
    try:
        await run.open()
        for name in SERVICES:
            await (await world._up(name)).follow()
        await run.systems["privacy"].fetch(KNOWN, [person.subject_id for person in people])
        yield world
    finally:
        await run.close()


def ops_of(listed: Sequence[tuple[Any, ...]]) -> list[Op]:
    return [Op(*each) for each in listed]
