"""Leases from before an entry run out, however often their holder asks for others (docs/protocols.md#the-list-of-revocations)."""

from vault_service.lease_audit import Ages

LEASE = 60.0


def test_leases_from_before_an_entry_are_over_one_lease_after_it_was_seen() -> None:
    ages = Ages()
    ages.see(7, 1000.0, LEASE)
    assert (ages.over(1059.9, LEASE), ages.left(7, 1059.0, LEASE)) == (0, 1.0)
    assert (ages.over(1060.0, LEASE), ages.left(7, 1060.0, LEASE)) == (7, 0.0)


def test_an_entry_that_was_not_seen_has_a_whole_lease_before_it() -> None:
    ages = Ages()
    ages.see(7, 1000.0, LEASE)
    assert ages.left(8, 1500.0, LEASE) == LEASE
    ages.see(9, 1500.0, LEASE)
    assert (ages.over(1559.0, LEASE), ages.left(8, 1520.0, LEASE)) == (7, 40.0)


def test_later_entries_do_not_put_off_earlier_ones() -> None:
    """New erasures come all the time: what is asked about each time is the newest entry."""
    ages = Ages()
    for second in range(200):
        ages.see(second, 1000.0 + second, LEASE)
        assert ages.over(1000.0 + second, LEASE) == max(0, second - 60)
    assert len(ages._seen) <= LEASE + 1


def test_a_head_that_is_seen_a_moment_after_another_one_does_not_run_out_with_it() -> None:
    ages = Ages()
    ages.see(7, 1000.0, LEASE)
    ages.see(8, 1000.01, LEASE)
    assert ages.over(1060.0, LEASE) == 7
    ages.see(6, 1001.0, LEASE)
    assert ages.over(1060.0, LEASE) == 7
