"""The keys that a process holds on lease."""

from collections.abc import Iterable
from typing import Any
from uuid import uuid4

import pytest

from servicekit.core.clock import FakeClock
from servicekit.vault.leases import KeyName, Lease, Leases, _Recent
from servicekit.vault.token import SealingKey


def test_only_what_is_dropped_is_searched_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each turn of a reader drops what was revoked, which is nearly always nothing: both full caches were searched."""
    leases, searched = Leases(FakeClock(), 10), list[object]()
    key, name = SealingKey.derive(uuid4(), bytes(32)), KeyName(uuid4(), "delivery", uuid4())
    leases.put_ensured(Lease(key, name, float("inf")))
    items: Any = _Recent.items

    def search(recent: Any) -> Iterable[Any]:
        searched.append(recent)
        return items(recent)  # type: ignore[no-any-return]

    monkeypatch.setattr(_Recent, "items", search)
    leases.drop([])
    assert (searched, leases.ensured(name)) == ([], key)
    leases.drop([key.key_id])
    assert (len(searched), leases.ensured(name)) == (2, None)
