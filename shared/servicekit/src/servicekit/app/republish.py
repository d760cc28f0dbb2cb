"""Feeding a Kafka that came back from an older copy (`deploy/runbooks/restore.md`). No role may run meanwhile."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Final, TypeAlias

from servicekit.core.errors import Invalid, Unavailable
from servicekit.core.logs import get_log
from servicekit.db.inbox import REMEMBERED, known_places, set_back
from servicekit.db.outbox import unmark
from servicekit.db.postgres import Tx
from servicekit.kafka.client import Producer, ends_of
from servicekit.kit import Kit

log = get_log("republish")
REPUBLISH: Final = "republish --since 2026-01-31T12:00:00Z"
SayAgain: TypeAlias = Callable[[Tx, datetime], Awaitable[int]]


async def republish(kit: Kit, since: datetime, say_again: SayAgain | None = None) -> tuple[int, int]:
    """This service's readers go back to where Kafka ends now; what it published since is published again by its relay.

    `say_again` does the same for what a service sends past its outbox. Returns how many positions went back, and how many
    records come again. Raises `Unavailable` without Kafka, `Invalid` for a time before what inboxes remember. Harmless when
    repeated: records that come twice have one effect.
    """
    if since < kit.clock.now() - REMEMBERED:
        raise Invalid(
            f"What is older than {REMEMBERED.days} days is not published again: inboxes have forgotten it, and effects would "
            "come twice. Give a later time. What Kafka lost before that must be made good by hand."
        )
    try:
        ends = await ends_of(kit.settings, await known_places(kit.db))
    except Producer.ERRORS:
        raise Unavailable("Kafka does not say where its topics end. Start it first, then do this again.") from None
    moved = await kit.run_tx("set_back", lambda tx: set_back(tx, ends))
    again = await unmark(kit.db, since, (kit.clock.now() - REMEMBERED).date())
    if say_again is not None:
        again += await kit.run_tx("say_again", lambda tx: say_again(tx, since))
    log.info("republished", positions=moved, records=again)
    return moved, again


def since_of(given: Sequence[str]) -> datetime | None:
    """The time in the call `republish --since <time>`; None of any other call, or where the time names no zone."""
    if len(given) != 3 or tuple(given[:2]) != ("republish", "--since"):
        return None
    try:
        since = datetime.fromisoformat(given[2])
    except ValueError:
        return None
    return since if since.tzinfo is not None else None
