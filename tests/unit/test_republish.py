"""Since when to publish again, and for how long that can be done."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from servicekit.app.republish import republish, since_of
from servicekit.app.service import ROLES, Service, _parts
from servicekit.core.clock import FakeClock
from servicekit.core.errors import Invalid
from servicekit.core.health import Health
from servicekit.db.outbox import KEEP_DAYS
from servicekit.kit import Kit


@pytest.mark.parametrize("text", ["", "yesterday", "2026-11-28", "2026-11-28T10:00:00"])
def test_a_time_without_a_zone_is_no_time_to_publish_since(text: str) -> None:
    assert since_of(["republish", "--since", text]) is None
    assert since_of(["republish", "--since", "2026-11-28T10:00:00Z"]) is not None


def a_kit() -> Kit:
    unused: Any = None
    return Kit("test", unused, FakeClock(), unused, unused, unused)


async def test_what_inboxes_have_forgotten_is_not_published_again() -> None:
    """Its effects would come twice."""
    kit = a_kit()
    with pytest.raises(Invalid, match="inboxes have forgotten it"):
        await republish(kit, kit.clock.now() - timedelta(days=KEEP_DAYS))


@pytest.mark.parametrize("role", ROLES)
async def test_every_role_rolls_the_partitions(role: str) -> None:
    """A system without the role `jobs` had none left after a week."""
    kit = a_kit()
    health = Health("test", role, "1", kit.clock)
    parts = _parts(Service("test", Path()), kit, (role,), health, asyncio.Event())
    for _, run in parts:
        run.close()
    assert "roll_partitions" in [name for name, _ in parts]
