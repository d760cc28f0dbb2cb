"""What the demo's parts share: where they print, how a step is told, and `privacyctl` as staff would run it."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from deploy.local.keys import StaffRole, log_key_file, staff_token, witness_key_file
from deploy.local.stack import Stack

# Two panels side by side, also where the output goes to a file.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 150)


@contextmanager
def step(what: str) -> Iterator[None]:
    """A line that says what is going on, and how long it took."""
    started = time.monotonic()
    with console.status(what):
        yield
    console.print(f"  [green]✓[/green] {what} [dim]{time.monotonic() - started:.1f} s[/dim]")


async def privacyctl(
    stack: Stack, *arguments: str, role: StaffRole = "support", term: str = "", live: bool = False
) -> str:
    """Runs the command-line tool; the term goes in at its prompt. `live` prints each line when it comes.

    Raises `RuntimeError` with what the tool said when it fails.
    """
    environment = {
        **os.environ,
        "PRIVACY_URL": stack.url("privacy"),
        "PRIVACY_TOKEN": staff_token(stack.keys, role),
        "EVIDENCE_LOG_KEY_FILE": str(log_key_file(stack.keys)),
        "EVIDENCE_WITNESS_KEY_FILE": str(witness_key_file(stack.keys)),
        "COLUMNS": "150",
        "PYTHONUNBUFFERED": "1",
    }
    program = str(Path(sys.executable).with_name("privacyctl"))
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        program, *arguments, env=environment, stdin=pipe, stdout=pipe, stderr=pipe
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdin.write(term.encode())
    process.stdin.close()
    lines = []
    async for line in process.stdout:
        lines.append(line.decode())
        if live:
            console.print(f"    {lines[-1].rstrip()}", markup=False)
    said = (await process.stderr.read()).decode().strip()
    if await process.wait():
        raise RuntimeError(f"privacyctl {arguments[0]} failed: {said}")
    return "".join(lines)
