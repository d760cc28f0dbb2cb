"""Opens registrations only for lanes that send some of their numbers, with one vault call for a batch."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from msgspec import Struct

from event_contracts import Erased, Sealed
from event_contracts.order import OrderPlaced, Registration
from lanes.projection import Route
from logistics_gateway import registrations_store
from logistics_gateway.domain import PURPOSE
from servicekit import Kit, Opening, Received, Tx


class Wanted(Struct, frozen=True):
    """An order before its projection. `route` is None when no lane takes it."""

    order_id: UUID
    subject_id: UUID
    route: Route | None


def stated(events: Iterable[Received[Any]]) -> dict[UUID, tuple[UUID, Sealed[Registration]]]:
    """By order: the consignee and the sealed registration of the orders that are placed with one."""
    orders = (received.event for received in events if type(received.event) is OrderPlaced)
    return {order.order_id: (order.consignee_id, order.registration) for order in orders if order.registration}


async def keep(tx: Tx, events: Iterable[Received[Any]], revoked: Container[UUID]) -> None:
    """Keeps what the batch states, for corrections and what is sent again; not what is erased already."""
    found = stated(events).items()
    await registrations_store.keep(
        tx, [(subject, order, part) for order, (subject, part) in found if part.key_id not in revoked]
    )


async def open_registrations(
    kit: Kit, wanted: Sequence[Wanted], events: Sequence[Received[Any]] = ()
) -> Mapping[UUID, tuple[Registration, UUID]]:
    """By order: the registration, and the id of its key. Without one are orders that have none, or whose lane sends none of it,
    and those whose registration is erased. Of orders that `events` do not place it is looked up.
    """
    listed = [each for each in wanted if each.route is not None and each.route.lane.registration]
    if not listed:
        return {}
    sealed = {order_id: part for order_id, (_, part) in stated(events).items()}
    placed = {received.event.order_id for received in events if type(received.event) is OrderPlaced}
    unknown = [(each.subject_id, each.order_id) for each in listed if each.order_id not in placed]
    if unknown:
        sealed |= await registrations_store.kept(kit.db, unknown)
    found = [(each, sealed[each.order_id]) for each in listed if each.order_id in sealed]
    if not found:
        return {}
    openings = [Opening(part, Registration, each.subject_id, each.order_id) for each, part in found]
    opened = await kit.open_many(openings, purpose=PURPOSE)
    return {
        each.order_id: (registration, part.key_id)
        for (each, part), registration in zip(found, opened, strict=True)
        if not isinstance(registration, Erased)
    }
