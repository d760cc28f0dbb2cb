"""Keys by age, from the vault as its own process; and what becomes of those that nobody holds a row under."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from deploy.local.services import ServiceProcess
from event_contracts.privacy import DescribeHoldings, KeyReleased
from event_contracts.vault_api import AgedKey
from privacy_service.retention import vault_keys
from privacy_service.retention.worker import carry_retention
from servicekit.core import faults
from servicekit.core.errors import Forbidden, Invalid, KitError
from servicekit.core.faults import Fault, InjectedFault
from tests.support.infra import postgres_server
from tests.support.retentions import Retention, retention
from tests.support.rights import Shop, shop
from tests.support.vaults import World, module_world, names, vault, world

__all__ = ["module_world", "postgres_server", "retention", "shop", "vault", "world"]


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
    found: list[AgedKey] = []
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


async def test_a_key_that_is_still_held_has_a_date_for_the_next_look(shop: Shop, retention: Retention) -> None:
    """Nothing that is not due is asked about, however many old keys there are."""
    now, subject = shop.clock.now(), uuid4()
    key = retention.has_key(subject, "payment", now - timedelta(days=2))
    shop.holds(subject, "order", "payment", key.anchor)
    await retention.settle()
    assert await shop.kit.db.fetchval("SELECT look_at FROM key_looks") == now + timedelta(days=30)
    shop.drops(subject, "order", "payment", key.anchor)
    for days, state in ((29, None), (1, "destroyed")):
        await shop.tick(days=days)
        shop.sent.clear()
        await retention.settle()
        assert shop.vault.states.get(key.key_id) == state
        described = [each for each in shop.sent if isinstance(each, DescribeHoldings)]
        assert bool(described) == (state is not None)


@pytest.mark.attack("a deleted row's sealed copy is kept and its key asked for", expected="the key is destroyed")
async def test_a_released_key_goes_when_nobody_holds_a_row_under_it(shop: Shop, retention: Retention) -> None:
    """L3, L6: by an ordinary revocation with a certificate. The release that is read again changes nothing."""
    subject, other = uuid4(), uuid4()
    released, kept = [await retention.release(subject, "account", "contact") for _ in range(2)], uuid4()
    stays = shop.holds(subject, "account", "contact", kept)
    theirs = shop.holds(other, "account", "contact", other)
    await shop.hear(*released)
    await retention.settle()
    assert shop.vault.states == {event.key_id: "destroyed" for event in released}
    assert shop.vault.states.keys().isdisjoint({stays, theirs})
    assert await retention.requests() == 1
    assert await shop.kit.db.fetchval("SELECT count(*) FROM certificates") == 1
    await shop.revoked(*(event.key_id for event in released))
    await shop.hear(*released, *released)
    await retention.settle()
    assert await retention.requests() == 1
    assert await shop.kit.db.fetchval("SELECT count(*) FROM key_looks") == 0


async def test_runs_that_only_look_at_keys_go_after_a_month(shop: Shop, retention: Retention) -> None:
    """One is begun for every few releases, so they would grow for ever. The daily runs stay."""
    released = await retention.release(uuid4(), "account", "contact")
    await shop.hear(released)
    await retention.settle()
    await shop.revoked(released.key_id)
    looks = "SELECT count(*) FROM retention_runs WHERE only_looks"
    assert await shop.kit.db.fetchval(looks) == 1
    for days, left in ((29, 1), (2, 0)):
        await shop.tick(days=days)
        await retention.settle()
        assert await shop.kit.db.fetchval(looks) == left
    assert await shop.kit.db.fetchval("SELECT count(*) FROM retention_runs") == 3


async def test_a_released_key_stays_while_another_system_holds_a_row_under_it(shop: Shop, retention: Retention) -> None:
    subject = uuid4()
    release = await retention.release(subject, "order", "delivery")
    shop.holds(subject, "logistics-gateway", "delivery", release.anchor)
    await shop.hear(release)
    await retention.settle()
    assert shop.vault.states == {}
    shop.drops(subject, "logistics-gateway", "delivery", release.anchor)
    await shop.hear(release)  # of the other system it would be another event; here the same is read again
    await retention.settle()
    assert shop.vault.states == {release.key_id: "destroyed"}


async def test_an_answer_from_before_a_release_does_not_put_it_off(shop: Shop, retention: Retention) -> None:
    subject = uuid4()
    release = await retention.release(subject, "order", "delivery")
    shop.holds(subject, "logistics-gateway", "delivery", release.anchor)
    await shop.hear(release)
    await carry_retention(shop.kit)
    old = [answer for command in await shop.asked() for answer in retention.answers(command)]
    shop.drops(subject, "logistics-gateway", "delivery", release.anchor)
    await shop.hear(release)
    await shop.hear(*old)
    await retention.settle()
    assert shop.vault.states == {release.key_id: "destroyed"}


async def test_a_release_by_a_system_that_holds_no_such_class_is_not_heard(shop: Shop, retention: Retention) -> None:
    await shop.hear(await retention.release(uuid4(), "order", "credentials"))
    await retention.settle()
    assert await shop.kit.db.fetchval("SELECT count(*) FROM key_looks") == 0


@pytest.mark.fault(37, "a participant releases keys of others")
@pytest.mark.attack("release another system's quarantine or export key as one's own", expected="no effect, counted")
@pytest.mark.parametrize("data_class", ["quarantine", "export"])
async def test_a_quarantine_or_an_export_is_never_released(shop: Shop, retention: Retention, data_class: str) -> None:
    """No table reports their rows, so the silence of all systems would say that nobody holds them."""
    await shop.hear(await retention.release(uuid4(), "logistics-gateway", data_class))
    await shop.tick(days=2)
    await retention.settle()
    assert (shop.vault.states, await retention.requests()) == ({}, 0)


@pytest.mark.fault(37, "a participant releases what none of its events has named")
@pytest.mark.attack(
    "release a key under a wrong name, before its holder does", expected="only the honest release counts"
)
async def test_a_release_counts_under_the_name_that_its_own_event_gave(shop: Shop, retention: Retention) -> None:
    """A lie neither takes another key nor keeps the honest release out; an event that is read late is not missed."""
    subject, other = uuid4(), uuid4()
    honest = await retention.release(subject, "account", "contact")
    victim = shop.holds(other, "order", "delivery", other)
    shop.drops(other, "order", "delivery", other)
    lies = [
        KeyReleased(subject_id=other, system=system, data_class="delivery", anchor=other, key_id=key_id)
        for system in ("order", "logistics-gateway")
        for key_id in (victim, honest.key_id)
    ]
    late = honest.model_copy(update={"anchor": uuid4(), "key_id": uuid4()})
    shop.vault.keys[subject, "contact", late.anchor] = late.key_id
    await shop.hear(*lies, honest, late)
    await retention.settle()
    assert shop.vault.states == {honest.key_id: "destroyed"}
    await shop.revoked(honest.key_id)
    await retention.names_key(late)
    await shop.tick(days=1)
    await retention.settle()
    assert shop.vault.states == {honest.key_id: "destroyed", late.key_id: "destroyed"}
    assert await shop.kit.db.fetchval("SELECT count(*) FROM key_looks WHERE key_id = $1", victim) == 0


@pytest.mark.fault(17, "the shredding of a deleted row is cut at any point")
@pytest.mark.parametrize(
    "point", ["retention.looked", "retention.gave_up", "rights.answered", "tx.commit", "tx.committed"]
)
async def test_shredding_may_be_cut_at_any_point(shop: Shop, retention: Retention, point: str) -> None:
    release = await retention.release(uuid4(), "account", "contact")
    faults.arm({point: Fault("error", 0, 1)})
    try:
        await shop._hear_in_the_end([release])
        for _ in range(30):
            await shop.tick(seconds=10)
            try:
                await carry_retention(shop.kit)
                await shop.work()
                commands = await shop.asked()
            except (InjectedFault, KitError):
                continue
            replies = [answer for command in commands for answer in retention.answers(command)]
            await shop._hear_in_the_end(replies)
    finally:
        faults.arm({})
    await retention.settle()
    assert shop.vault.states == {release.key_id: "destroyed"}
    assert await retention.requests() == 1
