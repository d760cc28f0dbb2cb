"""KEK providers, each through the same tests; the KEKs in memory; when an epoch ends, and the horizon."""
# ruff: noqa: F811 - fixtures are imported, and named again as parameters

import asyncio
import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from servicekit.core.errors import Misconfigured, Unavailable
from tests.support.key_services import REGION, WEEK, kms_endpoint, new_folder, provider  # noqa: F401 - fixtures
from vault_service.epochs.domain import describe_lost, horizon_of, is_due
from vault_service.kek import Kek, KekMissing, KekNotLoaded, Provider, WrongKek
from vault_service.kek_files import FileKek
from vault_service.kms import KmsKek
from vault_service.settings import VaultSettings

MONTH, DAY = timedelta(days=30), timedelta(days=1)
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)

# --- every provider ---


async def test_a_kek_is_the_same_each_time_it_is_loaded(provider: Provider) -> None:
    epoch, handle = await provider.first()
    key = await provider.load(epoch, handle)
    assert len(key) == 32
    assert await provider.load(epoch, handle) == key


async def test_a_next_epoch_has_a_higher_number_and_another_kek(provider: Provider) -> None:
    first, handle = await provider.first()
    second, other = await provider.create(first)
    assert second > first
    assert await provider.load(first, handle) != await provider.load(second, other)


async def test_two_that_are_made_at_once_are_two_keks(provider: Provider) -> None:
    first, _ = await provider.first()
    made = await asyncio.gather(*(provider.create(first) for _ in range(3)))
    assert len({await provider.load(epoch, handle) for epoch, handle in made}) == 3


async def test_a_destroyed_kek_does_not_load_and_is_destroyed_twice_in_peace(provider: Provider) -> None:
    first, handle = await provider.first()
    kept, other = await provider.create(first)
    for _ in range(2):
        await provider.destroy(first, handle)
    with pytest.raises(KekMissing):
        await provider.load(first, handle)
    assert await provider.load(kept, other)


async def test_the_index_key_is_loaded_again_and_belongs_to_no_epoch(provider: Provider) -> None:
    first, handle = await provider.first()
    index = await provider.create_index()
    key = await provider.load_index(index)
    await provider.destroy(first, handle)
    assert await provider.load_index(index) == key
    assert len(key) == 32


async def test_a_kek_without_an_epoch_is_named(provider: Provider) -> None:
    first = await provider.first()
    await provider.create_index()
    assert await provider.strays([first]) == []
    second = await provider.create(first[0])
    (name,) = await provider.strays([first])
    assert f"epoch-{second[0]}" in name
    assert await provider.strays([first, second]) == []


# --- files ---


async def test_a_kek_file_is_overwritten_before_it_goes(tmp_path: Path) -> None:
    folder = new_folder(tmp_path / "kek")
    before = (folder / "epoch-1.key").read_bytes()
    os.link(folder / "epoch-1.key", tmp_path / "the same place on the disk")
    await FileKek(folder).destroy(1, b"")
    assert not (folder / "epoch-1.key").exists()
    assert (tmp_path / "the same place on the disk").read_bytes() != before


async def test_a_kek_file_is_for_its_user_alone_and_never_half_written(tmp_path: Path) -> None:
    folder = new_folder(tmp_path / "kek")
    assert await FileKek(folder).create(1) == (2, b"")
    assert (folder / "epoch-2.key").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in folder.iterdir()) == ["epoch-1.key", "epoch-2.key", "index.key"]
    (folder / "epoch-2.key").chmod(0o640)
    with pytest.raises(Misconfigured, match="can be read by other users"):
        await FileKek(folder).load(2, b"")
    (folder / "epoch-1.key").write_bytes(bytes(31))
    with pytest.raises(Misconfigured, match="does not hold 32 bytes"):
        await FileKek(folder).load(1, b"")


@pytest.mark.fault(14, "an empty folder of KEKs")
async def test_an_empty_folder_begins_no_vault(tmp_path: Path) -> None:
    (tmp_path / "kek").mkdir(mode=0o700)
    with pytest.raises(Misconfigured, match="restore it from escrow"):
        await FileKek(tmp_path / "kek").first()


# --- AWS KMS ---


async def test_what_kms_wraps_opens_for_its_own_vault_and_epoch_only(kms_endpoint: str) -> None:
    ours, theirs = (KmsKek(name, WEEK, REGION, kms_endpoint) for name in ("ours", "theirs"))
    epoch, handle = await ours.create(0)
    assert await ours.load(epoch, handle) not in handle
    for kms, number in ((ours, epoch + 1), (theirs, epoch)):
        with pytest.raises(Misconfigured, match="AWS KMS refuses"):
            await kms.load(number, handle)


