"""A whole system at work inside one test: a stack, both carriers, and a storefront that places orders."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from deploy.local.stack import Stack
from event_contracts.topics import CARRIERS
from tests.support.carrier import Carrier
from tests.support.end_states import WITH_OUTBOX, under_way, unpublished
from tests.support.stacks import account_of
from tests.support.storefront import Storefront

SETTLE_TIMEOUT = 600.0


@dataclass
class Floor:
    """`carriers` by name."""

    stack: Stack
    carriers: dict[str, Carrier]
    storefront: Storefront

    async def settle(self, timeout: float = SETTLE_TIMEOUT) -> None:
        """Waits until every order is delivered and nothing waits to be published. Raises `AssertionError` with what is left."""

        async def settled() -> bool:
            left = [await unpublished(self.stack, system) for system in WITH_OUTBOX]
            return not any(left) and await under_way(self.stack) == 0

        await until(settled, "every order is delivered and published", timeout)


@asynccontextmanager
async def open_floor(stack: Stack) -> AsyncIterator[Floor]:
    """The stack runs already and stays the caller's."""
    async with AsyncExitStack() as running:
        carriers = {name: await running.enter_async_context(Carrier(account_of(stack, name))) for name in CARRIERS}
        storefront = await Storefront.open(stack)
        running.push_async_callback(storefront.close)
        yield Floor(stack, carriers, storefront)


async def until(true: Callable[[], Awaitable[bool]], what: str, timeout: float, pause: float = 0.2) -> None:
    """Looks again and again until it is true. Raises `AssertionError` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not await true():
        assert time.monotonic() < deadline, f"not within {timeout:.0f} s: {what}"
        await asyncio.sleep(pause)
