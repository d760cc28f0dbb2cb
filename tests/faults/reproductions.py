"""Lists of operations that once failed or stand for a race worth its own name: each with what it is about.

A list is what `tests.faults.simulation.ops_of` takes: (operation, which, how) each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from tests.faults.simulation import Op, ops_of


@dataclass(frozen=True)
class Reproduction:
    """`broken`: why it still fails; empty once it holds."""

    name: str
    reason: str
    listed: tuple[tuple[Any, ...], ...]
    broken: str = ""

    @property
    def ops(self) -> list[Op]:
        return ops_of(self.listed)


REPRODUCTIONS: Final = (
    Reproduction(
        "order_and_erasure",
        "The plain course of things: an order is delivered, the buyer is erased, another order goes on.",
        (
            ("place", 0, 0),
            ("flow", 3),
            ("place", 1, 1),
            ("erase", 0, 0),
            ("flow", 3),
            ("approve",),
            ("tick", 1),
            ("flow", 3),
        ),
    ),
    Reproduction(
        "erased_while_the_parcel_is_under_way",
        "An open order is held for its delivery, which ends; then the rest goes, too.",
        (
            ("place", 0, 0),
            ("flow", 0),
            ("erase", 0, 0),
            ("flow", 0),
            ("approve",),
            ("tick", 1),
            ("flow", 0),
            ("flow", 3),
        ),
    ),
)
