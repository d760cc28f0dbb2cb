"""The vault's background work: done again and again, whatever goes wrong in one turn."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from servicekit import get_log
from servicekit.core.errors import KitError
from servicekit.core.health import Progress
from servicekit.core.logs import code

# After a failure nobody waits for an hour to see whether it is over.
_LONGEST_PAUSE_AFTER_FAILURE: Final = 10.0

log = get_log("vault")


@asynccontextmanager
async def every(
    seconds: float, name: str, work: Callable[[], Awaitable[None]], progress: Progress
) -> AsyncIterator[None]:
    """Runs `work` now, and again every so often, until the context is left. A failure never ends the loop.

    What is expected (`KitError`: something is away) shows in the health once no turn has succeeded for as long as its
    `progress` allows; anything else shows at once, until a turn succeeds.
    """

    async def loop() -> None:
        while True:
            pause = min(seconds, _LONGEST_PAUSE_AFTER_FAILURE)
            try:
                await work()
                progress.beat()
                pause = seconds
            except KitError as error:
                log.warning("loop_failed", loop=code(name), error=error)
            except Exception as error:  # noqa: BLE001 - whatever it is, the loop must not end unseen
                progress.fail()
                log.error("loop_failed", loop=code(name), error=error)
            await asyncio.sleep(pause)

    task = asyncio.create_task(loop())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
