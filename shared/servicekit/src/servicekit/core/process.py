"""Keeps keys out of core dumps and away from other processes of the same user (docs/protocols.md#processes-that-hold-keys)."""

import ctypes
import resource
import sys

from servicekit.core.errors import Misconfigured

_PR_SET_DUMPABLE = 4  # linux/prctl.h


def harden() -> None:
    """To be called first by every process that will hold keys: no core dumps, not dumpable, not to be traced.

    Raises Misconfigured where the system refuses.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux" and ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise Misconfigured("This process holds keys and cannot be made undumpable: allow prctl(PR_SET_DUMPABLE).")
