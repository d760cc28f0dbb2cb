"""The diagrams of the documents: what Mermaid can read, and states that are those of the code."""

import re
from itertools import pairwise

import pytest

from deploy.check.findings import ROOT
from logistics_gateway.domain import State as Disclosure
from order_service.domain import Status as Order
from privacy_service.requests.domain import Status
from privacy_service.sagas.definition import STEPS, Kind, Step
from servicekit.kafka.quarantine import PARKED, Outcome
from vault_service.revocations.domain import ORDER

ARCHITECTURE = ROOT / "docs" / "architecture.md"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
_BLOCK = re.compile(r"^```mermaid\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DIAGRAMS = [pytest.param(block, id=path.stem) for path in DOCUMENTS for block in _BLOCK.findall(path.read_text())]

_STATE = r"(?:\[\*\]|\w+)"
_SHAPE = r"(?:\[\([^\[\]()]+\)\]|\(\[[^\[\]()]+\]\)|\[[^\[\]()]+\]|\{[^{}]+\})?"
_NODES = rf"\w+{_SHAPE}(?: & \w+{_SHAPE})*"
# What each kind of diagram may have on a line: a part of Mermaid's language that is enough, and that its parser takes.
_LINES = {
    "stateDiagram-v2": rf"({_STATE}) --> ({_STATE})(?:: [^:;]+)?",
    "sequenceDiagram": r"participant (\w+) as [^:;]+|Note over (\w+): [^:;]+|(\w+)(?:->>|-->>)(\w+): [^:;]+",
    "flowchart LR": rf"subgraph [\w ]+|end|{_NODES}(?: (?:-->|-- [^-]+ -->|-\. [^.]+ \.->) {_NODES})?",
}
_LINES["flowchart TD"] = _LINES["flowchart LR"]


def wrong_lines(diagram: str) -> list[str]:
    """Lines that Mermaid may not read; of a sequence also messages of somebody who is not a participant."""
    kind, *lines = (line.strip() for line in diagram.strip().splitlines())
    pattern = _LINES.get(kind)
    if pattern is None:
        return [kind]
    found = [(line, re.fullmatch(pattern, line)) for line in lines]
    wrong = [line for line, match in found if match is None]
    if kind.startswith("flowchart"):
        wrong += ["end"] if lines.count("end") != sum(line.startswith("subgraph") for line in lines) else []
    if kind == "sequenceDiagram":
        declared = {match[1] for _, match in found if match is not None and match[1]}
        wrong += [
            line for line, match in found if match and not match[1] and not {*match.groups()} - {None} <= declared
        ]
    return wrong


def edges(diagram: str) -> set[tuple[str, str]]:
    return set(re.findall(r"^ +(\S+) --> (\w+|\[\*\])", diagram, re.MULTILINE))


def states(diagram: str) -> set[str]:
    return {state for edge in edges(diagram) for state in edge} - {"[*]"}


LIVES = [block for block in _BLOCK.findall(ARCHITECTURE.read_text()) if block.startswith("stateDiagram")]


@pytest.mark.parametrize("diagram", DIAGRAMS)
def test_every_diagram_is_one(diagram: str) -> None:
    assert wrong_lines(diagram) == []


@pytest.mark.parametrize(
    "diagram",
    [
        "pie\n a",
        "stateDiagram-v2\n a -> b",
        "sequenceDiagram\n participant A as a\n A->>B: to nobody",
        "flowchart LR\n a[open --> b",
        "flowchart LR\n subgraph x\n a --> b",
    ],
)
def test_what_is_no_diagram_is_seen(diagram: str) -> None:
    assert wrong_lines(diagram) != []


def test_the_lives_have_the_states_of_the_code() -> None:
    quarantine = {PARKED, "waiting", *(outcome.value for outcome in Outcome)}
    known: list[set[str]] = [set(Order), set(Disclosure), set(STEPS[Kind.ERASURE]), set(Status), quarantine, set(ORDER)]
    assert [states(life) for life in LIVES] == known


def test_an_erasure_takes_the_steps_of_the_code_in_their_order() -> None:
    steps = STEPS[Kind.ERASURE]
    # What is held has a round of its own; `certify` leads to it or to the end.
    assert {(str(one), str(other)) for one, other in pairwise(steps)} <= edges(LIVES[2])
    assert (str(Step.HELD), str(Step.DESCRIBE)) in edges(LIVES[2])
