"""Events are handed out by type in groups as large as may be, and each aggregate's stay in their order (law L4)."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from event_contracts import Event
from servicekit.kafka.batches import in_order
from servicekit.kafka.cloudevents import Received


class Counted(Event, topic="counted.events", key="counter_id"):
    counter_id: UUID


class Reset(Event, topic="counted.events", key="counter_id"):
    counter_id: UUID


def received(offset: int, key: int, contract: type[Any]) -> Received[Any]:
    event = contract(counter_id=UUID(int=key))
    return Received(event, UUID(int=offset), datetime(2026, 1, 1, tzinfo=UTC), "test", "counted.events", 0, offset)


@given(st.lists(st.tuples(st.integers(1, 3), st.sampled_from([Counted, Reset])), max_size=20))
def test_events_of_one_aggregate_stay_in_order_across_types(drawn: list[tuple[int, type[Any]]]) -> None:
    events = [received(offset, key, contract) for offset, (key, contract) in enumerate(drawn)]
    groups = in_order(events)
    handed = [event for _, group in groups for event in group]
    for key in {event.event.partition_key for event in events}:
        mine = [event.offset for event in handed if event.event.partition_key == key]
        assert mine == [event.offset for event in events if event.event.partition_key == key]
    assert all(type(event.event) is contract for contract, group in groups for event in group)


def test_events_of_many_aggregates_share_their_groups() -> None:
    events = [received(2 * key, key, Counted) for key in range(10)] + [received(99, 1, Reset)]
    assert [len(group) for _, group in in_order(events)] == [10, 1]
