"""What a process counts for itself before it asks the database."""

import pytest

from servicekit.core.clock import FakeClock
from servicekit.core.errors import TooMany
from servicekit.http.limits import Strangers

SECRET = "jane.canary@example.org"


def test_a_stranger_may_try_again_after_a_while() -> None:
    clock = FakeClock()
    limit = Strangers(clock, per_minute=6, burst=3, size=2)
    for _ in range(3):
        limit.take(SECRET)
    with pytest.raises(TooMany) as refused:
        limit.take(SECRET)
    assert 9 < refused.value.retry_after <= 10
    limit.take("somebody else")
    clock.tick(10)
    limit.take(SECRET)
    with pytest.raises(TooMany):
        limit.take(SECRET)
