"""Moments that somebody states: bounded where they enter, and again where they are read back.

Postgres stores years that Python cannot add to, and asyncpg turns the ends of Python's range into infinity without a zone.
"""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

from pydantic import AfterValidator, ValidationError
from pydantic_core import PydanticCustomError

EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(2199, 12, 31, tzinfo=UTC)
# How far the clock of somebody else may be ahead of ours.
CLOCK_SKEW: Final = timedelta(minutes=5)
# The code of an error, and the reason of a quarantined record, whose stated time cannot be right.
IMPLAUSIBLE: Final = "implausible_time"


def is_bounded(moment: datetime) -> bool:
    """Whether it has a zone and lies within what we store."""
    return moment.tzinfo is not None and EARLIEST <= moment <= LATEST


def bounded(moment: datetime) -> datetime:
    """The moment in UTC, or the nearest one that we store: for what is read back from a database. Naive means infinity."""
    if moment.tzinfo is None:
        return LATEST if moment.year > EARLIEST.year else EARLIEST
    return moment.astimezone(UTC) if is_bounded(moment) else LATEST if moment > LATEST else EARLIEST


def later(moment: datetime, span: timedelta) -> datetime:
    """Their sum; it stops at the bounds."""
    moment = bounded(moment)
    if span > LATEST - moment:
        return LATEST
    return EARLIEST if span < EARLIEST - moment else moment + span


def is_plausible(moment: datetime, *, since: datetime, now: datetime) -> bool:
    """Whether somebody can know of a moment that lies not before `since`; their clock may differ a little from ours."""
    return is_bounded(moment) and since - CLOCK_SKEW <= moment <= now + CLOCK_SKEW


def is_implausible(error: ValidationError) -> bool:
    """Whether nothing but its times is wrong with what was read."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return all(each["type"] == IMPLAUSIBLE for each in found)


def _check(moment: datetime) -> datetime:
    if not is_bounded(moment):
        raise PydanticCustomError(IMPLAUSIBLE, "The time has no zone, or lies before 2000 or after 2199.")
    return moment.astimezone(UTC)


Moment = Annotated[datetime, AfterValidator(_check)]
