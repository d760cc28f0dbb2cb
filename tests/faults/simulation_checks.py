"""What must hold: `Safety` after every operation, `ended` once all faults are healed. Raises `AssertionError` with its reason.

The file of revocations, which lies outside all databases, says what may open: it is the measure for everything else.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections import Counter, defaultdict
from hashlib import sha256
from typing import Any, Final
from uuid import UUID

import msgspec

from event_contracts.vault_api import Entry
from logistics_gateway.domain import shipment_id_of
from order_service.handlers import read_order
from servicekit.core.errors import NotFound
from servicekit.core.revocation_list import FIRST_HASH, first_break
from servicekit.vault.client import LeaseName
from tests.faults.simulation import Simulation
from tests.faults.simulation_ground import SERVICES
from tests.faults.simulation_people import Sale
from tests.faults.simulation_systems import Process, VaultProcess
from vault_service.handlers import lease_keys

# Each table with a sealed value, by system; a token names its key in the 16 bytes after the first.
SEALED_COLUMNS: Final = {
    "order": (
        ("order_deliveries", "delivery"),
        ("order_registrations", "registration"),
        ("order_records", "record"),
        ("order_payments", "payment"),
    ),
    "logistics-gateway": (("disclosures", "delivery"),),
}
KEY_OF_TOKEN: Final = "encode(substring({column} from 2 for 16), 'hex')::uuid"
# An order only ever goes forward.
RANK: Final = {"placed": 0, "confirmed": 1, "handed_over": 2, "delivered": 3, "cancelled": 3}
# Of these an order has one at most, however often it comes.
ONCE: Final = {
    "OrderPlaced", "OrderConfirmed", "OrderHandedOver", "OrderDelivered", "OrderCancelled",
    "ShipmentAcknowledged", "ShipmentRefused", "ShipmentHandedOver", "ShipmentDelivered",
}  # fmt: skip


class Listed:
    """What the file of revocations says: the entries, and of each key the last action and the number that fenced it."""

    def __init__(self, entries: list[Entry]) -> None:
        self.entries = entries
        self.stance: dict[UUID, str] = {}
        self.fenced_at: dict[UUID, int] = {}
        for entry in entries:
            for key_id in entry.key_ids:
                self.stance[key_id] = entry.action
                if entry.action != "hold":
                    self.fenced_at.setdefault(key_id, entry.number)
        self.final = {entry.subject for entry in entries if entry.is_final}


class Safety:
    """Remembers what was, so that nothing goes back. One for each list of operations."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._leaves: list[bytes] = []
        self._status: dict[UUID, str] = {}
        self._order_restores = 0
        self._positions: dict[tuple[str, str, str, int], int] = {}
        self.checks = 0

    async def __call__(self, world: Simulation) -> None:
        self.checks += 1
        listed = self._read_list(world)
        for system in world.run.systems.values():
            await system.up()
        await check_keys(world, listed)
        await check_caches(world)
        await check_rows(world, listed)
        await self._check_orders(world)
        await self._check_positions(world)
        await check_effects(world)
        await self._check_evidence(world)
        for sale in world.sales:
            await check_readable(world, listed, sale)

    def _read_list(self, world: Simulation) -> Listed:
        """The list is a chain, and only grows (L6)."""
        file = world.run.folder / "revocations.jsonl"
        lines = file.read_bytes().splitlines() if file.exists() else []
        entries = [msgspec.convert(json.loads(line)["entry"], Entry) for line in lines]
        assert first_break(entries, 0, FIRST_HASH) is None, "L6: the list of revocations is no chain"
        assert entries[: len(self._entries)] == self._entries, "L6: the list of revocations was rewritten"
        self._entries = entries
        return Listed(entries)

    async def _check_orders(self, world: Simulation) -> None:
        """An order never goes back, unless its database did (L4)."""
        if world.restores["order"] != self._order_restores:
            self._status.clear()
            self._order_restores = world.restores["order"]
        for row in await world.run.systems["order"].fetch("SELECT order_id, status FROM orders"):
            before = self._status.get(row["order_id"], "placed")
            now = row["status"]
            assert now == before or RANK[now] > RANK[before], f"L4: an order went from {before} to {now}"
            self._status[row["order_id"]] = now

    async def _check_positions(self, world: Simulation) -> None:
        """No reader goes back, unless it was told to or its database did: a zombie moves nothing."""
        for name in SERVICES:
            rows = await world.run.systems[name].fetch("SELECT reader, topic, partition, next FROM kit.positions")
            for row in rows:
                place = name, row["reader"], row["topic"], row["partition"]
                may_go_back = name in world.restores or (name, row["reader"]) in world.replays
                before = self._positions.get(place, 0)
                assert row["next"] >= before or may_go_back, f"L4: {name}.{row['reader']} went back"
                self._positions[place] = row["next"]

    async def _check_evidence(self, world: Simulation) -> None:
        """The log's tree is that of its leaves, and begins with all leaves that there were (L6)."""
        privacy = world.run.systems["privacy"]
        rows = await privacy.fetch(
            "SELECT body FROM evidence_sequence JOIN evidence_leaves USING (entry_id) ORDER BY leaf_index"
        )
        leaves = [row["body"] for row in rows]
        # A restored database takes up from the journal what it lacks.
        shared = min(len(leaves), len(self._leaves))
        assert leaves[:shared] == self._leaves[:shared], "L6: evidence was rewritten"
        assert len(leaves) >= len(self._leaves) or "privacy" in world.restores, "L6: evidence was cut"
        newest = await privacy.fetch("SELECT size, note FROM evidence_checkpoints ORDER BY size DESC LIMIT 1")
        if newest:
            root = b64decode(newest[0]["note"].split("\n")[2])
            assert newest[0]["size"] == len(leaves), "L6: the newest checkpoint is not about all leaves"
            assert root == root_of([sha256(b"\x00" + leaf).digest() for leaf in leaves]), "L6: another root"
        if len(leaves) >= len(self._leaves):
            self._leaves = leaves


