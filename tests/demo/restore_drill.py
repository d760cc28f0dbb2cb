"""A drill: a database comes back from before an erasure and stays shut until it is healed. `privacyctl restore-drill` runs it.

It starts a stack of its own in temporary folders and touches nothing that runs. Exit code: 0 it went as it should, 1 something
was served that was erased, or came back.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import httpx

from deploy.local.http import open_http
from deploy.local.keys import customer_token
from deploy.local.people import Crowd
from deploy.local.shop import Shop
from deploy.local.stack import Stack, say
from tests.support.attacker import raid
from tests.support.restores import restore_database, server_on
from tests.support.stacks import FAST_PASSWORDS
from tests.support.staff import Staff

SYSTEM = "account"
PATIENCE = 120.0


async def drill(stack: Stack, folder: Path) -> dict[str, Any]:
    """What was seen: rows of the person in the restored database, answers while it came up, rows and values in the end."""
    shop = Shop(stack.url(SYSTEM), stack.url("order"), stack.mailbox)
    who = await shop.register(next(Crowd(secrets.randbits(32)).customers(1)))
    await shop.save_address(who)
    await shop.close()
    say("A base backup is taken; then the person is erased.")
    await asyncio.to_thread(stack.postgres.base_backup, folder / "backup")
    async with Staff(stack) as staff:
        await staff.erase([who.subject_id])
    say(f"The database of {SYSTEM} comes back from the backup.")
    process = stack.process(SYSTEM)
    await asyncio.to_thread(process.stop)
    with server_on(folder / "backup", stack.postgres.admin_dsn) as backup_dsn:
        await asyncio.to_thread(restore_database, stack, backup_dsn, SYSTEM)
    restored = await _rows_of(stack, who.subject_id)
    process.launch()
    answers = await _answers(process.url, customer_token(stack.keys, who.subject_id))
    await asyncio.to_thread(process.wait_healthy)
    left, loot = await _rows_of(stack, who.subject_id), await raid(stack)
    return {
        "rows_restored": restored,
        "answers": {str(status): count for status, count in sorted(answers.items())},
        "rows_left": left,
        "values_opened": len(loot.of(who.subject_id)),
    }


async def _answers(url: str, token: str) -> Counter[int]:
    """What the person's own page answers, over and over, until it is something else than 503."""
    answers: Counter[int] = Counter()
    deadline = time.monotonic() + PATIENCE
    async with open_http(timeout=5, headers={"Authorization": f"Bearer {token}"}) as http:
        while not answers.keys() - {503} and time.monotonic() < deadline:
            try:
                answers[(await http.get(f"{url}/v1/accounts/me")).status_code] += 1
            except httpx.TransportError:
                await asyncio.sleep(0.01)
    return answers


async def _rows_of(stack: Stack, subject: UUID) -> int:
    connection = await asyncpg.connect(stack.dsn(SYSTEM))
    try:
        tables = ("accounts", "addresses", "favourites")
        counts = [await connection.fetchval(f"SELECT count(*) FROM {t} WHERE subject_id = $1", subject) for t in tables]
        return sum(counts)
    finally:
        await connection.close()


def main(arguments: list[str]) -> int:
    """Runs the drill; returns the exit code."""
    stack = Stack(progress=say)
    stack.overrides[SYSTEM] |= FAST_PASSWORDS
    with tempfile.TemporaryDirectory() as folder, stack:
        seen = asyncio.run(drill(stack, Path(folder)))
    well = seen["rows_restored"] > 0 and seen["answers"].keys() <= {"503", "401", "404", "410"}
    well = well and seen["rows_left"] == 0 and seen["values_opened"] == 0
    if "--json" in arguments:
        print(json.dumps(seen))
    else:
        print(f"rows of the erased person in the restored database: {seen['rows_restored']}")
        print(f"answers while it came up: {seen['answers']}")
        print(f"rows after that: {seen['rows_left']}; values that an attacker opens: {seen['values_opened']}")
        print("as it should be" if well else "NOT as it should be")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
