"""What events say about who holds what: merged in any order, it comes out the same."""

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from privacy_service.app import OWN_EVENT_TOPICS, service_under
from privacy_service.inventory.domain import Fact, Receipt, event_topics, merge_facts, merge_receipts
from servicekit.core.policy import Policy

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "shared" / "policy" / "policy.yaml"
REVIEWS = ROOT / "tests" / "support" / "reviews" / "policy.yaml"

_IDS = st.integers(1, 3).map(lambda number: UUID(int=number))
_TIMES = st.integers(0, 5).map(lambda hour: datetime(2026, 11, 1, tzinfo=UTC) + timedelta(hours=hour))


@st.composite
def facts(draw: st.DrawFn) -> Fact:
    time = draw(_TIMES)
    key = draw(st.none() | _IDS)
    return Fact(draw(_IDS), draw(st.sampled_from(["order", "account"])), "contact", draw(_IDS), key, time, time)


@st.composite
def receipts(draw: st.DrawFn) -> Receipt:
    time, fields = draw(_TIMES), draw(st.frozensets(st.sampled_from("abc")))
    return Receipt(draw(_IDS), UUID(int=1), "delivery", "meridian", "lane", draw(st.integers(1, 2)), fields, time, time)


@given(st.lists(facts(), max_size=12), st.randoms(use_true_random=False))
def test_facts_come_out_the_same_in_any_order_and_grouping(found: list[Fact], chance: random.Random) -> None:
    shuffled = [*found, *found]
    chance.shuffle(shuffled)
    middle = chance.randint(0, len(shuffled))
    in_two = merge_facts([*merge_facts(shuffled[:middle]), *merge_facts(shuffled[middle:])])
    assert in_two == merge_facts(found)
    assert len({fact.name for fact in in_two}) == len(in_two)


@given(st.lists(receipts(), max_size=12), st.randoms(use_true_random=False))
def test_receipts_come_out_the_same_in_any_order(found: list[Receipt], chance: random.Random) -> None:
    shuffled = [*found, *found]
    chance.shuffle(shuffled)
    assert merge_receipts(shuffled) == merge_receipts(found)


def test_a_fact_spans_first_and_last_sight_and_names_the_last_key() -> None:
    early, late = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)
    one, two = UUID(int=1), UUID(int=2)
    (fact,) = merge_facts(
        [
            Fact(one, "order", "delivery", one, two, late, late),
            Fact(one, "order", "delivery", one, one, early, early),
        ]
    )
    assert fact == Fact(one, "order", "delivery", one, two, early, late)


def test_the_inventory_reads_every_event_topic_of_the_policy_and_no_other() -> None:
    assert event_topics(Policy.load([BASE])) == OWN_EVENT_TOPICS
    with_reviews = Policy.load([BASE, REVIEWS])
    assert event_topics(with_reviews) == tuple(sorted((*OWN_EVENT_TOPICS, "review.events")))
    own, others, _ = service_under(with_reviews).consumes
    assert (own.topics, others.topics) == (OWN_EVENT_TOPICS, ("review.events",))
    assert (own.types, others.types) == ((), ())
    # No record of our own services is dropped, and no third party stops anybody.
    assert (own.outside, others.outside) == (False, True)
