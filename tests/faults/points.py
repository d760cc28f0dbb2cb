"""All fault points that the services declare, whatever tests in this process have declared."""

import subprocess
import sys

_DECLARED = """
import account_service.app, logistics_gateway.app, order_service.app, privacy_service.app, vault_service.app
from servicekit.core.faults import POINTS
print(*sorted(POINTS))
"""


def declared_points() -> list[str]:
    """Asked in a process of its own. Raises `CalledProcessError` when a service cannot be imported."""
    ran = subprocess.run([sys.executable, "-c", _DECLARED], capture_output=True, text=True, check=True, timeout=120)
    return ran.stdout.split()
