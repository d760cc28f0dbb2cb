"""Shipments that wait: each is announced, counted by reason, seen by staff, and ends. Step by step on Postgres."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.local import keys
from event_contracts.carrier import ReplyKind
from logistics_gateway import stuck_store
from logistics_gateway.handlers import retry_blocked
from logistics_gateway.http import make_router
from logistics_gateway.sending import send_stale
from logistics_gateway.stuck import end_blocked, end_silent
from servicekit.core.health import Health
from servicekit.core.metrics import SHIPMENTS_BLOCKED
from servicekit.core.settings import Settings
from servicekit.http.app import make_app
from servicekit.kit import Kit
from tests.support.asgi import open_client
from tests.support.infra import postgres_server
from tests.support.ledgers import Order, Wire, answer, apply, desk_of, emitted, kit

__all__ = ["kit", "postgres_server"]

# No lane serves it: ISO 3166-1 reserves these codes for users.
NOWHERE = {"country": "XA"}


async def sent(kit: Kit) -> Order:
    kit.own.producer = Wire(kit)
    order = Order(kit)
    await apply(kit, await order.placed())
    await send_stale_now(kit)
    return order


async def send_stale_now(kit: Kit) -> None:
    """Sends and marks what is recorded, whatever its age."""
    await kit.db.fetch("UPDATE disclosures SET recorded_at = recorded_at - interval '1 hour' WHERE state = 'recorded'")
    await send_stale(kit)


async def blocked(kit: Kit) -> Order:
    order = Order(kit)
    await apply(kit, await order.placed(**NOWHERE))
    return order


async def age(kit: Kit, column: str, days: int) -> None:
    await kit.db.fetch(f"UPDATE disclosures SET {column} = {column} - make_interval(days => $1)", days)


async def test_a_blocked_shipment_is_announced_once(kit: Kit) -> None:
    order = await blocked(kit)
    for _ in range(3):
        await kit.db.fetch("UPDATE disclosures SET next_try_at = now()")
        await retry_blocked(kit)
    assert [(e["order_id"], e["reason"]) for e in await emitted(kit, "ShipmentBlocked")] == [
        (str(order.order_id), "no_lane")
    ]
    await end_blocked(kit)
    assert SHIPMENTS_BLOCKED.labels("no_lane")._value.get() == 1


async def test_blocked_shipments_are_counted_up_to_a_limit(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stuck_store, "COUNTED", 2)
    for _ in range(3):
        await blocked(kit)
    await end_blocked(kit)
    assert SHIPMENTS_BLOCKED.labels("no_lane")._value.get() == 2


async def test_a_shipment_that_can_leave_again_is_announced(kit: Kit) -> None:
    kit.own.producer = Wire(kit)
    order = await blocked(kit)
    await apply(kit, await order.corrected(2, country="GB"))
    assert (await order.line())["blocked_since"] is None
    assert [e["order_id"] for e in await emitted(kit, "ShipmentUnblocked")] == [str(order.order_id)]
    await apply(kit, await order.corrected(3, **NOWHERE))
    assert (await order.line())["state"] == "blocked"
    assert len(await emitted(kit, "ShipmentBlocked")) == 2


async def test_what_is_blocked_for_the_longest_time_ends_as_undeliverable(kit: Kit) -> None:
    order, younger = await blocked(kit), await blocked(kit)
    await kit.db.fetch(
        "UPDATE disclosures SET blocked_since = blocked_since - interval '15 days' WHERE order_id = $1", order.order_id
    )
    await end_blocked(kit)
    await end_blocked(kit)
    line = await order.line()
    assert (line["state"], line["reason"], line["delivery"], line["progress"]) == (
        "withheld",
        "no_lane",
        None,
        "undeliverable",
    )
    assert [(e["order_id"], e["kind"]) for e in await emitted(kit, "ShipmentProgressed")] == [
        (str(order.order_id), "undeliverable")
    ]
    assert (await younger.line())["state"] == "blocked"


async def test_a_carrier_that_may_have_an_older_version_is_told_to_delete_it(kit: Kit) -> None:
    order = await sent(kit)
    await answer(kit, order.shipment_id, ReplyKind.ACKNOWLEDGED)
    await apply(kit, await order.corrected(2, **NOWHERE))
    await age(kit, "blocked_since", 15)
    await end_blocked(kit)
    assert (await order.line())["recall"] == "due"
    await send_stale(kit)
    assert desk_of(kit, kit.own.producer).recalled == {order.shipment_id}


async def test_a_parcel_that_went_before_its_correction_could_goes_on(kit: Kit) -> None:
    order = await sent(kit)
    await apply(kit, await order.corrected(2, **NOWHERE))
    await answer(kit, order.shipment_id, ReplyKind.HANDED_OVER)
    await age(kit, "blocked_since", 15)
    await end_blocked(kit)
    line = await order.line()
    assert (line["state"], line["recall"], line["progress"]) == ("sent", None, "handed_over")
    assert await emitted(kit, "ShipmentProgressed") == []


@pytest.mark.parametrize("heard", [(), ("acknowledged", "in_transit")])
async def test_a_silent_carriers_parcel_ends_after_the_lanes_term(kit: Kit, heard: tuple[str, ...]) -> None:
    order = await sent(kit)
    for kind in heard:
        await answer(kit, order.shipment_id, ReplyKind(kind))
    for column, days, ends in (("not_after", 0, 0), ("recorded_at", 29, 0), ("recorded_at", 2, 1)):
        # All times of the line go back, as if it were so much older.
        for name in ("not_after", "recorded_at", "sent_at", "heard_at"):
            await age(kit, name, days)
        await end_silent(kit)
        events = await emitted(kit, "ShipmentProgressed")
        assert [e["kind"] for e in events].count("unknown") == ends, column
    line = await order.line()
    assert (line["progress"], line["state"]) == ("unknown", "sent")
    assert line["ended_at"] is not None


async def test_a_carrier_that_still_speaks_is_not_silent(kit: Kit) -> None:
    order = await sent(kit)
    for name in ("not_after", "recorded_at", "sent_at"):
        await age(kit, name, 40)
    await answer(kit, order.shipment_id, ReplyKind.IN_TRANSIT)
    await end_silent(kit)
    assert (await order.line())["progress"] == "in_transit"


async def test_a_late_word_still_counts_after_silence(kit: Kit) -> None:
    order = await sent(kit)
    for name in ("not_after", "recorded_at", "sent_at"):
        await age(kit, name, 40)
    await end_silent(kit)
    await answer(kit, order.shipment_id, ReplyKind.IN_TRANSIT)
    assert (await order.line())["progress"] == "unknown"
    await answer(kit, order.shipment_id, ReplyKind.DELIVERED)
    assert (await order.line())["progress"] == "delivered"


@pytest.fixture
async def desk(kit: Kit, tmp_path: Path) -> AsyncIterator[tuple[httpx.AsyncClient, Path]]:
    folder = tmp_path / "keys"
    keys.write_keys(folder, ["logistics-gateway"], [])
    settings = Settings(staff_public_key_file=folder / "staff.pub.pem")
    app = make_app(settings, kit.clock, Health("gateway", "api", "1", kit.clock), [make_router(kit)], limits=kit.limits)
    async with open_client(app) as http:
        yield http, folder


async def test_staff_see_what_waits_page_by_page_and_nothing_personal(
    kit: Kit, desk: tuple[httpx.AsyncClient, Path]
) -> None:
    http, folder = desk
    support = {"Authorization": f"Bearer {keys.staff_token(folder, 'support')}"}
    orders = [await blocked(kit) for _ in range(3)]
    parcel = await sent(kit)
    found: list[dict[str, Any]] = []
    cursor = ""
    while cursor is not None:
        page = (await http.get(f"/v1/shipments?state=blocked&limit=2{cursor}", headers=support)).json()
        found += page["items"]
        cursor = page["next"] and f"&cursor={page['next']}"
    assert [each["order_id"] for each in found] == [str(order.order_id) for order in orders]
    assert {each["reason"] for each in found} == {"no_lane"}
    assert (await http.get("/v1/shipments?state=silent", headers=support)).json()["items"] == []
    for name in ("not_after", "recorded_at", "sent_at"):
        await age(kit, name, 8)
    (silent,) = (await http.get("/v1/shipments?state=silent", headers=support)).json()["items"]
    assert silent["shipment_id"] == str(parcel.shipment_id)
    assert (await http.get("/v1/shipments?state=blocked")).status_code == 401
    other = {"Authorization": f"Bearer {keys.staff_token(folder, 'warehouse')}"}
    assert (await http.get("/v1/shipments?state=blocked", headers=other)).status_code == 403
