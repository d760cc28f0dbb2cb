"""The sagas: for each kind of request its steps, in order. Every subject of a request takes the steps by itself.

`machine.py` interprets these tables, `runner.py` saves what follows, and `jobs.py` does this service's own work.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import Final, TypeAlias
from uuid import UUID

from event_contracts.event import Event
from event_contracts.privacy import DescribeHoldings, EraseHoldings, ExportHoldings, RectifyHoldings, TellRecipients
from privacy_service.holds.domain import Item, ManualHold


class Kind(StrEnum):
    """What a request is for. Only a retention run opens a retention request."""

    ACCESS = "access"
    PORTABILITY = "portability"
    RECTIFICATION = "rectification"
    ERASURE = "erasure"
    RETENTION = "retention"


class Step(StrEnum):
    """Where a subject's saga stands."""

    PREVIEW = "preview"
    APPROVE = "approve"
    WAIT = "wait"
    DESCRIBE = "describe"
    FENCE = "fence"
    ERASE = "erase"
    DRAIN = "drain"
    DESTROY = "destroy"
    TELL = "tell"
    PROBE = "probe"
    CERTIFY = "certify"
    HELD = "held"
    EXPORT = "export"
    PACKAGE = "package"
    READY = "ready"
    RECTIFY = "rectify"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Described:
    """All parts of the replies of `systems` to a question are there; `items` are all of them."""

    question_id: UUID
    systems: frozenset[str]
    items: Sequence[Item] = ()
    manual: Sequence[ManualHold] = ()


@dataclass(frozen=True, slots=True)
class Erased:
    """The system has swept up to entry `number` of the list. It deleted `erased` rows; `left` rows remain."""

    system: str
    number: int
    erased: int
    left: int


@dataclass(frozen=True, slots=True)
class Notified:
    """The system says which recipients it has notified."""

    system: str


@dataclass(frozen=True, slots=True)
class Exported:
    """These systems have handed over all they hold."""

    systems: frozenset[str]


@dataclass(frozen=True, slots=True)
class Rectified:
    """`refused`: why the owner of the data does not correct it; `misfits`: which fields do not fit, as codes."""

    system: str
    refused: str | None = None
    misfits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Fenced:
    """The vault has fenced and held the keys. `number` is that of the list's last entry about them."""

    number: int


@dataclass(frozen=True, slots=True)
class Drained:
    """The systems that still work with the keys. When it is empty, the keys may be destroyed."""

    waiting_for: frozenset[str]


@dataclass(frozen=True, slots=True)
class Destroyed:
    """The vault has destroyed the keys. `number` is that of the list's last entry about them."""

    number: int


@dataclass(frozen=True, slots=True)
class Worked:
    """The step's own work (a certificate, a package) is done, or the package was fetched or has expired."""

    step: Step


# What participants reply, and what the vault or this service's own work results in.
Reply: TypeAlias = Described | Erased | Notified | Exported | Rectified
Result: TypeAlias = Fenced | Drained | Destroyed | Worked


class Systems(Enum):
    """Which systems must reply to the command of a step."""

    CONCERNED = auto()  # all participants; of a request about some keys only, those that hold their classes
    DISCLOSERS = auto()  # of those, the ones that give data to recipients
    RECTIFIERS = auto()  # the systems that own the data to correct


class Timeout(Enum):
    """When something happens without a reply."""

    NEVER = auto()
    RETRY = auto()  # after a pause of the settings, which grows: the command is sent again
    AT_ONCE = auto()  # work of this service or the vault is due; when it fails, it is tried again after such pauses
    ERASURE_WAIT = auto()  # after the settings' wait: the next step
    HOLD_END = auto()  # when a hold may have ended: another round


class Refusal(Enum):
    """What happens when a reply says that something was not done."""

    ASK_AGAIN = auto()  # the reply does not count; the step waits for another one
    END_REQUEST = auto()  # the request is denied with the reason of the reply


@dataclass(frozen=True, slots=True)
class StepDefinition:
    """One step. It ends when all `systems` have replied to its `command`, when the work of `jobs.py` has a result, or at a time.

    `reply` is the type of the replies, or of the result; the step ignores all others.
    `is_stoppable`: nothing is gone and nothing has left yet, so the request may be denied or cancelled.
    """

    step: Step
    command: type[Event] | None = None
    reply: type[Reply | Result] | None = None
    timeout: Timeout = Timeout.NEVER
    refusal: Refusal | None = None
    systems: Systems = Systems.CONCERNED
    is_stoppable: bool = False


