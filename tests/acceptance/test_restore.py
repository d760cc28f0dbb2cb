"""L4 (docs/proofs.md, 10; docs/faults.md, row 12): a database restored from a base backup taken under load catches up by itself."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from deploy.local.postgres import Postgres
from deploy.local.stack import Stack
from tests.support.end_states import DELIVERED, WITH_KIT, end_states, number, quarantined, rows, twice_in_topics
from tests.support.infra import new_kafka, new_postgres
from tests.support.kills import behind_in_all
from tests.support.restores import restore_database, server_on
from tests.support.shop_floor import Floor, open_floor, until
from tests.support.stacks import FAST_PASSWORDS

BEFORE, AFTER = 40, 40
CATCH_UP_TIMEOUT = 600.0
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(1200)]

POSITIONS = "SELECT reader, topic, partition, next FROM kit.positions ORDER BY 1, 2, 3"
NOTICES = "SELECT subject_id, order_id, kind, notice_id, at FROM notices ORDER BY order_id, kind"
INVENTORY = "SELECT * FROM inventory ORDER BY subject_id, system, data_class, anchor"
RECIPIENTS = "SELECT * FROM recipients ORDER BY subject_id, anchor, data_class, carrier, lane, lane_version"
# What the ledger says of each parcel. When it was recorded, and until when its carrier may act, are the new line's own.
LEDGER = """SELECT shipment_id, order_id, subject_id, state, reason, carrier, lane, lane_version, fields, topic, partition,
    position, recall, acknowledged_at, refused_at, handed_over_at, delivered_at FROM disclosures ORDER BY shipment_id"""


@dataclass
class Shop:
    """A floor whose day is over, and the DSN of a server on the backup from the middle of that day."""

    floor: Floor
    backup_dsn: str


@dataclass
class Books:
    """What stands in the databases."""

    positions: dict[tuple[str, str, int], int]
    notices: list[tuple[Any, ...]]
    inventory: list[dict[str, Any]]
    recipients: list[dict[str, Any]]
    ledger: list[tuple[Any, ...]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    """Orders come before, during and after the backup; then all are delivered."""
    folder = tmp_path_factory.mktemp("restore")
    stack = Stack(kafka=new_kafka(folder / "kafka"), postgres=new_postgres(), progress=lambda _: None)
    if not isinstance(stack.postgres, Postgres):
        pytest.skip("a second server on the backup needs the embedded PostgreSQL")
    stack.overrides["account"] |= FAST_PASSWORDS
    await asyncio.to_thread(stack.start)
    try:
        async with open_floor(stack) as floor:
            await sell_around_a_backup(floor, folder / "backup")
            with server_on(folder / "backup", stack.postgres.admin_dsn) as backup_dsn:
                yield Shop(floor, backup_dsn)
    finally:
        await asyncio.to_thread(stack.close)


async def sell_around_a_backup(floor: Floor, backup: Path) -> None:
    accepted, stop = floor.storefront.accepted, asyncio.Event()

    async def sold(count: int) -> None:
        async def enough() -> bool:
            return len(accepted) >= count

        await until(enough, f"{count} orders", timeout=CATCH_UP_TIMEOUT, pause=0.02)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(floor.storefront.sell(stop, at_once=6, pause=0.02))
        await sold(BEFORE)
        await asyncio.to_thread(floor.stack.postgres.base_backup, backup)
        await sold(len(accepted) + AFTER)
        stop.set()
    await floor.settle()
    await read_up(floor)


@pytest.mark.fault(12, "one service's database from a backup taken under load")
@pytest.mark.parametrize("system", ["logistics-gateway", "privacy", pytest.param("account", marks=pytest.mark.long)])
async def test_a_database_from_a_backup_taken_under_load_catches_up_by_itself(shop: Shop, system: str) -> None:
    floor, stack = shop.floor, shop.floor.stack
    before, resent = await books(stack), surplus(floor)
    process = stack.process(system)
    await asyncio.to_thread(process.stop)
    await asyncio.to_thread(restore_database, stack, shop.backup_dsn, system)
    restored = await positions(stack, system)
    mine = {place: following for place, following in before.positions.items() if place[0] == system}
    forgotten = sum(mine.values()) - sum(restored.values())
    assert forgotten > 0, "the backup lacks nothing"

    await asyncio.to_thread(process.start)
    await floor.settle()
    await read_up(floor)

    after = await books(stack)
    assert all(after.positions[place] >= following for place, following in before.positions.items())
    assert after.notices == before.notices
    assert after.ledger == before.ledger
    compare_inventories(before, after, seen_again="logistics-gateway" if system == "logistics-gateway" else None)
    found = await end_states(stack, floor.carriers.values())
    assert found == dict.fromkeys(floor.storefront.accepted, DELIVERED)
    again = {topic: count - resent[topic] for topic, count in surplus(floor).items() if count > resent[topic]}
    if system == "logistics-gateway":
        # The parcels that the ledger had forgotten went out again under the ids of the first time.
        assert any(topic.startswith("carrier.") for topic in again)
    print(f"\n{system}: {forgotten} records read again of {sum(mine.values())}; copies on the wire: {again or 'none'}")


async def read_up(floor: Floor) -> None:
    """Until all readers are at the end, no carrier's reply waits for its parcel, and nothing is in quarantine."""
    stack = floor.stack

    async def done() -> bool:
        waiting = await number(stack, "logistics-gateway", "SELECT count(*) FROM early_replies")
        unsent = await number(stack, "logistics-gateway", "SELECT count(*) FROM disclosures WHERE state <> 'sent'")
        open_ends = await number(
            stack, "logistics-gateway", "SELECT count(*) FROM disclosures WHERE delivered_at IS NULL"
        )
        return waiting + unsent + open_ends + await behind_in_all(stack) == 0

    await until(done, "all readers have read all, and all parcels are sent and answered", CATCH_UP_TIMEOUT)
    await floor.settle()  # what they emitted last
    assert {system: await quarantined(stack, system) for system in WITH_KIT} == dict.fromkeys(WITH_KIT, 0)


async def positions(stack: Stack, system: str) -> dict[tuple[str, str, int], int]:
    found = await rows(stack, system, POSITIONS)
    return {(system, row["topic"], row["partition"]): row["next"] for row in found}


async def books(stack: Stack) -> Books:
    return Books(
        positions={place: following for s in WITH_KIT for place, following in (await positions(stack, s)).items()},
        notices=[tuple(row) for row in await rows(stack, "account", NOTICES)],
        inventory=[dict(row) for row in await rows(stack, "privacy", INVENTORY)],
        recipients=[dict(row) for row in await rows(stack, "privacy", RECIPIENTS)],
        ledger=[tuple(row) for row in await rows(stack, "logistics-gateway", LEDGER)],
    )


def compare_inventories(before: Books, after: Books, seen_again: str | None) -> None:
    """Equal to the last byte; but what a system published anew was, rightly, seen anew."""
    assert [_unseen(row, seen_again) for row in after.inventory] == [
        _unseen(row, seen_again) for row in before.inventory
    ]
    assert [_unseen(row, seen_again) for row in after.recipients] == [
        _unseen(row, seen_again) for row in before.recipients
    ]


def _unseen(row: dict[str, Any], seen_again: str | None) -> dict[str, Any]:
    if seen_again is None or row.get("system", seen_again) != seen_again:
        return row
    return {name: value for name, value in row.items() if name != "last_seen"}


def surplus(floor: Floor) -> dict[str, int]:
    return dict(twice_in_topics(floor.stack, {name: carrier.desk for name, carrier in floor.carriers.items()}))
