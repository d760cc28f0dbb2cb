"""For all tests: the plugins that report on faults and on attacks, and which tests must stay together."""

import os
from functools import cache
from pathlib import Path

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling

pytest_plugins = ["tests.faults.plugin", "tests.security.plugin"]
ROOT = Path(__file__).parent
# All people of a stack under test come from one address. A test of the limits states its own.
os.environ.setdefault("LIMITS_FACTOR", "1000")
# `make test` tries the same examples each time: what is red on main then comes from a change. `make test-long` looks for new
# ones. An example has no time limit, since the machine may be busy.
hypothesis.settings.register_profile("same", derandomize=True, database=None, deadline=None)
hypothesis.settings.register_profile("new", deadline=None)
hypothesis.settings.load_profile(os.environ.get("EXAMPLES", "same"))
ACCEPTANCE = ROOT / "tests" / "acceptance"


class ByServers(LoadScopeScheduling):  # type: ignore[misc]
    """`make test` has three workers. A file's tests stay together, since they share servers; so do all acceptance tests that
    share the one system of `tests/acceptance/conftest.py`, which are those that start none."""

    def _split_scope(self, nodeid: str) -> str:
        path = ROOT / nodeid.partition("::")[0]
        return "the shared system" if path in _sharing() else str(path)


@cache
def _sharing() -> frozenset[Path]:
    return frozenset(path for path in ACCEPTANCE.glob("test_*.py") if "= Stack(" not in path.read_text())


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByServers:
    return ByServers(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The longest first, so that both workers end at about the same time.
    items.sort(key=lambda item: item.path not in _sharing())