def root_of(hashes: list[bytes]) -> bytes:
    """RFC 9162, section 2.1.1, written anew."""
    if len(hashes) == 1:
        return hashes[0]
    split = 1 << (len(hashes) - 1).bit_length() - 1
    return sha256(b"\x01" + root_of(hashes[:split]) + root_of(hashes[split:])).digest()


async def check_keys(world: Simulation, listed: Listed) -> None:
    """What the list fences opens for nobody, what it holds for its purposes only, and all else for everybody who may (L3)."""
    process = await world.run.systems["vault"].up()
    assert isinstance(process, VaultProcess)
    rows = await process.db.fetch(
        "SELECT key_id, subject_id, data_class, anchor, wrapped IS NULL AS is_empty FROM keys"
    )
    for row in rows:
        stance = listed.stance.get(row["key_id"])
        assert stance is not None or row["subject_id"] not in listed.final, (
            "L3: a key of an erased person is not listed"
        )
        assert not row["is_empty"] or stance == "destroy", "a key is gone that the list does not destroy"
        assert row["is_empty"] or stance != "destroy", "L3: a destroyed key is still there"
    policy = process.vault.policy
    for service, grants in policy.grants.items():
        for purpose in {purpose for purposes in grants.open.values() for purpose in purposes}:
            wanted = [row for row in rows if policy.may_open(service, row["data_class"], purpose)]
            names = [LeaseName(row["key_id"], row["subject_id"], row["data_class"], row["anchor"]) for row in wanted]
            if not names:
                continue
            _, states = await lease_keys(process.vault, service, purpose, names)
            for name, (state, key) in zip(names, states, strict=True):
                stance = listed.stance.get(name.key_id)
                opens = stance is None or (stance == "hold" and purpose in policy.classes[name.data_class].held_for)
                assert (key is not None) == opens, (
                    f"L3: {name.data_class} for {purpose} by {service}: the list says {stance or 'nothing'}, the vault {state}"
                )


