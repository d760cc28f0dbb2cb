"""The operator's command `quarantine list | show | replay | discard`. It prints places, codes, ids and times, never content."""

from __future__ import annotations

import argparse
import getpass
import re
from collections.abc import Sequence
from typing import Final, NoReturn
from uuid import UUID

from servicekit.core.errors import Invalid, NotFound, Poison
from servicekit.kafka import quarantine
from servicekit.kafka.batches import Consumes
from servicekit.kafka.cloudevents import RawRecord, read_envelope, types_of
from servicekit.kafka.quarantine import Waiting, find_waiting, heads, load_waiting, open_waiting
from servicekit.kafka.replay import discard, replay, replay_aggregate, replay_alone
from servicekit.kit import Kit

COMMAND: Final = "quarantine"
_WORD, _NAME = re.compile(r"[a-z][a-z_]{1,39}"), re.compile(r"[a-z][a-z0-9._-]{1,31}")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        # Its own message repeats what was typed.
        self.print_usage()
        raise SystemExit(2)


def parse(service: str, given: Sequence[str]) -> argparse.Namespace:
    """What follows the word `quarantine`. Prints the usage and exits 2 on a wrong call."""
    parser = _Parser(prog=f"{service} {COMMAND}", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    listing = actions.add_parser("list", help="what waits: number, reason, since when, place")
    listing.add_argument("--reader", help="of one reader only")
    actions.add_parser("show", help="one record: ids, times and sizes").add_argument("number", type=int)
    replaying = actions.add_parser("replay", help="tries again: one record and those behind it, or all")
    replaying.add_argument("number", type=int, nargs="?")
    discarding = actions.add_parser("discard", help="puts a record away for good, or all of a reader with one reason")
    discarding.add_argument("number", type=int, nargs="?")
    discarding.add_argument("--reader")
    discarding.add_argument("--cause", help="the reason for which the records wait")
    discarding.add_argument("--reason", required=True, help="why they are put away: one word, such as sent_again")
    for each in (replaying, discarding):
        each.add_argument("--by", help="your account name; without it that of the shell")
    call = parser.parse_args(list(given))
    if call.action == "discard" and (call.number is None) == (call.reader is None or call.cause is None):
        parser.error("")
    return call


async def run(kit: Kit, readers: Sequence[Consumes], call: argparse.Namespace) -> None:
    """Carries the call out. Raises `NotFound`, `Invalid`."""
    by_name = {each.reader: each for each in readers}
    match call.action:
        case "list":
            for consumes in readers:
                if call.reader in (None, consumes.reader):
                    await _list(kit, consumes)
        case "show":
            await _show(kit, by_name, await _find(kit, call.number))
        case "replay":
            await _replay(kit, by_name, call)
        case "discard":
            await _discard(kit, call)


async def _list(kit: Kit, consumes: Consumes) -> None:
    after = 0
    while page := await load_waiting(kit.db, consumes.reader, after=after):
        for line in page:
            since = line.arrived_at.isoformat(timespec="seconds")
            print(f"{line.number:>8}  {line.reason:<24}  {since}  {line.reader}  {line.place}")
        after = page[-1].number


async def _show(kit: Kit, by_name: dict[str, Consumes], line: Waiting) -> None:
    consumes = by_name.get(line.reader)
    (record,) = await open_waiting(kit, [line])
    behind = 0
    if line.blocks and line.aggregate is not None:
        of_it = await load_waiting(
            kit.db, line.reader, after=line.number, limit=1_000, aggregate=(line.topic, line.aggregate)
        )
        behind = len(of_it)
    facts: dict[str, object] = {
        "number": line.number,
        "reader": line.reader,
        "place": line.place,
        "reason": line.reason,
        "since": line.arrived_at.isoformat(timespec="seconds"),
        "aggregate": line.aggregate or "none",
        "waiting_behind": behind,
        **_facts(record, consumes),
    }
    for name, value in facts.items():
        print(f"{name:<15} {value}")


def _facts(record: RawRecord | None, consumes: Consumes | None) -> dict[str, object]:
    """What may be shown of a record: sizes, and of its envelope the id, the time and a type that the reader knows."""
    if record is None:
        return {"content": "gone"}
    sizes: dict[str, object] = {"value_bytes": len(record.value or b""), "headers": len(record.headers)}
    try:
        envelope = read_envelope(record)
    except Poison as poison:
        return {**sizes, "envelope": poison.reason}
    known = consumes is not None and envelope.type in types_of(consumes.types)
    event: dict[str, object] = {"event_id": envelope.id, "event_time": envelope.time.isoformat(timespec="seconds")}
    return {**sizes, **event, "type": envelope.type if known else "unknown"}


async def _replay(kit: Kit, by_name: dict[str, Consumes], call: argparse.Namespace) -> None:
    by = _operator(call.by)
    if call.number is None:
        done, left = await replay(kit, list(by_name.values()), by)
        print(f"{done} replayed, {left} still wait")
        return
    line = await _find(kit, call.number)
    consumes = by_name.get(line.reader)
    if consumes is None:
        raise NotFound("No reader of this service has this record. It is from an older version: discard it.")
    if line.blocks and line.aggregate is not None:
        aggregate = (line.topic, line.aggregate)
        await _check_is_first(kit, line, aggregate)
        done = await replay_aggregate(kit, consumes, aggregate, by)
    else:
        done = int(await replay_alone(kit, consumes, line, by))
    print(f"{done} replayed" if done else "0 replayed: it fails again, see the log")


async def _check_is_first(kit: Kit, line: Waiting, aggregate: tuple[str, UUID]) -> None:
    first = [n for n, reader, each in await heads(kit.db, released=False) if (reader, each) == (line.reader, aggregate)]
    if first and first[0] != line.number:
        raise Invalid(f"Record {first[0]} of the same aggregate waits before it. Replay or discard that one first.")


async def _discard(kit: Kit, call: argparse.Namespace) -> None:
    if _WORD.fullmatch(call.reason) is None:
        raise Invalid("The reason is one word of small letters and underscores, such as sent_again.")
    by = _operator(call.by)
    if call.number is not None:
        reader, numbers = (await _find(kit, call.number)).reader, [call.number]
    else:
        reader, numbers = call.reader, await quarantine.numbers_because(kit.db, call.reader, call.cause)
    count = await discard(kit, reader, numbers, by, call.reason) if numbers else 0
    print(f"{count} discarded")


async def _find(kit: Kit, number: int) -> Waiting:
    line = await find_waiting(kit.db, number)
    if line is None:
        raise NotFound("No record of this number waits. `quarantine list` shows those that do.")
    return line


def _operator(given: str | None) -> str:
    name = (given or getpass.getuser()).lower()
    if _NAME.fullmatch(name) is None:
        raise Invalid("The evidence log takes an account name of small letters, digits, `.`, `_` and `-`: give --by.")
    return name
