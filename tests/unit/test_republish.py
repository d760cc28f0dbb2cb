"""Since when to publish again."""

import pytest

from servicekit.republish import since_of


@pytest.mark.parametrize("text", ["", "yesterday", "2026-11-28", "2026-11-28T10:00:00"])
def test_a_time_without_a_zone_is_no_time_to_publish_since(text: str) -> None:
    assert since_of(["republish", "--since", text]) is None
    assert since_of(["republish", "--since", "2026-11-28T10:00:00Z"]) is not None