async def check_caches(world: Simulation) -> None:
    """Nobody holds a key on lease that was destroyed: whoever had one was waited for (docs/protocols.md#asking-the-vault)."""
    vault = world.run.systems["vault"]
    gone = {row["key_id"] for row in await vault.fetch("SELECT key_id FROM keys WHERE wrapped IS NULL")}
    now = world.run.clock.boottime()
    for name in SERVICES:
        system = world.run.systems[name]
        for process in filter(None, [system.process, *system.zombies]):
            assert isinstance(process, Process)
            leases = process.kit.vault._leases
            held = [*leases._ensured.values(), *leases._opened.values()]
            live = [lease for lease in held if lease.key.key_id in gone and now < lease.deadline]
            assert not live, f"L3: {name} holds a destroyed key on lease"


async def check_rows(world: Simulation, listed: Listed) -> None:
    """A database that has applied an entry has nothing of the keys that it fences, and gets nothing of them again."""
    for name in SERVICES:
        system = world.run.systems[name]
        (position,) = await system.fetch("SELECT number FROM kit.revocation_position")
        for table, column in SEALED_COLUMNS.get(name, ()):
            key = KEY_OF_TOKEN.format(column=column)
            rows = await system.fetch(f"SELECT {key} AS key_id FROM {table} WHERE {column} IS NOT NULL")
            _none_fenced(rows, listed, position["number"], f"{name}.{table}")
        if name == "privacy":
            rows = await system.fetch("SELECT key_id FROM inventory WHERE key_id IS NOT NULL")
            _none_fenced(rows, listed, position["number"], "privacy.inventory")


def _none_fenced(rows: list[Any], listed: Listed, number: int, where: str) -> None:
    back = [row for row in rows if listed.fenced_at.get(row["key_id"], number + 1) <= number]
    assert not back, f"L3: {where} has {len(back)} rows under keys that it has fenced"


async def check_effects(world: Simulation) -> None:
    """Every event once, for each order in the order of its making; every parcel once (L4)."""
    on_the_wire = {
        dict(record.headers).get("ce_id", b"")
        for logs in world.run.broker.logs.values()
        for log in logs
        for record in log
    }
    for name in SERVICES:
        system = world.run.systems[name]
        rows = await system.fetch("SELECT number, event_id, key, headers, published_at FROM kit.outbox ORDER BY number")
        lost = [row for row in rows if row["published_at"] and str(row["event_id"]).encode() not in on_the_wire]
        assert not lost, f"L4: {name} has {len(lost)} events marked as published that are not"
        if name not in world.restores and "order" not in world.restores:
            kinds = Counter((row["key"], json.loads(row["headers"])["ce_type"].partition(".")[0]) for row in rows)
            doubled = [kind for (_, kind), count in kinds.items() if count > 1 and kind in ONCE]
            assert not doubled, f"L4: {name} says twice of one order: {', '.join(doubled)}"
        _check_order_on_the_wire(world, {str(row["event_id"]): row["number"] for row in rows}, name)
    for carrier, desk in world.desks.items():
        versions = Counter((opened.shipment_id, opened.number) for opened in desk.opened if opened.kind == "shipment")
        assert not versions or max(versions.values()) == 1, f"L4: {carrier} has a parcel twice"
        gone = desk.shipments.keys() & (desk.recalled | desk.erased)
        assert not gone, f"{carrier} has taken a parcel that was recalled or erased before it came"


def _check_order_on_the_wire(world: Simulation, numbers: dict[str, int], name: str) -> None:
    for logs in world.run.broker.logs.values():
        for log in logs:
            last: dict[bytes, int] = {}
            seen: set[str] = set()
            for record in log:
                event_id = str(dict(record.headers).get("ce_id", b""), "ascii") if record.headers else ""  # type: ignore[arg-type]
                number = numbers.get(event_id)
                if number is None or event_id in seen:
                    continue
                seen.add(event_id)
                key = record.key or b""
                assert number > last.get(key, -1), f"L4: {name} published events of one aggregate out of order"
                last[key] = number


