"""`erasure_*`: from approval to certificate, carriers' answers outstanding, nobody crashed, no time to think again."""

from __future__ import annotations

import secrets
import statistics
import time
from collections.abc import AsyncIterator

from deploy.local.people import Crowd
from deploy.local.shop import Registered, Shop, all_of
from deploy.local.stack import Stack
from tests.bench.figures import Figure
from tests.support.attacker import raid
from tests.support.end_states import rows
from tests.support.shop_floor import until
from tests.support.staff import Staff, seconds_to_certificate


async def run(stack: Stack, people: int) -> AsyncIterator[Figure]:
    """All approvals at once, which is harder than an open loop: a queue builds up from the first moment."""
    shop, crowd = Shop(stack.url("account"), stack.url("order")), Crowd(secrets.randbits(32))
    try:
        registered = await all_of(shop.register, list(crowd.customers(people)))

        async def visit(who: Registered) -> None:
            await shop.save_address(who)
            await shop.place_order(who, crowd)

        await all_of(visit, registered)
    finally:
        await shop.close()

    async def handed_over() -> bool:
        query = (
            "SELECT count(*) FROM inventory WHERE system = 'order' AND subject_id = ANY($1) AND data_class = 'delivery'"
        )
        return int((await rows(stack, "privacy", query, [who.subject_id for who in registered]))[0][0]) >= people

    await until(handed_over, "the inventory knows every order", 300)
    async with Staff(stack) as staff:
        requests = await all_of(lambda who: staff.open("erasure", who.subject_id), registered)
        await all_of(staff.previewed, requests)
        started = time.monotonic()
        await all_of(staff.approve, requests)
        states = await all_of(staff.certified, requests)
        took = time.monotonic() - started
        certificates = await all_of(staff.certificate, requests)
    seconds = sorted(seconds_to_certificate(*pair) for pair in zip(states, certificates, strict=True))
    loot = await raid(stack)
    names = {who.customer.person.email for who in registered}
    assert not names & loot.values, "an attacker still opens what was erased"
    yield Figure("erasure_p50_ms", statistics.median(seconds) * 1000, "ms", "<= 300", "all approved at once")
    yield Figure("erasure_p99_ms", seconds[int((people - 1) * 0.99)] * 1000, "ms", "<= 2000", "all approved at once")
    yield Figure("erasure_per_s", people / took, "1/s", ">= 200", f"{people} people")
