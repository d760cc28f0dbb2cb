"""The vault's pure rules: generations, what a key is bound to, quotas."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from servicekit.core.errors import TooMany
from servicekit.vault.leases import KeyName
from vault_service.domain import StoredKey, Tally, bound, standing

NAME = KeyName(uuid4(), "delivery", uuid4())
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
QUOTAS = {"delivery": 10, "payment": 10}


def active(generation: int) -> StoredKey:
    return StoredKey(uuid4(), NAME, generation, 1, b"wrapped")


def test_a_name_that_never_had_a_key_gets_the_first_generation() -> None:
    found = standing(NAME, 0, None, is_fenced=False, fence=0)
    assert (found.key, found.next_generation) == (None, 1)


def test_an_active_key_is_used() -> None:
    key = active(3)
    assert standing(NAME, 3, key, is_fenced=False, fence=2).key is key


def test_a_key_behind_its_class_fence_is_not_used_even_while_it_is_active() -> None:
    found = standing(NAME, 2, active(2), is_fenced=False, fence=2)
    assert (found.key, found.next_generation) == (None, 3)


def test_a_destroyed_generation_is_never_made_again() -> None:
    assert standing(NAME, 4, None, is_fenced=False, fence=0).next_generation == 5
    assert standing(NAME, 4, None, is_fenced=False, fence=9).next_generation == 10


def test_whatever_a_key_is_bound_to_makes_a_difference() -> None:
    key_id, other = uuid4(), uuid4()
    all_bound = {
        bound(key_id, NAME, 1, 1),
        bound(other, NAME, 1, 1),
        bound(key_id, NAME._replace(subject=other), 1, 1),
        bound(key_id, NAME._replace(data_class="payment"), 1, 1),
        bound(key_id, NAME._replace(anchor=other), 1, 1),
        bound(key_id, NAME, 2, 1),
        bound(key_id, NAME, 1, 2),
    }
    assert len(all_bound) == 7


def test_a_quota_holds_per_service_class_and_action_and_begins_anew_with_the_minute() -> None:
    tally = Tally()
    tally.take("order", "leased", ["delivery"] * 10, QUOTAS, NOON)
    with pytest.raises(TooMany) as refused:
        tally.take("order", "leased", ["delivery"], QUOTAS, NOON + timedelta(seconds=20))
    assert refused.value.retry_after == 40
    tally.take("order", "ensured", ["delivery"] * 10, QUOTAS, NOON)
    tally.take("order", "leased", ["payment"] * 10, QUOTAS, NOON)
    tally.take("account", "leased", ["delivery"] * 10, QUOTAS, NOON)
    tally.take("order", "leased", ["delivery"] * 10, QUOTAS, NOON + timedelta(seconds=60))


def test_a_batch_over_the_quota_counts_nothing() -> None:
    tally = Tally()
    with pytest.raises(TooMany):
        tally.take("order", "leased", ["payment"] * 5 + ["delivery"] * 11, QUOTAS, NOON)
    assert not tally.drain()


def test_counts_that_could_not_be_stored_are_added_to_the_next() -> None:
    tally = Tally()
    tally.take("order", "leased", ["delivery"] * 2, QUOTAS, NOON)
    lost = tally.drain()
    tally.take("order", "leased", ["delivery"], QUOTAS, NOON)
    tally.give_back(lost)
    assert tally.drain() == {("order", "delivery", NOON.date(), "leased"): 3}
    assert not tally.drain()
