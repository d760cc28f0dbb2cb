"""KEK epochs on a real PostgreSQL: rotation under load, crashes, two at once, and what an old dump opens."""
# ruff: noqa: F811 - fixtures are imported, and named again as parameters

import asyncio
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from deploy.local.http import open_http
from deploy.local.interfaces import PostgresServer
from event_contracts import Erased
from servicekit.core.clock import Clock, FakeClock
from servicekit.core.errors import Fenced, KitError, Misconfigured
from servicekit.core.faults import arm, parse
from servicekit.db.postgres import Tx
from servicekit.vault.client import LeaseName
from servicekit.vault.leases import KeyName
from tests.support.faults import recording
from tests.support.infra import postgres_server  # noqa: F401 - a fixture
from tests.support.key_services import (  # noqa: F401 - fixtures
    Keyhouse,
    Keys,
    ensure,
    keyhouse,
    kms_endpoint,
    lease,
    new_folder,
    provider,
    rotate,
    states,
)
from tests.support.vaults import World, bearer, module_world, names, vault  # noqa: F401 - fixtures
from vault_service import handlers, store
from vault_service.domain import StoredKey, bound
from vault_service.epochs import handlers as epochs
from vault_service.epochs.store import named_epochs, read_epochs
from vault_service.handlers import Vault
from vault_service.kek import Kek, Provider, WrongKek
from vault_service.kek_files import FileKek
from vault_service.settings import VaultSettings

POINTS = ("vault.kek_created", "vault.epoch_opened", "vault.rewrapped", "vault.epoch_emptied", "vault.kek_destroyed")


# --- a rotation ---


async def test_a_rotation_moves_every_key_and_ends_the_epoch_before(keyhouse: Keyhouse, provider: Provider) -> None:
    vault = await keyhouse.open(provider)
    keys = await ensure(vault, 700)  # more than one batch
    assert await rotate(vault) == 2
    assert await states(vault.db) == {1: "destroyed", 2: "active"}
    assert await named_epochs(vault.db) == [2]
    assert await lease(vault, keys) == keys
    again = await keyhouse.open(provider)
    assert await lease(again, keys) == keys


@pytest.mark.fault(23, "rotations under load")
async def test_rotations_under_load_leave_every_key_readable(keyhouse: Keyhouse, provider: Provider) -> None:
    """Two vaults make and lease keys without a pause, while both rotate at once, again and again."""
    vaults = [await keyhouse.open(provider) for _ in range(2)]
    made: Keys = {}
    over = asyncio.Event()

    async def load(vault: Vault) -> None:
        while not over.is_set():
            keys = await ensure(vault, 5)
            made.update(keys)
            assert await lease(vault, keys) == keys

    async def rotations() -> None:
        try:
            for _ in range(3):
                enough = len(made) + 20
                await asyncio.gather(*(epochs.open_next(each.db, each.kek, each.clock) for each in vaults))
                await epochs.finish(vaults[0].db, vaults[0].kek, vaults[0].clock)
                while len(made) < enough:
                    await asyncio.sleep(0.01)
        finally:
            over.set()

    await asyncio.gather(rotations(), *(load(vault) for vault in vaults * 2))
    await epochs.finish(vaults[0].db, vaults[0].kek, vaults[0].clock)
    found = await states(vaults[0].db)
    assert sorted(found.values())[0] == "active"
    assert set(list(found.values())[:-1]) == {"destroyed"}
    assert len(found) in range(4, 8)  # both at once are one rotation, unless the second began after the first
    assert await named_epochs(vaults[0].db) == [max(found)]
    assert len(made) > 60
    for each in vaults:
        assert await lease(each, made) == made


@pytest.mark.fault(23, "two vaults rotate at once")
@pytest.mark.fault(25, "two vaults rotate at once")
async def test_two_vaults_that_rotate_at_once_open_one_epoch(keyhouse: Keyhouse, provider: Provider) -> None:
    vaults = [await keyhouse.open(provider) for _ in range(2)]
    keys = await ensure(vaults[0], 10)
    active = await asyncio.gather(*(epochs.open_next(each.db, each.kek, each.clock, after=1) for each in vaults))
    assert len(set(active)) == 1
    assert sorted((await states(vaults[0].db)).values()) == ["active", "closed"]
    await asyncio.gather(*(epochs.finish(each.db, each.kek, each.clock) for each in vaults))
    assert sorted((await states(vaults[0].db)).values()) == ["active", "destroyed"]
    for each in vaults:
        assert await lease(each, keys) == keys
        assert await ensure(each, 1)
    if provider.name == "file":  # KMS keeps the loser's key for a week
        shown = await epochs.overview(vaults[0].db, vaults[0].kek, VaultSettings(), Clock().now())
        assert shown.strays == []


