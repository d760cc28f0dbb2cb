"""Lists of operations that once failed or stand for a race worth its own name: each with what it is about.

A list is what `tests.faults.simulation.ops_of` takes: (operation, which, how) each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import pytest

from tests.faults.simulation import READERS, Op, ops_of


@dataclass(frozen=True)
class Reproduction:
    """`rows`: of `tests/faults/rows.py`, whose fault it is."""

    name: str
    reason: str
    listed: tuple[tuple[Any, ...], ...]
    rows: tuple[int, ...] = ()

    @property
    def ops(self) -> list[Op]:
        return ops_of(self.listed)


FLOW: Final = ("flow", 3)
FORGET: Final = (("erase", 0, 0), FLOW, ("approve", 0), ("tick", 1), FLOW)

REPRODUCTIONS: Final = (
    Reproduction(
        "order_and_erasure",
        "The plain course of things: an order is delivered, the buyer is erased, another order goes on.",
        (("place", 0, 0), FLOW, ("place", 1, 1), *FORGET),
    ),
    Reproduction(
        "erased_while_the_parcel_is_under_way",
        "An open order is held for its delivery, which ends; then the rest goes, too.",
        (("place", 0, 0), ("flow", 0), ("erase", 0, 0), ("flow", 0), ("approve", 0), ("tick", 1), ("flow", 0), FLOW),
        rows=(16,),
    ),
    Reproduction(
        "ten_years_later",
        "What the law on records holds goes when the law lets it go, by itself.",
        (("place", 0, 0), FLOW, *FORGET, ("tick", 6), FLOW, ("tick", 2), FLOW),
    ),
    Reproduction(
        "new_groups_after_an_erasure",
        "Every reader begins every topic anew after the erasure: no row comes back (row 11).",
        (
            ("place", 0, 0),
            FLOW,
            ("edit", 0),
            *FORGET,
            *(("replay", reader) for reader in READERS),
            FLOW,
        ),
        rows=(11,),
    ),
    Reproduction(
        "new_groups_after_the_erasure_of_a_class",
        "The same when only deliveries are erased: the person is not fenced, only keys are.",
        (
            ("place", 0, 0),
            FLOW,
            ("erase", 0, 3),
            *FORGET[1:],
            *(("replay", reader) for reader in READERS),
            ("flow", 0),
            FLOW,
        ),
        rows=(11,),
    ),
    Reproduction(
        "gateway_dies_between_the_ledger_and_the_send",
        "What is recorded and was not sent is sent by the next process, under the same id (docs/protocols.md#leaving-the-system).",
        (
            ("place", 0, 0),
            ("relay", "order"),
            ("kill", "consume.committed", 0),
            ("consume", "logistics-gateway.orders", 0),
            FLOW,
        ),
        rows=(1,),
    ),
    Reproduction(
        "zombie_reader_commits_late",
        "A reader stops before its transaction; another one goes further; the first one wakes up and moves nothing.",
        (
            ("place", 0, 0),
            ("relay", "order"),
            ("rebalance", "account.main", 0),
            ("place", 1, 0),
            ("flow", 3),
            ("wake", 0),
            FLOW,
        ),
        rows=(7,),
    ),
    Reproduction(
        "the_same_after_forty_days",
        "By then the inbox and the outbox have forgotten what they saw.",
        (("place", 0, 0), FLOW, *FORGET, ("tick", 5), *(("replay", reader) for reader in READERS), FLOW, FLOW),
        rows=(7,),
    ),
    Reproduction(
        "zombie_gateway_delivers_after_the_recall",
        "A gateway stops between the ledger and the send; another sends, the order is cancelled, and then the first one sends.",
        (
            ("place", 0, 0),
            ("flow", 0),
            ("place", 1, 0),
            ("relay", "order"),
            ("rebalance", "logistics-gateway.orders", 1),
            ("cancel", 1),
            ("flow", 1),
            ("wake", 0),
            FLOW,
        ),
        rows=(7,),
    ),
    Reproduction(
        "zombie_gateway_sends_what_was_erased",
        "The same, with an erasure while it stands still: its lease is waited out, and the carrier refuses what comes late.",
        (("place", 0, 0), ("relay", "order"), ("rebalance", "logistics-gateway.orders", 1), *FORGET, ("wake", 0), FLOW),
        rows=(7,),
    ),
    Reproduction(
        "zombie_holds_a_key",
        "A process with a lease stands still: no key that it may hold is destroyed before its lease is over.",
        (
            ("place", 0, 0),
            FLOW,
            ("place", 0, 0),
            ("relay", "order"),
            ("rebalance", "logistics-gateway.orders", 0),
            ("flow", 3),
            ("erase", 0, 0),
            FLOW,
            ("approve", 0),
            ("tick", 1),
            FLOW,
            ("tick", 2),
            FLOW,
        ),
        rows=(7,),
    ),
    Reproduction(
        "killed_between_the_file_and_the_commit",
        "The vault dies when the file has an entry that its database lacks: it was approved, so it is applied.",
        (
            ("place", 0, 0),
            FLOW,
            ("kill", "vault.list_flushed", 0),
            *FORGET,
            ("kill", "vault.list_flushed", 1),
            FLOW,
        ),
        rows=(1,),
    ),
    Reproduction(
        "killed_between_destruction_and_evidence",
        "The worker dies with the vault's answer in its hands; the next one asks again and records the destruction once (row 17).",
        (
            ("place", 0, 0),
            FLOW,
            ("kill", "rights.vault_answered", 1),
            *FORGET,
            ("kill", "rights.vault_answered", 0),
            FLOW,
        ),
        rows=(1, 17),
    ),
    Reproduction(
        "half_a_batch_is_produced",
        "The broker takes half of a batch and no answer comes back: what is sent again is applied once, in its order.",
        (
            ("place", 0, 0),
            ("place", 1, 0),
            ("cancel", 0),
            ("lose_produce", 0, 2),
            ("relay", "order"),
            ("edit", 1),
            ("lose_produce", 0, 1),
            ("relay", "order"),
            FLOW,
        ),
        rows=(5,),
    ),
    Reproduction(
        "order_placed_while_its_answers_are_lost",
        "The vault's answer and then the shop's are lost; the buyer asks again under the same key.",
        (("lose_call", 0, 1), ("lose_request", 0, 1), ("place", 0, 1), ("again", 0), FLOW),
        rows=(4,),
    ),
    Reproduction(
        "databases_from_before_the_erasure",
        "Each database comes back as it was before an erasure: nothing is served before it has erased again (row 12).",
        (
            ("place", 0, 0),
            FLOW,
            *(("back_up", name) for name in ("order", "account", "logistics-gateway", "vault")),
            *FORGET,
            *(("restore", name) for name in ("vault", "order", "account", "logistics-gateway")),
            FLOW,
        ),
        rows=(12,),
    ),
    Reproduction(
        "privacy_from_before_the_erasure",
        "The privacy service forgets a request that it carried out; its inventory and its evidence know it all the same.",
        (("place", 0, 0), FLOW, ("back_up", "privacy"), *FORGET, ("restore", "privacy"), FLOW),
        rows=(12,),
    ),
    Reproduction(
        "an_erased_class_is_not_a_forbidden_class",
        "Only the deliveries of a person are erased; what they order then has keys of its own.",
        (
            ("place", 0, 0),
            FLOW,
            ("erase", 0, 3),
            FLOW,
            ("approve", 0),
            ("tick", 1),
            ("place", 0, 0),
            FLOW,
            ("edit", 1),
            FLOW,
        ),
    ),
    Reproduction(
        "ordered_between_the_question_and_the_fence",
        "A person orders after everybody has said what they hold and before the keys are fenced: nothing held that order.",
        (
            ("place", 0, 0),
            FLOW,
            ("erase", 0, 0),
            ("flow", 1),
            ("approve", 0),
            ("tick", 1),
            ("jobs", "privacy"),
            ("relay", "privacy"),
            *(("consume", f"{name}.participant", 0) for name in ("order", "account", "logistics-gateway")),
            *(("relay", name) for name in ("order", "account", "logistics-gateway")),
            ("place", 0, 0),
            ("relay", "order"),
            ("consume", "privacy.answers", 0),
            ("jobs", "privacy"),
            FLOW,
        ),
    ),
    Reproduction(
        "held_by_hand_and_let_go",
        "A dispute keeps deliveries from an erasure, until somebody lifts the hold.",
        (("place", 0, 0), FLOW, ("hold", 0, 0), *FORGET, ("lift", 0), ("tick", 2), FLOW),
        rows=(16,),
    ),
    Reproduction(
        "the_clock_is_set_back_while_a_person_is_erased",
        "An hour after the approval, a day after the fence: the waiting time and the next tries count again, nothing is lost.",
        (
            ("place", 0, 0),
            FLOW,
            ("erase", 0, 0),
            FLOW,
            ("approve", 0),
            ("jump", 0),
            ("tick", 1),
            ("flow", 0),
            ("jump", 1),
            ("place", 1, 1),
            FLOW,
        ),
        rows=(21,),
    ),
    Reproduction(
        "the_clock_jumps_four_hundred_days_ahead",
        "Rows of a day that nobody has prepared for are written, published and applied all the same.",
        (("place", 0, 0), ("jump", 3), ("place", 1, 1), FLOW, *FORGET),
        rows=(21,),
    ),
    Reproduction(
        "a_service_starts_after_the_clock_was_set_back_by_a_day",
        "It says no behind its gate, and serves once it has compared itself with the list; what people ask for again is done.",
        (("place", 0, 0), ("jump", 1), ("back_up", "privacy"), ("place", 1, 0), ("hold", 0, 0), FLOW, *FORGET),
        rows=(21,),
    ),
    Reproduction(
        "asked_of_a_service_that_has_just_started",
        "It says no behind its gate; whoever asked asks again until there is an answer.",
        (("place", 0, 0), ("place", 0, 0), ("place", 0, 0), ("crash", "privacy"), ("erase", 0, 0)),
        rows=(1,),
    ),
    Reproduction(
        "two_erasures_of_one_person",
        "Of everything and of one class, approved one after the other while neither has ended.",
        (
            ("place", 0, 0),
            FLOW,
            ("erase", 0, 0),
            ("erase", 0, 1),
            FLOW,
            ("approve", 0),
            ("approve", 1),
            ("tick", 1),
            FLOW,
        ),
        rows=(16,),
    ),
    Reproduction(
        "corrected_while_it_is_erased",
        "The buyer corrects to whom an open order goes, before and after the approval of the erasure.",
        (("place", 0, 0), ("erase", 0, 0), ("edit", 0), ("flow", 0), ("approve", 0), ("edit", 0), ("tick", 1), FLOW),
        rows=(16,),
    ),
)

MARKED: Final = [
    pytest.param(
        case,
        marks=[pytest.mark.fault(row, f"in a list of operations: {case.name.replace('_', ' ')}") for row in case.rows],
        id=case.name,
    )
    for case in REPRODUCTIONS
]
