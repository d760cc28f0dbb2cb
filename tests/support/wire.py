"""Proxies that count what passes: Kafka requests by client and kind, HTTP requests by path."""

from __future__ import annotations

import asyncio
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

PRODUCE = 0  # https://kafka.apache.org/protocol#protocol_api_keys

Spy = Callable[[asyncio.StreamReader, asyncio.StreamWriter], "asyncio.Future[None]"]


class Wire:
    """A TCP proxy on a free port of the loopback address. `counts` is filled by `_forward`."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, int | str]] = Counter()
        self.target = ""
        self.port = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @asynccontextmanager
    async def serving(self, target: str = "") -> AsyncIterator[Wire]:
        """Passes all on to `target` (`host:port`, which may be set later)."""
        self.target = target
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self.target.rpartition(":")
        with suppress(OSError, asyncio.IncompleteReadError):
            upstream_reader, upstream_writer = await asyncio.open_connection(host, int(port))
            there = asyncio.ensure_future(self.forward(reader, upstream_writer))
            back = asyncio.ensure_future(_copy(upstream_reader, writer))
            await asyncio.wait([there, back], return_when=asyncio.FIRST_COMPLETED)
            for task in (there, back):
                task.cancel()
            upstream_writer.close()
        writer.close()

    async def forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError


class KafkaWire(Wire):
    """Counts requests by (client id, API key), read from the request header of the Kafka protocol."""

    async def forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            size = await reader.readexactly(4)
            request = await reader.readexactly(struct.unpack(">i", size)[0])
            api_key, _, _, length = struct.unpack(">hhih", request[:10])
            client = request[10 : 10 + max(length, 0)].decode()
            self.counts[client, api_key] += 1
            writer.write(size + request)
            await writer.drain()


class HttpWire(Wire):
    """Counts requests by (method, path)."""

    async def forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            method, path, _ = head.split(b" ", 2)
            self.counts[method.decode(), path.decode()] += 1
            length = next(
                (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
            )
            writer.write(head + await reader.readexactly(length))
            await writer.drain()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(65_536):
        writer.write(chunk)
        await writer.drain()
