"""`python -m deploy.check`: our own build rules, without the tools. Prints every finding; exit code 1 if there is one."""

import sys
from collections.abc import Callable, Iterable

from deploy.check import circles, contracts, source, tables
from deploy.check.findings import Finding

CHECKS: tuple[Callable[[], Iterable[Finding]], ...] = (source.find, contracts.find, tables.find, circles.find)


def main() -> int:
    """Run all checks; returns the exit code."""
    findings = sorted({finding for check in CHECKS for finding in check()})
    for finding in findings:
        print(finding)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
