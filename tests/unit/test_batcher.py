"""Questions that are asked together: who asks first does not wait, and an error is that of whoever caused it."""

import asyncio
from collections.abc import Sequence

import pytest

from servicekit.core.batcher import Batcher
from servicekit.core.errors import Fenced, Unavailable


class Desk:
    """Doubles numbers. It is busy until `open` is set; 13 is nobody's business but the asker's, and 0 breaks it."""

    def __init__(self, most: int = 10) -> None:
        self.asked: list[list[int]] = []
        self.open = asyncio.Event()
        self.batcher: Batcher[int, int] = Batcher(self._ask, (Fenced,), most)

    async def _ask(self, numbers: Sequence[int]) -> list[int]:
        self.asked.append(list(numbers))
        await self.open.wait()
        if 13 in numbers:
            raise Fenced
        if 0 in numbers:
            raise Unavailable
        return [2 * number for number in numbers]

    def questions(self, *numbers: int) -> list[asyncio.Task[int]]:
        return [asyncio.ensure_future(self.batcher.answer(number)) for number in numbers]


async def settled() -> None:
    """Everybody has had a turn."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_comes_while_a_question_is_under_way_goes_together() -> None:
    desk = Desk(most=3)
    first = desk.questions(1)
    await settled()
    rest = desk.questions(2, 3, 4, 5)
    await settled()
    assert desk.asked == [[1]]
    desk.open.set()
    assert await asyncio.gather(*first, *rest) == [2, 4, 6, 8, 10]
    assert desk.asked == [[1], [2, 3, 4], [5]]


async def test_one_that_is_refused_takes_nobody_with_it() -> None:
    desk = Desk()
    asked = desk.questions(1)
    await settled()
    asked += desk.questions(2, 13, 3)
    desk.open.set()
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [answers[place] for place in (0, 1, 3)] == [2, 4, 6]
    assert isinstance(answers[2], Fenced)


async def test_an_error_that_is_nobodys_own_is_everybodys_and_the_next_are_asked_anew() -> None:
    desk = Desk()
    asked = desk.questions(1)
    await settled()
    asked += desk.questions(2, 0)
    desk.open.set()
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert answers[0] == 2
    assert [type(answer) for answer in answers[1:]] == [Unavailable, Unavailable]
    assert await desk.batcher.answer(4) == 8


async def test_whoever_gives_up_is_not_asked_for_and_hinders_nobody() -> None:
    desk = Desk()
    first, second, third = desk.questions(1, 2, 3)
    await settled()
    second.cancel()
    await settled()
    desk.open.set()
    assert await asyncio.gather(first, third) == [2, 6]
    with pytest.raises(asyncio.CancelledError):
        await second


async def test_at_the_end_nobody_waits_for_ever() -> None:
    desk = Desk()
    asked = desk.questions(1)
    await settled()
    asked += desk.questions(2)
    await settled()
    await desk.batcher.close()
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(answer) for answer in answers] == [asyncio.CancelledError] * 2
