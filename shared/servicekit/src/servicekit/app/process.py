"""A process from its call to its exit code."""

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

from servicekit.core.errors import KitError
from servicekit.core.logs import configure_logs, get_log
from servicekit.core.process import harden

log = get_log("service")


def run_process(
    name: str, role: str, log_level: str, work: Callable[[], Coroutine[Any, Any, int | None]], *, has_keys: bool = True
) -> int:
    """Runs `work` to its end, hardened if the process will have keys. Returns the exit code: that of `work`, or 0.

    A `KitError` ends it with 1: the log names it, and a line on stderr says what to do.
    """
    configure_logs(name, role, log_level)
    try:
        if has_keys:
            harden()
        return uvloop.run(work()) or 0
    except KitError as error:
        log.error("cannot_run", error=error)
        print(error, file=sys.stderr)
        return 1


def stop_signal() -> asyncio.Event:
    """Is set when the process gets SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop
