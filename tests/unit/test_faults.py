"""Fault points do what they are armed for, at the hit they are armed for, and all are known before the first hit."""

import ast
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import servicekit
from servicekit.core import faults
from servicekit.core.errors import Misconfigured

ROOT = Path(__file__).parents[2]
SOURCES = [*ROOT.glob("shared/*/src/**/*.py"), *ROOT.glob("services/*/src/**/*.py")]


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    known = set(faults.POINTS)
    yield
    faults.arm({})
    faults.POINTS.clear()
    faults.POINTS.update(known)


def test_unarmed_points_do_nothing() -> None:
    faults.faultpoint("nowhere.known")
    assert faults.HITS["nowhere.known"] == 0


def test_error_at_the_second_hit_only() -> None:
    faults.arm(faults.parse("order.commit=error@2, vault.ensure=delay:0"))
    faults.faultpoint("order.commit")
    with pytest.raises(faults.InjectedFault):
        faults.faultpoint("order.commit")
    faults.faultpoint("order.commit")
    faults.faultpoint("vault.ensure")
    assert faults.HITS == {"order.commit": 3, "vault.ensure": 1}


def test_kill_is_sigkill() -> None:
    program = "from servicekit.core.faults import faultpoint as f; f('a.b'); print('once', flush=True); f('a.b'); print('twice')"
    path = [str(Path(servicekit.__file__).parents[1]), *sys.path]
    environment = {"FAULTPOINTS": "a.b=kill@2", "PYTHONPATH": ":".join(path)}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)
    assert run.returncode == -signal.SIGKILL
    assert run.stdout == "once\n"


@pytest.mark.parametrize("text", ["a.b", "a.b=explode", "=kill", "a.b=kill@x"])
def test_unreadable_plans_are_refused(text: str) -> None:
    with pytest.raises(Misconfigured):
        faults.parse(text)


def test_arming_an_unknown_point_is_refused() -> None:
    faults.declare("known.point")
    faults.arm(faults.parse("known.point=error"))
    faults.check_armed()
    faults.arm(faults.parse("unknown.point=error"))
    with pytest.raises(Misconfigured):
        faults.check_armed()


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_point_that_is_used_is_declared_in_its_module(source: Path) -> None:
    names: dict[str, set[str]] = {"declare": set(), "faultpoint": set()}
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
            names[node.func.id] |= {str(arg.value) for arg in node.args if isinstance(arg, ast.Constant)}
    assert names["faultpoint"] <= names["declare"]
