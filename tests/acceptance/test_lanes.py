"""L9 (docs/proofs.md, 6): whatever is sealed into an order, the carrier opens the fields of its lane and nothing else.

The bytes go to Kafka past our models, the carrier opens with another JOSE library, and the lane is read from its YAML file here.
"""

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import pytest
import yaml
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from deploy.local.services import ROOT
from deploy.local.stack import Stack
from event_contracts.topics import CARRIERS
from tests.support.carrier import Carrier
from tests.support.deliveries import deliveries
from tests.support.stacks import account_of
from tests.support.traffic import produce_orders, seal_orders

SECRET = "SECRET-4711"
VAT = "GB123456789"
LANES = ROOT / "shared" / "policy" / "lanes"

names = st.sampled_from(
    ["customer_id", "notes", "email", "history", "recipient", "person_name", "__proto__", "shipment", "consignee", "ip"]
)
hostile_values = st.recursive(
    st.sampled_from([SECRET, f"{SECRET}\u0000", f"\u202e{SECRET}", 4711, None, True]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
extras = st.dictionaries(names | st.just("internal note"), hostile_values, max_size=4)


@st.composite
def hostile_orders(draw: st.DrawFn) -> tuple[bytes, dict[str, Any], bytes]:
    """The plaintext of a delivery with unknown fields at every level, unknown fields for the event around it, and the plaintext
    of a registration with more than its numbers."""
    body = draw(deliveries())
    for target in (body, body["consignee"], *body["parcels"], *body["customs"]):
        for name, value in draw(extras).items():
            target.setdefault(name, value)
    body["consignee"].pop("email", None)
    numbers = draw(extras) | {"vat": VAT, "eori": None}
    return json.dumps(body).encode(), draw(extras), json.dumps(numbers).encode()


def leaf_paths(value: Any, path: str = "") -> set[str]:
    if isinstance(value, dict):
        return set().union(
            *(leaf_paths(inner, f"{path}.{name}" if path else name) for name, inner in value.items()), set()
        )
    if isinstance(value, list):
        return set().union(*(leaf_paths(inner, f"{path}[]") for inner in value), set())
    return {path}


def allowed_paths() -> dict[tuple[str, int], set[str]]:
    lanes = [yaml.safe_load(file.read_text()) for file in LANES.glob("*.yaml")]
    return {
        (lane["id"], lane["version"]): {field["to"] for field in lane["fields"]}
        | set(lane["constants"])
        | set(lane.get("wrap", {}).get("to", ()))
        | set(lane.get("registration", {}).values())
        for lane in lanes
    }


async def ledger(stack: Stack) -> dict[Any, Any]:
    connection = await asyncpg.connect(stack.dsn("logistics-gateway"))
    rows = await connection.fetch("SELECT * FROM disclosures")
    await connection.close()
    return {row["order_id"]: row for row in rows}


async def ship(stack: Stack, orders: list[tuple[bytes, dict[str, Any], bytes]]) -> tuple[int, int]:
    """Sends the orders through the gateway and compares. Returns how many left and how many could not."""
    plaintexts, extra, registrations = zip(*orders, strict=True)
    raw = await seal_orders(stack, plaintexts, extra, registrations)
    async with AsyncExitStack() as running:
        carriers = {name: await running.enter_async_context(Carrier(account_of(stack, name))) for name in CARRIERS}
        produce_orders(stack, raw)
        wanted = {order.order_id for order in raw}
        async with asyncio.timeout(120):
            while not wanted <= set(rows := await ledger(stack)):
                await asyncio.sleep(0.1)
        ours = {order_id: rows[order_id] for order_id in wanted}
        leaving = {row["shipment_id"]: row for row in ours.values() if row["state"] in ("recorded", "sent")}
        for name, carrier in carriers.items():
            theirs = {shipment for shipment, row in leaving.items() if row["carrier"] == name}
            await carrier.wait_until(lambda desk, theirs=theirs: theirs <= set(desk.shipments), timeout=300)  # type: ignore[misc]
    lanes = allowed_paths()
    numbered = 0
    for shipment_id, row in leaving.items():
        opened = carriers[row["carrier"]].desk.shipments[shipment_id]
        assert leaf_paths(opened) <= lanes[row["lane"], row["lane_version"]]
        assert SECRET not in json.dumps(opened)
        lists_vat = "registration.vat" in row["fields"]
        assert (VAT in json.dumps(opened)) is lists_vat is ("customs" in opened)
        numbered += lists_vat
        assert {path.partition(".")[0] for path in leaf_paths(opened)} <= {
            "shipper",
            "recipient",
            "parcels",
            "parcels[]",
            "customs",
            "payment",
            "service",
        }
    assert 0 < numbered < len(leaving)
    return len(leaving), len(ours) - len(leaving)


@pytest.mark.timeout(400)
@pytest.mark.fault(22, "events with fields that only a later version knows")
def test_the_carrier_opens_nothing_but_the_fields_of_the_lane(stack: Stack) -> None:
    orders: list[tuple[bytes, dict[str, Any], bytes]] = []

    @settings(max_examples=80, deadline=None, phases=[Phase.generate], database=None)
    @given(hostile_orders())
    def collect(order: tuple[bytes, dict[str, Any], bytes]) -> None:
        orders.append(order)

    collect()
    shipped, blocked = asyncio.run(ship(stack, orders))
    print(f"\nhostile orders: {shipped} left within their lane, {blocked} could not leave")
    assert shipped >= 30


def test_a_record_key_at_the_carrier_says_nothing(stack: Stack) -> None:
    """The key is an HMAC: it is no id of ours, and two carriers have different ones for one person."""

    async def keys_of_carriers() -> list[set[bytes]]:
        async with AsyncExitStack() as running:
            carriers = [await running.enter_async_context(Carrier(account_of(stack, name))) for name in CARRIERS]
            for carrier in carriers:
                await carrier.wait_until(lambda desk: desk.raw > 0)
            return [{opened.record_key for opened in carrier.desk.opened} for carrier in carriers]

    rows = asyncio.run(ledger(stack))
    ids = {row[name] for row in rows.values() for name in ("order_id", "shipment_id", "subject_id")}
    theirs = asyncio.run(keys_of_carriers())
    assert all(theirs)
    assert len(set.union(*theirs)) == sum(map(len, theirs))
    keys = b" ".join(set.union(*theirs))
    assert not any(form in keys for each in ids for form in (each.bytes, each.hex.encode(), str(each).encode()))
