"""What a piece of code costs, counted and not timed (docs/proofs.md, 20): bytecodes run, and bytes that they copied.

A copy of a long list is one bytecode: only its bytes show what it costs.
"""

import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from types import FrameType
from typing import Any

# What twice the text may cost, in halves: the double, and something for lists that grow by steps.
_DOUBLE = 2.3
_SMALL = 2_000
# A single bytecode that asks for more copies a text or a list.
_COPY = 1_000


@dataclass(slots=True)
class Cost:
    bytecodes: int = 0
    copied: int = 0


class _TooMuch(BaseException):
    """The code has run long enough to know."""


def cost_of(call: Callable[[], Any], most: float = inf) -> Cost:
    """What `call` costs; an exception that it raises is part of it. It is stopped after `most` bytecodes."""
    cost = Cost()
    last = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal last
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            cost.bytecodes += 1
            asked = tracemalloc.get_traced_memory()[1] - last
            cost.copied += asked if asked > _COPY else 0
            tracemalloc.reset_peak()
            last = tracemalloc.get_traced_memory()[0]
            if cost.bytecodes > most:
                raise _TooMuch
        return trace

    before = sys.gettrace()
    tracemalloc.start()
    sys.settrace(trace)
    try:
        call()
    except (_TooMuch, Exception):  # noqa: BLE001 - a refusal costs too
        pass
    finally:
        sys.settrace(before)
        tracemalloc.stop()
    return cost


def assert_linear(call: Callable[[str], Any], text: Callable[[int], str], size: int = 500) -> None:
    """`call(text(2n))` costs at most about twice what `call(text(n))` costs."""
    cost_of(lambda: call(text(size)))  # what is made once is made before: imports, patterns, caches
    once = cost_of(lambda: call(text(size)))
    most = _DOUBLE * once.bytecodes + _SMALL
    twice = cost_of(lambda: call(text(2 * size)), most)
    assert twice.bytecodes <= most, f"more than linear: {once} for n, {twice} and more for 2n"
    assert twice.copied <= _DOUBLE * once.copied + 10 * _SMALL, f"more than linear: {once} for n, {twice} for 2n"