async def test_a_repeated_request_to_rotate_has_one_effect(keyhouse: Keyhouse, tmp_path: Path) -> None:
    vault = await keyhouse.open(FileKek(new_folder(tmp_path / "kek")))
    for _ in range(2):
        assert await epochs.open_next(vault.db, vault.kek, vault.clock, after=1) == 2


@pytest.mark.fault(23, "a key under way while its epoch closes")
async def test_a_key_under_way_is_not_left_in_the_closed_epoch(keyhouse: Keyhouse, tmp_path: Path) -> None:
    """A writer that wraps under an epoch keeps it open until its commit; its key is re-wrapped like the others."""
    vault = await keyhouse.open(FileKek(new_folder(tmp_path / "kek")))
    locked, go_on = asyncio.Event(), asyncio.Event()
    (name,) = names()

    async def work(tx: Tx) -> StoredKey:
        epoch = await store.lock_active_epoch(tx)
        locked.set()
        await go_on.wait()
        key = StoredKey(uuid4(), name, 1, epoch, b"")
        wrapped = vault.kek.wrap(epoch, bytes(range(32)), bound(key.key_id, name, 1, epoch))
        key = StoredKey(key.key_id, name, 1, epoch, wrapped)
        await store.insert_keys(tx, [key], "order")
        return key

    writer = asyncio.create_task(vault.db.run_tx("slow_writer", work))
    await locked.wait()
    rotation = asyncio.create_task(rotate(vault))
    while not await vault.db.fetch("SELECT 1 FROM pg_locks WHERE mode = 'ExclusiveLock' AND NOT granted"):
        await asyncio.sleep(0)
    assert await states(vault.db) == {1: "active"}
    go_on.set()
    key = await writer
    await rotation
    assert await states(vault.db) == {1: "destroyed", 2: "active"}
    assert await lease(vault, {LeaseName(key.key_id, *name): b""}) == {LeaseName(key.key_id, *name): bytes(range(32))}


@pytest.mark.fault(23, "a key is destroyed while it is re-wrapped")
async def test_re_wrapping_does_not_bring_back_a_key_that_is_destroyed_meanwhile(
    keyhouse: Keyhouse, tmp_path: Path
) -> None:
    vault = await keyhouse.open(FileKek(new_folder(tmp_path / "kek")))
    keys = list(await ensure(vault, 3))
    destroyed, go_on = asyncio.Event(), asyncio.Event()

    async def destroy(tx: Tx) -> None:
        await tx.execute("UPDATE keys SET state = 'destroyed', wrapped = NULL WHERE key_id = $1", keys[0].key_id)
        destroyed.set()
        await go_on.wait()

    destroying = asyncio.create_task(vault.db.run_tx("destroy", destroy))
    await destroyed.wait()
    await rotate(vault)
    assert await states(vault.db) == {1: "closed", 2: "active"}  # the locked key was left out, so it is not empty
    go_on.set()
    await destroying
    await epochs.finish(vault.db, vault.kek, vault.clock)
    assert await states(vault.db) == {1: "destroyed", 2: "active"}
    (row,) = await vault.db.fetch("SELECT state::text, wrapped, epoch FROM keys WHERE key_id = $1", keys[0].key_id)
    assert tuple(row) == ("destroyed", None, 1)


async def test_held_and_fenced_keys_move_too(keyhouse: Keyhouse, tmp_path: Path) -> None:
    vault = await keyhouse.open(FileKek(new_folder(tmp_path / "kek")))
    keys = list(await ensure(vault, 2))
    for key, state in zip(keys, ("held", "fenced"), strict=True):
        await keyhouse.sql("UPDATE keys SET state = $2::text::key_state WHERE key_id = $1", key.key_id, state)
    await rotate(vault)
    rows = await vault.db.fetch("SELECT state::text, epoch FROM keys ORDER BY keys.state")
    assert [tuple(row) for row in rows] == [("held", 2), ("fenced", 2)]


@pytest.mark.fault(23, "a key that does not unwrap")
async def test_a_key_that_does_not_unwrap_keeps_its_epoch_and_the_others_move(
    keyhouse: Keyhouse, tmp_path: Path
) -> None:
    vault = await keyhouse.open(FileKek(new_folder(tmp_path / "kek")))
    keys = await ensure(vault, 3)
    broken = next(iter(keys))
    await keyhouse.sql("UPDATE keys SET wrapped = wrapped || '\\x00'::bytea WHERE key_id = $1", broken.key_id)
    await rotate(vault)
    assert await states(vault.db) == {1: "closed", 2: "active"}
    whole = {name: raw for name, raw in keys.items() if name != broken}
    assert await lease(vault, whole) == whole
    with pytest.raises(WrongKek):
        await lease(vault, {broken: b""})


# --- the end of an epoch ---