@pytest.mark.fault(19, "the KMS is away")
async def test_a_kms_that_is_away_is_no_lost_kek() -> None:
    with pytest.raises(Unavailable) as caught:
        await KmsKek("ours", WEEK, REGION, "http://127.0.0.1:9").create(0)
    assert not isinstance(caught.value, KekMissing)


@pytest.mark.parametrize("days", [0, 6, 31])
def test_kms_is_asked_for_no_delay_that_it_does_not_grant(days: int) -> None:
    with pytest.raises(Misconfigured, match="7 to 30"):
        KmsKek("ours", timedelta(days=days))


async def test_an_epoch_of_another_provider_is_refused(kms_endpoint: str) -> None:
    with pytest.raises(Misconfigured, match="KEK_PROVIDER"):
        await KmsKek("ours", WEEK, REGION, kms_endpoint).load(1, b"")


# --- in memory ---


async def test_what_is_wrapped_opens_under_its_epoch_and_binding_only(tmp_path: Path) -> None:
    kek = await loaded(tmp_path, 1, 2)
    wrapped = kek.wrap(1, bytes(32), b"row")
    assert kek.unwrap(1, wrapped, b"row") == bytes(32)
    for epoch, bound, changed in (
        (2, b"row", wrapped),
        (1, b"other", wrapped),
        (1, b"row", wrapped[:-1]),
        (1, b"", b""),
    ):
        with pytest.raises(WrongKek):
            kek.unwrap(epoch, changed, bound)


async def test_a_missing_kek_is_loaded_between_two_attempts(tmp_path: Path) -> None:
    kek = await loaded(tmp_path, 1)
    with pytest.raises(KekNotLoaded):
        kek.wrap(2, bytes(32), b"")
    attempts = []

    async def attempt() -> bytes:
        attempts.append(1)
        return kek.wrap(2, bytes(32), b"")

    assert await kek.with_loaded(attempt)
    assert len(attempts) == 2


async def test_the_kek_of_a_destroyed_epoch_is_not_loaded_again(tmp_path: Path) -> None:
    kek = await loaded(tmp_path, 1)
    kek.keep_only([])

    async def attempt() -> bytes:
        return kek.wrap(9, bytes(32), b"")

    with pytest.raises(KekNotLoaded):
        await kek.with_loaded(attempt)


async def loaded(tmp_path: Path, *epochs: int) -> Kek:
    files = FileKek(new_folder(tmp_path / "kek"))
    await files.create(1)

    async def find(epoch: int) -> bytes | None:
        return b"" if epoch < 3 else None

    kek = Kek(files, bytes(32), find)
    await kek.ready(epochs)
    return kek


# --- ends and horizon ---


def test_the_next_epoch_is_opened_a_day_before_the_end_of_a_month() -> None:
    assert not is_due(NOW, MONTH, NOW + 29 * DAY - timedelta(seconds=1))
    assert is_due(NOW, MONTH, NOW + 29 * DAY)
    assert is_due(NOW, DAY, NOW + DAY * 0.9)


@pytest.mark.parametrize(
    ("age", "deletion", "copies", "day"),
    [
        (0, 0, 0, date(2026, 12, 25)),  # at noon of 24 December, so from the day after on
        (10, 0, 0, date(2026, 12, 15)),
        (10, 7, 0, date(2026, 12, 22)),
        (10, 7, 30, date(2027, 1, 21)),
        (40, 7, 0, date(2026, 12, 2)),  # the end is late: from now, not from a day that is past
    ],
)
def test_the_horizon_is_the_end_of_the_epoch_the_delay_and_the_copies(
    age: int, deletion: int, copies: int, day: date
) -> None:
    assert horizon_of(NOW - age * DAY, MONTH, deletion * DAY, copies * DAY, NOW) == day


def test_the_delay_is_a_week_with_kms_and_none_with_files() -> None:
    assert VaultSettings().kek_deletion == timedelta(0)
    assert VaultSettings(kek_provider="aws-kms").kek_deletion == WEEK
    assert VaultSettings(kek_provider="aws-kms", kek_deletion_days=30).kek_deletion == MONTH


def test_lost_keys_are_counted_by_epoch_and_class() -> None:
    lost = [(2, "contact", 1), (1, "identity", 7), (1, "contact", 3)]
    assert describe_lost(lost) == "epoch 1: contact 3, identity 7; epoch 2: contact 1"
