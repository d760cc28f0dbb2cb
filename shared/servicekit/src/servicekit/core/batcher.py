"""`Batcher`: questions that come while one is under way are asked together, so that under load many cost little more than one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")


@dataclass
class Batcher(Generic[Q, A]):
    """`ask` answers questions in their order. Whoever asks first does not wait for others.

    An error that is one of `own` may be the fault of a single question: then each is asked alone, and only that one fails.
    Any other error is everybody's. Questions go together up to a sum of `most`, by their `weight`.
    """

    ask: Callable[[Sequence[Q]], Awaitable[Sequence[A]]]
    own: tuple[type[Exception], ...]
    most: int
    weight: Callable[[Q], int] = lambda _: 1
    _waiting: deque[tuple[Q, asyncio.Future[A]]] = field(default_factory=deque)
    _asking: asyncio.Task[None] | None = None

    async def answer(self, question: Q) -> A:
        """The answer to this one. Raises what `ask` raises."""
        answered: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, answered))
        if self._asking is None or self._asking.done():
            self._asking = asyncio.ensure_future(self._ask_all())
        return await answered

    async def close(self) -> None:
        """Whoever still waits is cancelled."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)
        for _, answered in self._waiting:
            answered.cancel()
        self._waiting.clear()

    async def _ask_all(self) -> None:
        while self._waiting:
            await self._give(self._next())

    def _next(self) -> list[tuple[Q, asyncio.Future[A]]]:
        taken: list[tuple[Q, asyncio.Future[A]]] = []
        total = 0
        while self._waiting and (not taken or total + self.weight(self._waiting[0][0]) <= self.most):
            question, answered = self._waiting.popleft()
            # Whoever was cancelled meanwhile wants no answer.
            if not answered.done():
                taken.append((question, answered))
                total += self.weight(question)
        return taken

    async def _give(self, taken: Sequence[tuple[Q, asyncio.Future[A]]]) -> None:
        if not taken:
            return
        try:
            answers = await self.ask([question for question, _ in taken])
        except self.own as error:
            if len(taken) == 1:
                _end(taken, error)
            else:
                for each in taken:
                    await self._give([each])
        except BaseException as error:
            _end(taken, error)
            if not isinstance(error, Exception):
                raise
        else:
            for (_, answered), found in zip(taken, answers, strict=True):
                if not answered.done():
                    answered.set_result(found)


def _end(taken: Sequence[tuple[Any, asyncio.Future[Any]]], error: BaseException) -> None:
    for _, answered in taken:
        if answered.done():
            continue
        if isinstance(error, Exception):
            answered.set_exception(error)
        else:
            answered.cancel()