@pytest.mark.fault(13, "a dump from before the last rotation")
async def test_an_old_dump_opens_nothing_once_its_epoch_is_destroyed(keyhouse: Keyhouse, provider: Provider) -> None:
    """Somebody has all of the vault's database from before, and everything that the provider still has."""
    vault = await keyhouse.open(provider)
    keys = await ensure(vault, 20)
    old = {epoch.number: epoch.handle for epoch in await read_epochs(vault.db)}
    dump = await vault.db.fetch("SELECT * FROM keys")
    await rotate(vault)
    thief = Kek(provider, b"", lambda epoch: _handle({**old, **handles}, epoch))
    handles = {epoch.number: epoch.handle for epoch in await read_epochs(vault.db)}
    opened = 0
    for row in dump:
        name = KeyName(row["subject_id"], row["data_class"], row["anchor"])
        for epoch in handles:
            try:
                await thief.ready([epoch])
                thief.unwrap(epoch, row["wrapped"], bound(row["key_id"], name, row["generation"], row["epoch"]))
                opened += 1
            except KitError:
                continue
    assert (len(dump), opened) == (20, 0)
    assert await lease(vault, keys) == keys


async def _handle(handles: dict[int, bytes], epoch: int) -> bytes | None:
    return handles.get(epoch)


async def test_an_empty_epoch_waits_for_the_delay_before_its_file_goes(keyhouse: Keyhouse, tmp_path: Path) -> None:
    clock = FakeClock()
    folder = new_folder(tmp_path / "kek")
    vault = await keyhouse.open(FileKek(folder, timedelta(days=3)), clock)
    await rotate(vault)
    assert await states(vault.db) == {1: "empty", 2: "active"}
    clock.tick(3 * 86_400 - 1)
    await epochs.finish(vault.db, vault.kek, clock)
    assert (folder / "epoch-1.key").exists()
    clock.tick(1)
    await epochs.finish(vault.db, vault.kek, clock)
    assert not (folder / "epoch-1.key").exists()
    assert await states(vault.db) == {1: "destroyed", 2: "active"}


@pytest.mark.fault(21, "29 days pass")
async def test_the_job_rotates_before_the_horizon_without_being_asked(keyhouse: Keyhouse, tmp_path: Path) -> None:
    clock, settings = FakeClock(), VaultSettings()
    vault = await keyhouse.open(FileKek(new_folder(tmp_path / "kek")), clock)
    keys = await ensure(vault, 3)
    horizon = await epochs.horizon(vault.db, settings, clock.now())
    await epochs.turn(vault.db, vault.kek, clock, settings)
    assert await states(vault.db) == {1: "active"}
    clock.tick(29 * 86_400)
    await epochs.turn(vault.db, vault.kek, clock, settings)
    assert await states(vault.db) == {1: "destroyed", 2: "active"}
    assert clock.now().date() < horizon
    assert await lease(vault, keys) == keys


# --- crashes ---


@pytest.mark.fault(23, "kill -9 at every point of a rotation")
@pytest.mark.parametrize("point", POINTS)
async def test_a_rotation_that_is_killed_anywhere_is_finished_by_the_next(
    keyhouse: Keyhouse, tmp_path: Path, point: str
) -> None:
    folder = new_folder(tmp_path / "kek")
    vault = await keyhouse.open(FileKek(folder))
    keys = await ensure(vault, 600)
    environment = {"DATABASE_DSN": keyhouse.app_dsn, "KEK_DIR": str(folder)}
    killed = await asyncio.to_thread(command, "rotate-kek", {**environment, "FAULTPOINTS": f"{point}=kill@1"})
    assert killed.returncode == -9, killed.stderr
    assert await lease(vault, keys) == keys
    again = await asyncio.to_thread(command, "rotate-kek", environment)
    assert again.returncode == 0, again.stderr
    assert [state for state in (await states(vault.db)).values() if state != "destroyed"] == ["active"]
    assert await lease(vault, keys) == keys
    left = [path.name for path in folder.glob("epoch-*.key")]
    strays = await vault.kek.provider.strays([(e.number, e.handle) for e in await read_epochs(vault.db)])
    assert len(left) == 1 + len(strays)
    assert len(strays) == (point == "vault.kek_created")


@pytest.mark.fault(23, "a batch of re-wrapping fails")
async def test_a_failed_batch_changes_nothing_and_is_done_again(keyhouse: Keyhouse, provider: Provider) -> None:
    vault = await keyhouse.open(provider)
    keys = await ensure(vault, 1200)
    arm(parse("vault.rewrapped=error@2"))
    with pytest.raises(KitError):
        await rotate(vault)
    arm({})
    assert await named_epochs(vault.db) == [1, 2]
    assert await lease(vault, keys) == keys
    await epochs.finish(vault.db, vault.kek, vault.clock)
    assert await named_epochs(vault.db) == [2]
    assert await lease(vault, keys) == keys


