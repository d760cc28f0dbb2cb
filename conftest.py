"""For all tests: the plugin that reports on faults, and what runs beside what when two processes share the tests."""

from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

pytest_plugins = ["tests.faults.plugin"]


class Beside(LoadFileScheduling):
    """Whole systems run one after the other in one process, since two at once starve each other; all else file by file."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return "acceptance" if file.startswith("tests/acceptance/") else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Beside:
    return Beside(config, log)
