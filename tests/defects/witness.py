"""A pytest plugin of the copies: writes down how each test ended, with what words and where, and whose code it ran.

An exit code cannot tell a test's own assertion from an import error. The report is JSON in the file that DEFECT_REPORT names.
"""

import json
import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

_ENDINGS: dict[str, dict[str, Any]] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keeps the first phase of a test that failed, or that it passed."""
    report = yield
    known = _ENDINGS.setdefault(item.nodeid, {"outcome": "passed"})
    if report.outcome != "passed" and known["outcome"] == "passed":
        known |= {"outcome": report.outcome, "phase": call.when}
        if call.excinfo is not None:
            place = Path(call.excinfo.traceback.filter(call.excinfo)[-1].path)
            known["kind"] = call.excinfo.type.__name__
            known["words"] = call.excinfo.exconly()
            known["in_test"] = place.is_relative_to(item.config.rootpath / "tests")
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    root = session.config.rootpath
    ours = {path.name for path in root.glob("*/*/src/*") if path.is_dir()} | {"deploy", "tests"}
    files = {name: module.__file__ for name, module in list(sys.modules.items()) if getattr(module, "__file__", None)}
    foreign = [
        name
        for name, file in files.items()
        if name.partition(".")[0] in ours and file is not None and not Path(file).is_relative_to(root)
    ]
    report = {"endings": _ENDINGS, "foreign": sorted(foreign)}
    Path(os.environ["DEFECT_REPORT"]).write_text(json.dumps(report))
