"""The third party as a stack runs it."""

from pathlib import Path

from deploy.local.services import ROOT, ServiceSpec

_FOLDER = Path(__file__).parent / "reviews"
_SOURCES = tuple(ROOT / folder for folder in ("shared/event-contracts/src", "shared/servicekit/src", "tests/support"))

REVIEWS = ServiceSpec(
    "reviews",
    "reviews",
    pythonpath=_SOURCES,
    topics=_FOLDER / "topics.json",
    policy_files=(_FOLDER / "policy.yaml",),
)
