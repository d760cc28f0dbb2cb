"""How far a shipment is, as data: each kind of reply has a rank, and a state never goes back. Pure."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from event_contracts.carrier import ReplyKind

HANDED_OVER: Final = 30
# The gateway's own end of a shipment whose carrier is silent: a late word of the carrier still counts.
UNKNOWN: Final = 80
END: Final = 90


class Step(Struct, frozen=True):
    """Counts for a shipment of a lower rank, as long as `only_if` holds of its line `d`; `column` keeps its own time."""

    rank: int
    only_if: str = "true"
    column: str | None = None

    @property
    def is_end(self) -> bool:
        return self.rank >= END


# A refusal counts for nothing once the parcel is on its way; a carrier must refuse what was recalled or erased.
_REFUSABLE: Final = f"d.rank < {HANDED_OVER} AND d.recall IS NULL AND d.erasure IS NULL"
# In the order in which replies of one batch are noted: nothing counts after a refusal.
STEPS: Final[dict[ReplyKind, Step]] = {
    ReplyKind.REFUSED: Step(END, _REFUSABLE, "refused_at"),
    ReplyKind.ACKNOWLEDGED: Step(10, column="acknowledged_at"),
    ReplyKind.LABEL_CREATED: Step(20),
    ReplyKind.HANDED_OVER: Step(HANDED_OVER, column="handed_over_at"),
    ReplyKind.IN_TRANSIT: Step(40),
    ReplyKind.OUT_FOR_DELIVERY: Step(50),
    ReplyKind.FAILED_ATTEMPT: Step(60),
    ReplyKind.DELIVERED: Step(END, column="delivered_at"),
    ReplyKind.RETURNED: Step(END),
    ReplyKind.LOST: Step(END),
}