async def check_readable(world: Simulation, listed: Listed, sale: Sale) -> None:
    """An order that was accepted is there, with what was ordered; what is erased is not shown, what lives is."""
    order = world.run.systems["order"]
    process = await order.up()
    assert isinstance(process, Process)
    if not sale.accepted or not process.kit.gate.is_open:
        return
    keys: dict[str, set[str | None]] = defaultdict(set)
    sql = "SELECT data_class, key_id, wrapped IS NULL AS is_empty FROM keys WHERE anchor = $1"
    for row in await world.run.systems["vault"].fetch(sql, sale.order_id):
        keys[row["data_class"]].add(listed.stance.get(row["key_id"]))
    try:
        async with process.kit.work():
            found = await read_order(process.kit, sale.buyer.subject_id, sale.order_id)
    except NotFound:
        assert "order" in world.restores, "L4: an order that was accepted is not there"
        return
    for part, shown in (("order_record", found.record), ("delivery", found.delivery)):
        if keys[part] == {None}:
            assert shown is not None, f"{part} lives and cannot be read"
        if keys[part] == {"destroy"}:
            assert shown is None, f"L3: {part} is erased and can be read"
    if found.record is not None:
        assert found.record.lines[0].sku == sale.body["lines"][0]["sku"], "another order's record"
    if found.delivery is not None:
        assert found.delivery.consignee.name in sale.names, "another order's delivery"


async def ended(world: Simulation) -> None:
    """After healing: every order is with its consignee or cancelled, every erasure is certified, every destruction recorded."""
    assert not await world.under_way()
    await _orders_ended(world)
    if "privacy" not in world.restores:
        await _erasures_ended(world)


async def _orders_ended(world: Simulation) -> None:
    rows = await world.run.systems["order"].fetch("SELECT order_id, status FROM orders")
    status = {row["order_id"]: row["status"] for row in rows}
    ledger = await world.run.systems["logistics-gateway"].fetch(
        "SELECT order_id, state, recall, refused_at IS NOT NULL AS refused FROM disclosures"
    )
    lines = {row["order_id"]: row for row in ledger}
    arrived = Counter(
        opened.shipment_id
        for desk in world.desks.values()
        for opened in desk.opened
        if opened.kind == "shipment" and opened.number == 1
    )
    for sale in world.sales:
        if not sale.accepted or {"order", "logistics-gateway"} & world.restores.keys():
            continue
        line = lines.get(sale.order_id)
        state = line["state"] if line else None
        if state != "withheld":
            assert status[sale.order_id] in ("delivered", "cancelled"), (
                f"an order stays {status[sale.order_id]}, its disclosure {state}"
            )
        if status[sale.order_id] == "cancelled":
            stopped = line is not None and (state == "withheld" or line["recall"] == "sent" or line["refused"])
            assert stopped, f"an order is cancelled, its disclosure {state}"
        if status[sale.order_id] == "delivered":
            assert arrived[shipment_id_of(sale.order_id)] == 1 or len(sale.names) > 1, (
                "L4: a parcel did not arrive once"
            )


async def _erasures_ended(world: Simulation) -> None:
    privacy = world.run.systems["privacy"]
    rows = await privacy.fetch(
        "SELECT request_id, status::text, (SELECT count(*) FROM certificates c WHERE c.request_id = r.request_id) AS certified "
        "FROM rights_requests r WHERE kind = 'erasure'"
    )
    known = {row["request_id"]: row for row in rows}
    for request in world.requests:
        row = known[request.request_id]
        assert row["status"] == "completed", f"an erasure ends as {row['status']}"
        assert row["certified"] >= 1, "an erasure has no certificate"
    leaves = await privacy.fetch("SELECT body FROM evidence_leaves WHERE kind = 'key_destruction'")
    recorded = Counter(
        (leaf["request_id"], key["key_id"])
        for row in leaves
        for leaf in [json.loads(row["body"])]
        for key in leaf["keys"]
    )
    file = world.run.folder / "revocations.jsonl"
    for line in file.read_bytes().splitlines() if file.exists() else []:
        entry = msgspec.convert(json.loads(line)["entry"], Entry)
        if entry.action == "destroy":
            for key_id in entry.key_ids:
                count = recorded[str(entry.request_id), str(key_id)]
                assert count == 1, f"L6: a key was destroyed, and {count} times recorded"