# An erasure: first it is decided, then done. A retention run has decided already.
_DECIDING: Final = (
    # Every system says what it holds, so that the person who approves sees what goes and what stays.
    StepDefinition(Step.PREVIEW, DescribeHoldings, Described, timeout=Timeout.RETRY, is_stoppable=True),
    # A second person approves; they may do so before all systems have replied to the preview.
    StepDefinition(Step.APPROVE, is_stoppable=True),
    # The person may still change their mind.
    StepDefinition(Step.WAIT, timeout=Timeout.ERASURE_WAIT, is_stoppable=True),
)

_ERASING: Final = (
    # Every system says what it holds, since much may have happened since the preview. The holds follow from the replies.
    StepDefinition(Step.DESCRIBE, DescribeHoldings, Described, timeout=Timeout.RETRY, is_stoppable=True),
    # The vault fences the keys, and holds those that a hold keeps. From here on there is no way back.
    StepDefinition(Step.FENCE, reply=Fenced, timeout=Timeout.AT_ONCE),
    # Every system waits out its writers, sweeps its tables, and says what is left. As long as rows are left, it is asked again.
    StepDefinition(Step.ERASE, EraseHoldings, Erased, timeout=Timeout.RETRY, refusal=Refusal.ASK_AGAIN),
    # The vault is asked until no process works with the keys any more: leases are dropped, or run out.
    StepDefinition(Step.DRAIN, reply=Drained, timeout=Timeout.AT_ONCE, refusal=Refusal.ASK_AGAIN),
    # The vault destroys the keys that are fenced. The evidence log records each of them.
    StepDefinition(Step.DESTROY, reply=Destroyed, timeout=Timeout.AT_ONCE),
    # Systems that gave data to recipients notify them. What recipients reply later amends the certificate.
    StepDefinition(Step.TELL, TellRecipients, Notified, timeout=Timeout.RETRY, systems=Systems.DISCLOSERS),
    # Verify: every system sweeps once more after the keys are gone, and must have nothing left.
    StepDefinition(Step.PROBE, EraseHoldings, Erased, timeout=Timeout.RETRY, refusal=Refusal.ASK_AGAIN),
    # The certificate is issued when all subjects of the request have come this far.
    StepDefinition(Step.CERTIFY, reply=Worked, timeout=Timeout.AT_ONCE),
    # What a hold keeps waits here. When a hold may have ended, another round begins at `describe`. Without holds: done.
    StepDefinition(Step.HELD, timeout=Timeout.HOLD_END),
    StepDefinition(Step.DONE),
)

_HANDING_OVER: Final = (
    # Every system hands over what it holds, sealed, part by part.
    StepDefinition(Step.EXPORT, ExportHoldings, Exported, timeout=Timeout.RETRY, is_stoppable=True),
    # The parts of all subjects are there: the package may be fetched.
    StepDefinition(Step.PACKAGE, reply=Worked, timeout=Timeout.AT_ONCE),
    # Until the package was fetched or has expired, and its key is destroyed.
    StepDefinition(Step.READY, reply=Worked, timeout=Timeout.RETRY),
    StepDefinition(Step.DONE),
)

_RECTIFYING: Final = (
    # The system that owns the data corrects it, or refuses: then the request is denied. An order's delivery goes with
    # `RectifyDelivery` instead.
    StepDefinition(
        Step.RECTIFY,
        RectifyHoldings,
        Rectified,
        timeout=Timeout.RETRY,
        refusal=Refusal.END_REQUEST,
        systems=Systems.RECTIFIERS,
        is_stoppable=True,
    ),
    StepDefinition(Step.DONE),
)

SAGAS: Final[Mapping[Kind, tuple[StepDefinition, ...]]] = {
    Kind.ERASURE: (*_DECIDING, *_ERASING),
    Kind.RETENTION: _ERASING,
    Kind.ACCESS: _HANDING_OVER,
    Kind.PORTABILITY: _HANDING_OVER,
    Kind.RECTIFICATION: _RECTIFYING,
}
DEFINITIONS: Final[Mapping[Step, StepDefinition]] = {each.step: each for steps in SAGAS.values() for each in steps}
STEPS: Final[Mapping[Kind, tuple[Step, ...]]] = {
    kind: tuple(each.step for each in steps) for kind, steps in SAGAS.items()
}