# --- what does not start ---


@pytest.mark.fault(14, "a vault whose KEK is lost")
async def test_a_lost_kek_keeps_the_vault_closed_and_its_keys_are_counted(keyhouse: Keyhouse, tmp_path: Path) -> None:
    folder = new_folder(tmp_path / "kek")
    vault = await keyhouse.open(FileKek(folder))
    await ensure(vault, 3)
    await handlers.ensure_keys(vault, "account", names("contact", 2), [])
    (folder / "epoch-1.key").unlink()
    with pytest.raises(Misconfigured) as caught:
        await keyhouse.open(FileKek(folder))
    assert "epoch 1: contact 2, delivery 3" in caught.value.detail
    assert "stays closed" in caught.value.detail
    done = await asyncio.to_thread(command, "epochs", {"DATABASE_DSN": keyhouse.app_dsn, "KEK_DIR": str(folder)})
    assert done.returncode == 1
    assert "epoch 1: contact 2, delivery 3" in done.stderr


@pytest.mark.fault(13, "a vault's database from before a rotation")
async def test_a_database_from_before_a_rotation_keeps_the_vault_closed(keyhouse: Keyhouse, provider: Provider) -> None:
    """The restored rows name an epoch whose KEK is gone: nothing may read that as an erasure."""
    vault = await keyhouse.open(provider)
    keys = await ensure(vault, 4)
    backup = await vault.db.fetch("SELECT key_id, epoch, wrapped FROM keys")
    await rotate(vault)
    for row in backup:
        await keyhouse.sql(
            "UPDATE keys SET epoch = $2, wrapped = $3 WHERE key_id = $1", row["key_id"], row["epoch"], row["wrapped"]
        )
    with pytest.raises(Misconfigured, match="epoch 1: delivery 4"):
        await keyhouse.open(provider)
    with pytest.raises(KitError) as caught:  # a vault that runs already says that it cannot, not that they are erased
        await lease(vault, keys)
    assert not isinstance(caught.value, Fenced | Misconfigured)


@pytest.mark.fault(14, "a vault without keys that the inventory names")
async def test_keys_that_the_inventory_names_and_the_vault_lacks_are_listed(keyhouse: Keyhouse, tmp_path: Path) -> None:
    folder = new_folder(tmp_path / "kek")
    vault = await keyhouse.open(FileKek(folder))
    known, unknown = next(iter(await ensure(vault, 1))).key_id, uuid4()
    environment = {"DATABASE_DSN": keyhouse.app_dsn, "KEK_DIR": str(folder)}
    done = await asyncio.to_thread(command, "missing-keys", environment, f"{known}\n{unknown}\n")
    assert (done.returncode, done.stdout.split()) == (1, [str(unknown)])


# --- over HTTP ---


async def test_privacy_rotates_over_http_and_another_service_does_not(
    module_world: World, tmp_path: Path, postgres_server: PostgresServer
) -> None:
    """Two running vaults: one is asked to rotate, and the other makes and leases keys under the next epoch."""
    world = module_world
    extra = {
        "REVOCATIONS_FILE": str(tmp_path / "revocations"),
        "REVOCATIONS_KEY_FILE": str(world.folder / "keys" / "identities" / "vault.pem"),
    }
    asked, other = world.start(extra), world.start(extra)
    try:
        wanted = names(count=3)
        sealing = await world.client(other, "order").ensure(wanted)
        async with open_http(asked.url) as http:
            order = bearer(world.identity("order").token())
            assert (await http.post("/v1/kek/rotations", headers=order)).status_code == 403
            assert (await http.get("/v1/kek", headers=order)).status_code == 403
            privacy = bearer(world.identity("privacy").token())
            for _ in range(2):
                response = await http.post("/v1/kek/rotations?after=1", headers=privacy)
                assert response.status_code == 200, response.text
            while True:
                shown = (await http.get("/v1/kek", headers=privacy)).json()
                found = [(each["epoch"], each["state"], each["keys"]) for each in shown["epochs"]]
                if found == [(1, "destroyed", 0), (2, "active", 3)]:
                    break
                await asyncio.sleep(0.1)
        opening = await world.client(other, "logistics-gateway").lease(
            "delivery", [LeaseName(key.key_id, *name) for name, key in zip(wanted, sealing, strict=True)]
        )
        assert [key.commitment for key in opening if not isinstance(key, Erased)] == [key.commitment for key in sealing]
        assert len(await world.client(other, "order").ensure(names(count=2))) == 2
    finally:
        await world.close()


def command(name: str, environment: dict[str, str], stdin: str = "") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "vault_service", name],
        env={"PATH": "/usr/bin:/bin", **recording(), **environment},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
