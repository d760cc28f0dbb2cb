"""Ids of transactions in progress: 32 bits are told, 64 are compared (docs/protocols.md#fence-wait-out-sweep)."""

import pytest

from servicekit.db.writers import Writer, Writers, full_xid

ROUND = 1 << 32


@pytest.mark.parametrize(
    ("xid", "near", "full"),
    [
        (7, 9, 7),
        (12, 9, 12),
        (ROUND - 1, 5 * ROUND + 3, 5 * ROUND - 1),
        (3, 5 * ROUND - 2, 5 * ROUND + 3),
        (100, 5 * ROUND + 200, 5 * ROUND + 100),
    ],
    ids=["before", "after", "before_the_wrap", "after_the_wrap", "in_a_later_round"],
)
def test_an_id_is_completed_from_one_that_is_near(xid: int, near: int, full: int) -> None:
    assert full_xid(xid, near) == full


def test_the_horizon_is_the_oldest_writer_and_without_one_the_next_id() -> None:
    old, young = (Writer(1, "order", "order", xid) for xid in (ROUND - 1, ROUND + 2))
    assert Writers(ROUND + 5, (old, young)).horizon == ROUND - 1
    assert Writers(ROUND + 5, ()).horizon == ROUND + 5
    # What began after the snapshot was taken does not move the horizon beyond it.
    assert Writers(ROUND + 1, (young,)).horizon == ROUND + 1
