"""Work on a batch of requests. A request that fails by itself is put off and tried again; it does not hold up the others."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

from privacy_service.sagas import store
from privacy_service.sagas.machine import State, backoff
from privacy_service.sagas.policies import rules_of
from privacy_service.vault_revocations import DOUBTS, may_be_to_blame
from servicekit import Kit, Tx, get_log
from servicekit.core.errors import Doubtful
from servicekit.core.logs import code
from servicekit.core.metrics import SET_ASIDE

T = TypeVar("T")
log = get_log("rights")
# Locks at most so many, notes in the list what it took, and works on it.
Work = Callable[[Tx, int, list[T]], Awaitable[None]]


async def in_batches(
    kit: Kit, name: str, limit: int, work: Work[T], put_off: Callable[[list[T], Exception], Awaitable[None]]
) -> bool:
    """One transaction for a batch. When it fails, one for each of it, and what fails alone is put off.

    True if there may be more. Raises what is in `NOT_TO_BLAME`, but a statement that times out for one request alone is
    put off as well while the database executes others.
    """
    taken: list[T] = []

    async def attempt(most: int) -> None:
        async def run(tx: Tx) -> None:
            taken.clear()
            await work(tx, most, taken)

        await kit.run_tx(name, run)

    try:
        await attempt(limit)
        return len(taken) >= limit
    except Exception as error:
        if not taken or not await may_be_to_blame(kit, error):
            raise
        log.warning("batch_failed", work=code(name), error=error, taken=len(taken))
    doubts = 0
    for _ in range(len(taken)):
        try:
            await attempt(1)
        except Exception as error:
            if not taken or not await may_be_to_blame(kit, error):
                raise
            await put_off(list(taken), error)
            doubts += isinstance(error, Doubtful)
            if doubts >= DOUBTS:
                raise
    return True


async def put_off(kit: Kit, name: str, states: list[State], error: Exception) -> None:
    """Try these again after a pause that grows. Until then their state names this service as the one that is waited for."""
    rules, now = rules_of(kit, kit.policy), kit.clock.now()
    for request_id in {state.request_id for state in states}:
        SET_ASIDE.labels(name).inc()
        log.error("set_aside", work=code(name), request_id=request_id, error=error)
    until = now + max(backoff(replace(state, attempts=state.attempts + 1), rules) for state in states)
    await kit.run_tx("put_off", lambda tx: store.put_off(tx, states, until))
