"""Numbers of a consignee with tax and customs authorities: sealed apart, and sent only where a lane lists them."""

import json
from typing import Any
from uuid import UUID

from event_contracts.order import Registration
from logistics_gateway.handlers import retry_blocked
from logistics_gateway.sending import catch_up, send_stale
from servicekit.kit import Kit
from tests.support.infra import postgres_server
from tests.support.ledgers import Order, Wire, apply, desk_of, kit

__all__ = ["kit", "postgres_server"]

NUMBERS = Registration(vat="GB123456789", eori="GB123456789000", tax_id=None)


def left(kit: Kit, wire: Wire, order: Order) -> dict[str, Any]:
    """The last version that the carrier holds."""
    shipment = desk_of(kit, wire).shipments[order.shipment_id]
    assert isinstance(shipment, dict)
    return shipment


def numbers_in(shipment: dict[str, Any]) -> tuple[str | None, str | None]:
    return shipment["recipient"].get("federal_tax_id"), shipment["customs"].get("options", {}).get("eori_number")


async def test_the_lane_sends_the_numbers_that_the_order_has(kit: Kit) -> None:
    wire = kit.own.producer = Wire(kit)
    order, other = Order(kit), Order(kit)
    await apply(kit, await order.placed_with(NUMBERS), await other.placed())
    assert numbers_in(left(kit, wire, order)) == ("GB123456789", "GB123456789000")
    assert numbers_in(left(kit, wire, other)) == (None, None)
    fields = set((await order.line())["fields"])
    assert {"registration.vat", "registration.eori"} <= fields
    assert "registration.tax_id" not in fields
    (event, plain) = [
        json.loads(row["body"])["fields"] for row in await kit.db.fetch("SELECT body FROM kit.outbox ORDER BY number")
    ]
    assert set(event) - set(plain) == {"registration.vat", "registration.eori"}


async def test_a_lane_without_numbers_has_none_opened(kit: Kit) -> None:
    """L9: the gateway does not even ask for the key."""
    wire = kit.own.producer = Wire(kit)
    order, vault = Order(kit), kit.vault
    asked: list[UUID] = []
    lease = vault.lease

    async def noted(purpose: str, names: Any) -> Any:
        asked.extend(name.key_id for name in names)
        return await lease(purpose, names)

    vault.lease = noted  # type: ignore[method-assign]
    await apply(kit, await order.placed_with(NUMBERS, country="DE", postal_code="53113"))
    assert asked == [order.key_id]
    assert "federal_tax_id" not in left(kit, wire, order)["recipient"]


async def test_a_correction_keeps_the_numbers(kit: Kit) -> None:
    """It replaces all that the carrier has, and brings no registration of its own."""
    wire = kit.own.producer = Wire(kit)
    order = Order(kit)
    await apply(kit, await order.placed_with(NUMBERS))
    await catch_up(kit, [])
    await apply(kit, await order.corrected(2, name="Another name"))
    shipment = left(kit, wire, order)
    assert (shipment["recipient"]["person_name"], *numbers_in(shipment)) == ("Another name", NUMBERS.vat, NUMBERS.eori)


async def test_what_is_sent_again_has_the_numbers_too(kit: Kit) -> None:
    """The digest in the ledger is of the message with them: without, nothing would be sent again."""
    wire = kit.own.producer = Wire(kit)
    order = Order(kit)
    wire.is_cut = True
    placed = await order.placed_with(NUMBERS)
    try:
        await apply(kit, placed)
    except OSError:
        wire.is_cut = False
    await kit.db.fetch("UPDATE disclosures SET recorded_at = recorded_at - interval '1 day'")
    await send_stale(kit)
    assert numbers_in(left(kit, wire, order)) == (NUMBERS.vat, NUMBERS.eori)


async def test_erased_numbers_do_not_keep_the_parcel(kit: Kit) -> None:
    wire = kit.own.producer = Wire(kit)
    order, vault = Order(kit), kit.vault
    placed = await order.placed_with(NUMBERS)
    vault.erased.add(order.registration_key_id)  # type: ignore[attr-defined] # of the fake
    await apply(kit, placed)
    assert numbers_in(left(kit, wire, order)) == (None, None)
    assert (await order.line())["state"] in ("recorded", "sent")


async def test_numbers_that_are_erased_between_opening_and_recording_do_not_leave(kit: Kit) -> None:
    """L3: the revocation is here already; the message that was built with them is not sent, the next one has none."""
    wire = kit.own.producer = Wire(kit)
    order, vault = Order(kit), kit.vault
    placed = await order.placed_with(NUMBERS)
    await kit.db.fetch("INSERT INTO kit.revoked_keys VALUES ($1, $2, 1)", order.registration_key_id, order.subject_id)
    await apply(kit, placed)
    assert wire.sent == []
    assert ((await order.line())["state"], (await order.line())["reason"]) == ("blocked", "registration_erased")
    assert await kit.db.fetch("SELECT FROM registrations") == []
    vault.erased.add(order.registration_key_id)  # type: ignore[attr-defined]
    await kit.db.fetch(
        "UPDATE disclosures SET next_try_at = next_try_at - interval '1 day', recorded_at = recorded_at - interval '1 day'"
    )
    await retry_blocked(kit)
    await kit.db.fetch("UPDATE disclosures SET recorded_at = recorded_at - interval '1 day'")
    await send_stale(kit)
    assert numbers_in(left(kit, wire, order)) == (None, None)
