"""The main job on realistic input, from nothing, shown: `make demo`."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import uvloop

from deploy.local.controls import make_controls, plant
from deploy.local.people import PLACES, Crowd, Customer, Person
from deploy.local.scan import Findings, scan_stack
from deploy.local.services import ROOT
from deploy.local.shop import Placed, Registered, Shop, all_of
from deploy.local.showing import console, privacyctl, step
from deploy.local.stack import Stack
from event_contracts.topics import CARRIERS
from logistics_gateway.domain import shipment_id_of
from tests.demo import views
from tests.demo.rights import show_rights
from tests.support.carrier import Carrier
from tests.support.declarations import CARRIERS as MAPPED
from tests.support.declarations import declared
from tests.support.stacks import FAST_PASSWORDS, account_of

REPORT = ROOT / ".local" / "demo.json"
CUSTOMERS = 200
# Mails of several registrations go over one connection to the mail server.
AT_ONCE = 24
PATIENCE = 120.0


@dataclass
class Day:
    """What happened in the shop, and to whom."""

    people: list[Registered] = field(default_factory=list)
    orders: list[Placed] = field(default_factory=list)
    strangers: list[Person] = field(default_factory=list)

    @property
    def canaries(self) -> set[str]:
        persons = [who.customer.person for who in self.people] + self.strangers
        return {value for person in persons for value in person.canaries} | self.passwords

    @property
    def passwords(self) -> set[str]:
        """They are hashed before they are sealed, so that nobody ever opens one."""
        return {who.customer.password for who in self.people}

    @staticmethod
    def of(who: Registered) -> set[str]:
        """What only this person's own data says."""
        return {*who.customer.person.canaries, *(order.body["payment"]["token"] for order in who.orders)}


async def shop_for_a_day(shop: Shop, crowd: Crowd) -> Day:
    """Registrations, addresses, favourites, browsing, orders and gift orders."""
    day = Day()
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

    async def visit(who: Registered) -> list[Placed]:
        await shop.save_address(who)
        await shop.browse(who, crowd, now)
        await shop.add_favourite(who, "TEA-GREEN-100")
        placed = [await shop.place_order(who, crowd)]
        return placed + [await shop.place_order(who, crowd, friend) for friend in who.customer.friends]

    with step(f"{CUSTOMERS} people from {len(PLACES)} countries register and sign in"):
        customers: list[Customer] = list(crowd.customers(CUSTOMERS))
        day.people = await all_of(shop.register, customers, AT_ONCE)
        day.strangers = [friend for customer in customers for friend in customer.friends]
    with step("they keep addresses and favourites, browse, and order, some of them gifts"):
        day.orders = [order for orders in await all_of(visit, day.people, AT_ONCE) for order in orders]
    return day


async def wait_for_parcels(shop: Shop, carriers: list[Carrier], day: Day) -> None:
    """Until every order is delivered and its buyer has read so."""

    async def all_delivered(who: Registered) -> None:
        while sum(notice["kind"] == "delivered" for notice in await shop.notices(who)) < len(who.orders):
            await asyncio.sleep(0.1)

    try:
        async with asyncio.timeout(PATIENCE):
            while shipments_of(carriers) < len(day.orders):
                await asyncio.sleep(0.05)
            await all_of(all_delivered, day.people)
    except TimeoutError:
        raise RuntimeError(f"Not all parcels arrived within {PATIENCE:.0f} s; the logs of the stack say why.") from None


def shipments_of(carriers: list[Carrier]) -> int:
    return sum(len(carrier.desk.shipments) for carrier in carriers)


async def count_rows(stack: Stack, system: str, sql: str) -> int:
    connection = await asyncpg.connect(stack.dsn(system))
    try:
        return int(await connection.fetchval(sql))
    finally:
        await connection.close()


async def search(stack: Stack, day: Day) -> tuple[Findings, int, int]:
    """The findings, how many controls were planted and how many of them were found."""
    exports = stack.folder / "exports"
    exports.mkdir(exist_ok=True)
    folders = {"log": stack.logs, "export": exports}
    controls = make_controls(tuple(folders))
    admin_dsn = stack.postgres.admin_dsn
    await plant(controls, stack.kafka, admin_dsn, folders)
    planted = {control.value for control in controls}
    findings = await scan_stack(
        day.canaries | planted,
        kafka=stack.kafka.data_dir,
        postgres=stack.postgres.data_dir,
        admin_dsn=admin_dsn,
        folders=folders,
    )
    return findings, len(planted), len(planted & findings.values)


