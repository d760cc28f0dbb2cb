"""When an epoch has to end, and from when on nobody can open what was destroyed in it. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final, Literal

EpochState = Literal["active", "closed", "empty", "destroyed"]
# The states in which an epoch's KEK is needed.
IN_USE: Final = ("active", "closed")
_LONGEST_LEAD: Final = timedelta(days=1)
_LEAD_SHARE: Final = 10


@dataclass(frozen=True, slots=True)
class Epoch:
    """An epoch's row."""

    number: int
    state: EpochState
    handle: bytes
    probe: bytes
    opened_at: datetime
    closed_at: datetime | None
    emptied_at: datetime | None
    destroyed_at: datetime | None


def planned_end(opened_at: datetime, life: timedelta) -> datetime:
    """By when the epoch is emptied and its KEK destroyed, or handed to the provider for deletion."""
    return opened_at + life


def is_due(opened_at: datetime, life: timedelta, now: datetime) -> bool:
    """Whether the next epoch is to be opened: a tenth of a life before the end, a day at most, for the re-wrapping."""
    return now >= planned_end(opened_at, life) - min(_LONGEST_LEAD, life / _LEAD_SHARE)


def horizon_of(
    opened_at: datetime, life: timedelta, deletion_delay: timedelta, copies: timedelta, now: datetime
) -> date:
    """The day (UTC) from whose beginning on no copy of the vault's database opens what is destroyed in it at `now`.

    `opened_at` is the active epoch's: what earlier epochs wrapped can be opened no longer than what this one wraps.
    A late end counts from `now`, so that the day is never one that is past.
    """
    end = max(planned_end(opened_at, life), now) + deletion_delay + copies
    return (end + timedelta(days=1)).date()


def describe_lost(lost: Iterable[tuple[int, str, int]]) -> str:
    """(epoch, class, keys) each, as the operator reads it."""
    by_epoch: dict[int, list[str]] = {}
    for epoch, data_class, count in sorted(lost):
        by_epoch.setdefault(epoch, []).append(f"{data_class} {count}")
    return "; ".join(f"epoch {epoch}: {', '.join(classes)}" for epoch, classes in by_epoch.items())
