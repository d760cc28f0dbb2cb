"""Several services' `python -m <service> migrate`, one after the other in one process, which loads what they share once.

python -m deploy.local.migrations < [[module, environment], …]
"""

import json
import os
import runpy
import sys


def main() -> None:
    """Ends like the first of them that fails."""
    for module, environment in json.load(sys.stdin):
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = [module, "migrate"]
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            if end.code:
                print(f"the migration of {module} failed", file=sys.stderr)
                raise


if __name__ == "__main__":
    main()