async def run() -> dict[str, Any]:
    """The whole demo; returns what goes into `.local/demo.json`."""
    started = time.monotonic()
    console.rule("[bold]The shop opens")
    stack = Stack(progress=lambda line: console.print(f"  [dim]{line}[/dim]"))
    # Hundreds of customers come from one address within seconds.
    stack.overrides["account"] = {**FAST_PASSWORDS, "LIMITS_FACTOR": "1000"}
    with stack:
        shop = Shop(stack.url("account"), stack.url("order"), stack.mailbox)
        async with AsyncExitStack() as running:
            running.push_async_callback(shop.close)
            carriers = [
                await running.enter_async_context(Carrier(account_of(stack, name), tracks=True)) for name in CARRIERS
            ]
            console.rule("[bold]A day in the shop")
            crowd = Crowd(secrets.randbits(32))
            day = await shop_for_a_day(shop, crowd)
            with step(f"{len(day.orders)} parcels reach their carriers, are acknowledged, handed over and delivered"):
                await wait_for_parcels(shop, carriers, day)
            who = next(person for person in day.people if person.customer.friends)
            await show(stack, shop, crowd, carriers, who)
            report = await count(stack, carriers, day)
            report |= await show_rights(stack, who, day.canaries - day.passwords, day.of(who))
        console.rule("[bold]Is anything in clear?")
        with step("every byte that Kafka, Postgres and the logs wrote is searched"):
            findings, controls, control_hits = await search(stack, day)
        clear = findings.values & day.canaries
        report |= {"canary_values": len(day.canaries), "canary_hits": len(clear)}
        report |= {"control_hits": control_hits, "controls": controls}
        views.show_search(console, findings, day.canaries, controls, control_hits)
    report["seconds"] = round(time.monotonic() - started, 1)
    return report


async def show(stack: Stack, shop: Shop, crowd: Crowd, carriers: list[Carrier], who: Registered) -> None:
    """A refused order, one order in its four forms, its customs papers, its parcel, and what is known of one person."""
    gift = who.orders[-1]
    console.rule("[bold]An order with a mistake")
    views.show_refusal(console, await shop.refusal(who, with_mistake(crowd, gift.consignee)))
    console.rule("[bold]One order, four times")
    shipments = [shipment for carrier in carriers for shipment in carrier.desk.shipments.values()]
    # By its id: a lane may send a long name in a shorter form.
    shipment_id = shipment_id_of(gift.order_id)
    at_carrier = next(c.desk.shipments[shipment_id] for c in carriers if shipment_id in c.desk.shipments)
    await views.show_order(console, stack, gift, at_carrier)
    console.rule("[bold]What carriers declare to customs")
    abroad = next(shipment for shipment in shipments if "customs" in shipment)
    views.show_declarations(console, abroad, {carrier: declared(carrier, abroad) for carrier in MAPPED})
    console.rule("[bold]Where the parcel is")
    views.show_parcel(console, await shop.follow(who, gift.order_id))
    console.rule("[bold]What is held about one person")
    console.print(
        "[dim]$ privacyctl find --by email   (the address is asked for, never typed on the command line)[/dim]"
    )
    console.print(await privacyctl(stack, "find", "--by", "email", term=who.customer.person.email + "\n"))
    console.print(f"[dim]$ privacyctl inventory {who.subject_id}[/dim]")
    console.print(await privacyctl(stack, "inventory", str(who.subject_id)))


def with_mistake(crowd: Crowd, consignee: Person) -> dict[str, Any]:
    """An order whose phone number is too short."""
    body = crowd.order(consignee, gift=True)
    body["consignee"]["phone"] = "12"
    return body


async def count(stack: Stack, carriers: list[Carrier], day: Day) -> dict[str, Any]:
    return {
        "customers": len(day.people),
        "orders": len(day.orders),
        "shipments": shipments_of(carriers),
        "acknowledged": await count_rows(
            stack, "logistics-gateway", "SELECT count(*) FROM disclosures WHERE acknowledged_at IS NOT NULL"
        ),
        "inventory_rows": await count_rows(stack, "privacy", "SELECT count(*) FROM inventory"),
    }


def main() -> None:
    try:
        report = uvloop.run(run())
    except KeyboardInterrupt:
        console.print("stopped; nothing is left running")
        raise SystemExit(130) from None
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(report, indent=2) + "\n")
    console.rule("[bold]Done")
    for name, value in report.items():
        console.print(f"  {name:<22} {value}")
    console.print(f"\n  nothing is left running; the figures are in {REPORT.relative_to(ROOT)}")
    shipped = report["orders"] == report["shipments"] == report["acknowledged"]
    erased = not report["replay_opened"] and report["replay_others_opened"] == report["replay_others"]
    proven = erased and report["certificate_verified"]
    if report["canary_hits"] or report["control_hits"] != report["controls"] or not shipped or not proven:
        console.print("  [red]the demo did not show what it should: see the figures above[/red]")
        raise SystemExit(1)


if __name__ == "__main__":
    main()
