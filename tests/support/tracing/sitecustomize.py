"""In every process of a traced stack, before its own code: what it does to the world, and the fault points it passes.

Each is a line `moment task kind name` in the file `TRACE_FOLDER/<pid>`: `commit` (also a write outside of a transaction),
`produce`, `post` (any HTTP request that changes something; a lease is a question: it only notes who may hold keys), and
`point`. `moment` is CLOCK_MONOTONIC in nanoseconds.
Effects are noted when they begin, so a point before and a point after each is seen on its own side.
"""

import asyncio
import itertools
import os
import re
import sys
import time
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import asyncpg
import httpx

from servicekit.core import faults
from servicekit.kafka import client

LEASE = "/v1/keys/lease"
# The address of a task is another one's soon after it has ended.
_NUMBERS: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
_COUNT = itertools.count(1)
_WRITES = re.compile(r"\b(INSERT INTO|UPDATE|DELETE FROM)\s")
_FILE = (Path(os.environ["TRACE_FOLDER"]) / str(os.getpid())).open("ab", buffering=0)
_FILE.write(f"0 0 process {' '.join(sys.orig_argv[-2:])}\n".encode())


def _note(kind: str, name: str) -> None:
    try:
        running = asyncio.current_task()
    except RuntimeError:
        running = None
    task = 0 if running is None else _NUMBERS.setdefault(running, next(_COUNT))
    _FILE.write(f"{time.monotonic_ns()} {task} {kind} {name}\n".encode())


class _Points(dict[str, Any]):
    """Stands for the armed points: whichever is asked for was reached. None is armed."""

    def get(self, name: str, default: Any = None) -> Any:
        _note("point", name)
        return default


def _traced(connection: type, method: str) -> None:
    real = getattr(connection, method)

    async def call(self: Any, query: str, *args: Any, **more: Any) -> Any:
        if query == "COMMIT" or (_WRITES.search(query) and not self.is_in_transaction()):
            first = query.partition("\n")[0].removeprefix("-- ").replace(" ", "_")
            _note("commit", first)
        return await real(self, query, *args, **more)

    setattr(connection, method, call)


def _trace_clients() -> None:
    produce, send = client.Producer.send, httpx.AsyncClient.send

    async def traced_produce(self: Any, records: Any) -> None:
        if records:
            _note("produce", records[0].topic)
        await produce(self, records)

    async def traced_send(self: Any, request: httpx.Request, **more: Any) -> httpx.Response:
        if request.method != "GET" and request.url.path != LEASE:
            _note("post", request.url.path)
        return await send(self, request, **more)

    client.Producer.send = traced_produce  # type: ignore[method-assign]
    httpx.AsyncClient.send = traced_send  # type: ignore[method-assign]


faults._ARMED = _Points()
for each in ("execute", "executemany", "fetch", "fetchrow", "fetchval"):
    _traced(asyncpg.Connection, each)  # what a pool lends calls these by their names
_trace_clients()
