"""What is done for each kind of request, in order. Every subject of a request takes the steps by itself."""

from collections.abc import Mapping
from enum import Enum, StrEnum, auto
from typing import Final


class Kind(StrEnum):
    """What is asked for. A retention request is opened by the retention run, never by a person."""

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


class How(Enum):
    """How a step ends: when others have answered, when somebody decides, when its time has come, or by our own work."""

    ASK = auto()
    DECIDE = auto()
    TIME = auto()
    WORK = auto()
    END = auto()


HOW: Final[Mapping[Step, How]] = {
    Step.PREVIEW: How.ASK,  # everybody says what they hold, so that whoever decides sees what goes and what stays
    Step.APPROVE: How.DECIDE,
    Step.WAIT: How.TIME,  # the person may think again
    Step.DESCRIBE: How.ASK,  # the same question again: much may have happened since, and the holds follow from it
    Step.FENCE: How.WORK,  # the vault fences and holds the keys: the point of no return
    Step.ERASE: How.ASK,  # everybody has waited out its writers and swept
    Step.DRAIN: How.WORK,  # nobody works with the keys any longer
    Step.DESTROY: How.WORK,
    Step.TELL: How.ASK,  # whoever disclosed something says which recipients know; their own answers may come later
    Step.PROBE: How.ASK,  # everybody looks again and has nothing left
    Step.CERTIFY: How.WORK,  # once all subjects of the request are here
    Step.HELD: How.TIME,  # what is held goes when its hold ends: from `describe` on again
    Step.EXPORT: How.ASK,
    Step.PACKAGE: How.WORK,
    Step.READY: How.TIME,  # until it was fetched, or has expired
    Step.RECTIFY: How.ASK,
    Step.DONE: How.END,
}

_ERASING: Final = (
    Step.DESCRIBE,
    Step.FENCE,
    Step.ERASE,
    Step.DRAIN,
    Step.DESTROY,
    Step.TELL,
    Step.PROBE,
    Step.CERTIFY,
    Step.HELD,
    Step.DONE,
)
_HANDING_OVER: Final = (Step.EXPORT, Step.PACKAGE, Step.READY, Step.DONE)

STEPS: Final[Mapping[Kind, tuple[Step, ...]]] = {
    Kind.ERASURE: (Step.PREVIEW, Step.APPROVE, Step.WAIT, *_ERASING),
    Kind.RETENTION: _ERASING,
    Kind.ACCESS: _HANDING_OVER,
    Kind.PORTABILITY: _HANDING_OVER,
    Kind.RECTIFICATION: (Step.RECTIFY, Step.DONE),
}


def first(kind: Kind) -> Step:
    return STEPS[kind][0]


def after(kind: Kind, step: Step) -> Step:
    steps = STEPS[kind]
    return steps[steps.index(step) + 1]
