"""R1 on the whole system: what support corrects reaches the carrier that holds the old value."""

import json
import secrets
from contextlib import AsyncExitStack

from deploy.local.people import Crowd
from deploy.local.shop import Shop
from deploy.local.stack import Stack
from event_contracts.topics import CARRIERS
from logistics_gateway.domain import shipment_id_of
from tests.support.carrier import Carrier
from tests.support.shop_floor import until
from tests.support.stacks import account_of
from tests.support.staff import Staff

PATIENCE = 120.0


async def test_support_corrects_to_whom_an_order_goes_and_its_carrier_gets_the_new_version(stack: Stack) -> None:
    crowd, name = Crowd(secrets.randbits(32)), f"Corrected Name {secrets.token_hex(4)}"
    async with AsyncExitStack() as running:
        # They take the parcels and hand nothing over, so the orders stay under way.
        carriers = [
            await running.enter_async_context(Carrier(account_of(stack, each), ["acknowledged"])) for each in CARRIERS
        ]
        staff = await running.enter_async_context(Staff(stack))
        shop = Shop(stack.url("account"), stack.url("order"), stack.mailbox)
        running.push_async_callback(shop.close)
        who = await shop.register(next(crowd.customers(1)))
        order = await shop.place_order(who, crowd)
        shipment_id = shipment_id_of(order.order_id)

        def versions() -> list[str]:
            held = [
                json.dumps(each.shipment) for c in carriers for each in c.desk.opened if each.shipment_id == shipment_id
            ]
            return [content for content in held if name in content]

        async def has_parcel() -> bool:
            return any(shipment_id in carrier.desk.shipments for carrier in carriers)

        async def has_correction() -> bool:
            return bool(versions())

        await until(has_parcel, "a carrier holds the old value", PATIENCE)
        assert versions() == []
        consignee = {**order.body["consignee"], "name": name}
        right = {"delivery": {"order_id": str(order.order_id), "consignee": consignee}}
        state = await staff.completed(await staff.open("rectification", who.subject_id, rectification=right))
        assert (state["data_classes"], state["reason"]) == (["delivery"], "fulfilled")
        await until(has_correction, "the carrier holds the new one", PATIENCE)
