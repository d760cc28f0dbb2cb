"""Keys by age, from the vault as its own process on a real PostgreSQL."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from deploy.local.services import ServiceProcess
from privacy_service.rights.retention import vault_keys
from servicekit.errors import Forbidden, Invalid
from tests.support.infra import postgres_server
from tests.support.vaults import World, module_world, names, vault, world

__all__ = ["module_world", "postgres_server", "vault", "world"]


async def test_living_keys_are_listed_by_age_and_page(
    world: World, vault: ServiceProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vault_keys, "KEYS_A_PAGE", 2)
    wanted = [*names("delivery", 3), *names("payment", 2)]
    made = await world.client(vault, "order").ensure(wanted)
    dead = (await world.client(vault, "order").ensure(names("delivery")))[0]
    await world.sql("UPDATE keys SET state = 'destroyed', wrapped = NULL WHERE key_id = $1", dead.key_id)
    kit: Any = SimpleNamespace(vault=world.client(vault, "privacy"))
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    found: list[vault_keys.AgedKey] = []
    place = None
    while page := await vault_keys.read_aged(kit, tomorrow, place, None):
        assert len(page) <= 2
        found += page
        place = (page[-1].created_at, page[-1].key_id)
    assert {key.key_id for key in found} == {key.key_id for key in made}
    assert [key.created_at for key in found] == sorted(key.created_at for key in found)
    assert {(key.subject, key.data_class, key.anchor) for key in found} == set(wanted)
    payments = await vault_keys.read_aged(kit, tomorrow, None, "payment")
    assert {key.data_class for key in payments} == {"payment"}
    assert await vault_keys.read_aged(kit, datetime.now(UTC) - timedelta(days=1), None, None) == []


async def test_only_who_may_revoke_sees_them(world: World, vault: ServiceProcess) -> None:
    kit: Any = SimpleNamespace(vault=world.client(vault, "order"))
    with pytest.raises(Forbidden):
        await vault_keys.read_aged(kit, datetime.now(UTC), None, None)
    kit = SimpleNamespace(vault=world.client(vault, "privacy"))
    with pytest.raises(Invalid):
        await vault_keys.read_aged(kit, datetime.now(UTC), None, "no_such_class")
