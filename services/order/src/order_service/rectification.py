"""Support's correction of whom an order goes to, on the privacy service's command: a new version, as by the buyer.

The value comes sealed under the key of the order's delivery. It is opened to be checked like a buyer's, and sealed again; a
value that is in force already makes no version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from event_contracts import Erased, Sealed
from event_contracts.order import Delivery, DeliveryCorrection
from event_contracts.privacy import HoldingsRectified, RectifyDelivery, Refusal
from order_service import store
from order_service.corrections import put_delivery
from order_service.domain import Status, corrected, is_correctable
from order_service.quotes import OrderContext, check_correction
from servicekit import Kit, Opening, Received, Record, RecordId, Tx
from servicekit.core.errors import Conflict, Fenced, Invalid, InvalidFields

PURPOSE = "rights_request"
_MOST_MISFITS: Final = 20


@dataclass(frozen=True)
class Change:
    """One command: the version of the delivery that it was prepared on (0: there is none), and what is to be stored."""

    command: RectifyDelivery
    number: int = 0
    delivery: Sealed[Delivery] | None = None
    refused: Refusal | None = None
    misfits: tuple[str, ...] = ()


async def prepare_rectification(kit: Kit, events: Sequence[Received[RectifyDelivery]]) -> dict[RecordId, Change]:
    """Opens and seals what each command brings."""
    return {received.record_id: await _prepare(kit, received.event) for received in events}


async def _prepare(kit: Kit, command: RectifyDelivery) -> Change:
    row = await store.find_order(kit.db, command.order_id)
    if row is None or row["consignee_id"] != command.subject_id:
        return Change(command, refused=Refusal.NOT_UNDER_WAY)
    if row["delivery"] is None:
        return Change(command)
    number = row["delivery_number"]
    wanted, held = await _opened(kit, command.delivery, row)
    if isinstance(wanted, Erased) or isinstance(held, Erased):
        return Change(command)
    if not is_correctable(Status(row["status"])):
        return Change(command, number, refused=Refusal.NOT_UNDER_WAY)
    try:
        delivery = corrected(held, wanted.consignee)
        if delivery == held:
            return Change(command, number)
        check_correction(kit.context(OrderContext).routes, held, delivery)
        return Change(command, number, await kit.seal(delivery, subject=command.subject_id, anchor=command.order_id))
    except InvalidFields as unfit:
        codes = dict.fromkeys(field.code for field in unfit.fields)
        return Change(command, number, refused=Refusal.NOT_UNDER_WAY, misfits=tuple(codes)[:_MOST_MISFITS])
    except Invalid:
        return Change(command, number, refused=Refusal.NOT_UNDER_WAY)
    except Fenced:
        return Change(command)


async def _opened(kit: Kit, wanted: Sealed[DeliveryCorrection], row: Record) -> tuple[Any, Any]:
    """The correction and the delivery in force, `Erased` where it is."""
    subject, anchor = row["consignee_id"], row["order_id"]
    openings: list[Opening[Any]] = [
        Opening(wanted, DeliveryCorrection, subject, anchor),
        Opening(Sealed(row["delivery"]), Delivery, subject, anchor),
    ]
    correction, held = await kit.open_many(openings, purpose=PURPOSE)
    return correction, held


async def apply_rectification(
    kit: Kit, tx: Tx, events: Sequence[Received[RectifyDelivery]], changes: Mapping[RecordId, Change]
) -> None:
    """Makes the new versions and answers. Raises `Conflict`, and is tried again, if a delivery changed meanwhile."""
    for received in events:
        change = changes[received.record_id]
        number, refused = change.number, change.refused
        if change.delivery is not None:
            row = await store.lock_order_of(tx, change.command.order_id, change.command.subject_id)
            if row is None or not is_correctable(Status(row["status"])):
                number, refused = 0, Refusal.NOT_UNDER_WAY
            else:
                number += 1
                if not await put_delivery(tx, row, number, change.delivery):
                    raise Conflict
        answer = HoldingsRectified(
            request_id=change.command.request_id,
            subject_id=change.command.subject_id,
            system=kit.name,
            number=0 if refused else number,
            refused=refused,
            misfits=change.misfits,
        )
        await tx.emit(answer)
