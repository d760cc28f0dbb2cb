"""The ids of events: nobody can guess one, and what happens at one time lies together."""

from datetime import UTC, datetime, timedelta
from uuid import RFC_4122

from servicekit.kafka.cloudevents import event_ids

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)


def test_ids_of_events_are_random_and_in_the_order_of_time() -> None:
    first, later = event_ids(NOON, 1_000), event_ids(NOON + timedelta(milliseconds=1), 1_000)
    assert {(each.version, each.variant) for each in first + later} == {(7, RFC_4122)}
    assert max(first) < min(later)
    assert {each.int >> 80 for each in first} == {int(NOON.timestamp() * 1000)}
    # Each of the 74 random bits is one in some and zero in others.
    ones, zeros = 0, 0
    for each in first:
        ones, zeros = ones | each.int, zeros | ~each.int
    free = ones & zeros & ((1 << 80) - 1)
    assert free.bit_count() == 74
    assert len(set(first + later)) == 2_000
