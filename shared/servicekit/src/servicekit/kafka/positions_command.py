"""The operator's command `positions list | skip | reset`: a partition that a reader may not go on in, and what to do with it.

A reader stops in a partition where Kafka deleted records before they were read (`records_gone`), where another record
stands than the one that it read last (`records_rewritten`), or which ends before its position (`positions_set_back`). Nobody
but an operator knows what was lost, and each decision is on record in `kit.position_decisions` and in the evidence log.
"""

from __future__ import annotations

import argparse
import getpass
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NoReturn
from uuid import uuid4

from event_contracts.privacy import PositionAction, PositionDecided
from servicekit.core.errors import Invalid, NotFound, Unavailable
from servicekit.core.logs import code, get_log
from servicekit.db.inbox import REMEMBERED, Decision, Place, Position, decide, known_places, load_places
from servicekit.db.postgres import Tx
from servicekit.kafka.batches import Consumes
from servicekit.kafka.client import Producer
from servicekit.kafka.places import Look, Standing, judge, look, offsets_since
from servicekit.kafka.record_hash import hash_key
from servicekit.kit import Kit

log = get_log("positions")
COMMAND: Final = "positions"
NO_KAFKA: Final = "Kafka does not say what its topics have. Start it first, then do this again."
_WORD, _NAME = re.compile(r"[a-z][a-z_]{1,39}"), re.compile(r"[a-z][a-z0-9._-]{1,31}")


@dataclass(frozen=True, slots=True)
class Line:
    """One partition of one reader, as the database and Kafka have it."""

    reader: str
    place: Place
    position: Position
    look: Look
    standing: Standing


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        # Its own message repeats what was typed.
        self.print_usage()
        raise SystemExit(2)


def parse(service: str, given: Sequence[str]) -> argparse.Namespace:
    """What follows the word `positions`. Prints the usage and exits 2 on a wrong call."""
    parser = _Parser(prog=f"{service} {COMMAND}", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("list", help="each reader's position in each partition, and what Kafka has there")
    for name, what in (("skip", "goes on with the next record that Kafka has"), ("reset", "reads all that Kafka has")):
        each = actions.add_parser(name, help=f"a stopped reader {what}")
        each.add_argument("--reader", required=True)
        each.add_argument("--topic", required=True)
        each.add_argument("--reason", required=True, help="one word, such as replies_sent_again")
        each.add_argument("--by", help="your account name; without it that of the shell")
    return parser.parse_args(list(given))


async def run(kit: Kit, readers: Sequence[Consumes], call: argparse.Namespace) -> None:
    """Carries the call out. Raises `NotFound`, `Invalid`, and `Unavailable` without Kafka."""
    names = [consumes.reader for consumes in readers]
    if call.action == "list":
        for line in await look_at_all(kit, names):
            state = f"{line.position.next:>10}  {line.look.begin:>10}  {line.look.end:>10}  {line.standing.value}"
            print(f"{line.reader:<16} {line.place[0]}/{line.place[1]:<4} {state}")
        return
    reader = next((consumes for consumes in readers if consumes.reader == call.reader), None)
    if reader is None:
        raise NotFound("No reader of this service has this name. `positions list` shows them.")
    moved = await resolve(kit, reader, call.topic, call.action, call.reason, call.by)
    print(f"{moved} partitions go on")


async def look_at_all(kit: Kit, readers: Sequence[str]) -> list[Line]:
    """Every position of these readers. Raises `Unavailable` without Kafka."""
    lines: list[Line] = []
    key = hash_key(kit.settings)
    for reader in readers:
        stored = await load_places(kit.db, reader, await known_places(kit.db, reader))
        try:
            looks = await look(kit.settings, stored)
        except Producer.ERRORS:
            raise Unavailable(NO_KAFKA) from None
        lines += [Line(reader, p, at, looks[p], judge(at, looks[p], key)) for p, at in sorted(stored.items())]
    return lines


async def resolve(kit: Kit, consumes: Consumes, topic: str, action: str, reason: str, by: str | None = None) -> int:
    """Has the stopped partitions of the topic go on: `skip` or `reset`. Returns how many. The reader sees it by itself.

    Raises `Invalid` for a reason or an account that is no word, and for a `reset` behind what the reader's inbox remembers;
    `NotFound` where nothing is stopped.
    """
    reader = consumes.reader
    operator = (by or getpass.getuser()).lower()
    if _WORD.fullmatch(reason) is None or _NAME.fullmatch(operator) is None:
        raise Invalid(
            "The reason is one word of small letters and `_`; the account (--by) one of small letters and digits."
        )
    lines = [line for line in await look_at_all(kit, [reader]) if line.place[0] == topic and line.standing.stops]
    if not lines:
        raise NotFound("This reader is stopped in no partition of this topic. `positions list` shows where it is.")
    if action == "reset" and consumes.inbox:
        await _refuse_forgotten(kit, lines)
    decisions = [Decision(line.place, line.position.next, _onto(line, action), line.look.topic_id) for line in lines]

    async def work(tx: Tx) -> None:
        await decide(tx, reader, decisions, action, reason, operator, kit.clock.now())
        if kit.record_decision is not None:
            for decision in decisions:
                await kit.record_decision(kit, tx, _decided(kit, reader, decision, action, reason, operator))

    await kit.run_tx("decide", work)
    for line, decision in zip(lines, decisions, strict=True):
        where = {"partition": line.place[1], "since": decision.since, "onto": decision.onto}
        log.warning("position_decided", reader=code(reader), topic=code(topic), action=code(action), **where)
    return len(lines)


async def _refuse_forgotten(kit: Kit, lines: Sequence[Line]) -> None:
    try:
        remembered = await offsets_since(kit.settings, [line.place for line in lines], kit.clock.now() - REMEMBERED)
    except Producer.ERRORS:
        raise Unavailable(NO_KAFKA) from None
    if any(line.look.begin < remembered[line.place] for line in lines):
        raise Invalid(
            f"The topic has records of more than {REMEMBERED.days} days ago. The inbox of this reader has forgotten them, so "
            "they would take a second effect. Use `skip`, and have their sender publish again what was lost."
        )


def _decided(kit: Kit, reader: str, decision: Decision, action: str, reason: str, operator: str) -> PositionDecided:
    return PositionDecided(
        decision_id=uuid4(),
        system=kit.name,
        reader=reader,
        at_topic=decision.place[0],
        partition=decision.place[1],
        action=PositionAction(action),
        since=decision.since,
        onto=decision.onto,
        reason=reason,
        operator=operator,
    )


def _onto(line: Line, action: str) -> int:
    if action == "reset" or line.standing is Standing.GONE:
        return line.look.begin
    return min(line.position.next, line.look.end)
