"""The vault's background work goes on after any failure, and its health says so meanwhile."""

import asyncio
from datetime import timedelta

import pytest

from servicekit.core.clock import FakeClock
from servicekit.core.errors import KitError, Unavailable
from servicekit.core.health import Health
from vault_service.jobs import every

CANARY = "Ada-Quillfeather-5512"


class Failing:
    """Work that fails in each of these ways, and then succeeds for ever."""

    def __init__(self, *ways: Exception) -> None:
        self._ways = list(ways)
        self.turns = 0

    async def __call__(self) -> None:
        self.turns += 1
        if self._ways:
            raise self._ways.pop(0)


class Turns:
    """Stands for `asyncio.sleep` in the module: each turn ends here, and the next one begins when the test says so."""

    def __init__(self) -> None:
        self.pauses: list[float] = []
        self._ended, self._go_on = asyncio.Semaphore(0), asyncio.Semaphore(0)

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self._ended.release()
        await self._go_on.acquire()

    async def ended(self) -> None:
        await self._ended.acquire()

    async def next(self) -> None:
        self._go_on.release()
        await self.ended()


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> Turns:
    turns = Turns()
    monkeypatch.setattr("vault_service.jobs.asyncio.sleep", turns.sleep)
    return turns


@pytest.mark.parametrize(
    "failure",
    [ValueError(CANARY), RuntimeError(CANARY), KeyError(CANARY), TimeoutError(), AssertionError()],
    ids=lambda failure: type(failure).__name__,
)
async def test_a_loop_goes_on_after_a_failure_that_nobody_expected(
    turns: Turns, caplog: pytest.LogCaptureFixture, failure: Exception
) -> None:
    health, work = Health("vault", "jobs", "1", FakeClock()), Failing(failure)
    async with every(3600, "prune", work, health.loop("prune", timedelta(hours=3))):
        await asyncio.wait_for(turns.ended(), 60)
        assert health.report()["problems"] == {"prune": "failed"}
        await asyncio.wait_for(turns.next(), 60)
        assert health.report()["ok"]
    assert work.turns == 2
    assert turns.pauses == [10, 3600]
    (record,) = caplog.records
    said = vars(record)["_safe_fields"]
    assert (said["event"], said["loop"], record.levelname) == ("loop_failed", "prune", "ERROR")
    assert said["error"]["type"].endswith(type(failure).__name__)
    assert CANARY not in str(vars(record))


async def test_what_is_away_shows_once_it_has_been_away_for_long(turns: Turns) -> None:
    clock = FakeClock()
    health, work = Health("vault", "jobs", "1", clock), Failing()
    async with every(1, "publish", work, health.loop("publish", timedelta(seconds=60))):
        await asyncio.wait_for(turns.ended(), 60)
        work._ways += [Unavailable(), KitError()]
        for _ in range(2):
            clock.tick(20)
            await asyncio.wait_for(turns.next(), 60)
            assert health.report()["ok"]
        clock.tick(30)
        assert health.report()["problems"] == {"publish": "no_sign_of_life"}
        await asyncio.wait_for(turns.next(), 60)
        assert health.report()["ok"]


async def test_a_loop_ends_with_its_context(turns: Turns) -> None:
    work = Failing()
    async with every(1, "counts", work, Health("vault", "api", "1", FakeClock()).loop("counts")):
        await asyncio.wait_for(turns.ended(), 60)
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
