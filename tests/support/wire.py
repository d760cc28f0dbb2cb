"""Proxies that count what passes (Kafka requests by client and kind, HTTP requests by path, commits of Postgres), that can lose
the answers, and that can be cut."""

from __future__ import annotations

import asyncio
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

PRODUCE, OFFSET_COMMIT = 0, 8  # https://kafka.apache.org/protocol#protocol_api_keys
COMMIT = b"Q\0\0\0\x0bCOMMIT\0"  # a simple query: type, length, text

Name = tuple[str, int | str]


class Wire:
    """A TCP proxy on a free port of the loopback address. `counts` is filled by `forward`.

    `loses` is asked about each request by its name: if so, the request gets through, and instead of its answer the
    connection ends.
    """

    def __init__(self, loses: Callable[[Name], bool] = lambda name: False) -> None:
        self.counts: Counter[Name] = Counter()
        self.lost: Counter[Name] = Counter()
        self._loses = loses
        self._deaf: set[asyncio.StreamWriter] = set()
        self._open: set[asyncio.StreamWriter] = set()
        self._is_cut = False
        self.refused = 0
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

    @contextmanager
    def cut(self) -> Iterator[None]:
        """Nothing gets through meanwhile: all connections end, and each new one at once, counted as `refused`."""
        self._is_cut = True
        for writer in self._open:
            writer.transport.abort()
        try:
            yield
        finally:
            self._is_cut = False

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            self.refused += 1
            writer.transport.abort()
            return
        self._open.add(writer)
        host, _, port = self.target.rpartition(":")
        with suppress(OSError, asyncio.IncompleteReadError):
            upstream_reader, upstream_writer = await asyncio.open_connection(host, int(port))
            there = asyncio.ensure_future(self.forward(reader, upstream_writer))
            back = asyncio.ensure_future(self._answer(upstream_reader, writer, upstream_writer))
            await asyncio.wait([there, back], return_when=asyncio.FIRST_COMPLETED)
            for task in (there, back):
                task.cancel()
            self._deaf.discard(upstream_writer)
            upstream_writer.close()
        self._open.discard(writer)
        writer.close()

    async def forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError

    async def pass_on(self, name: Name, request: bytes, writer: asyncio.StreamWriter) -> None:
        self.counts[name] += 1
        if self._loses(name):
            self.lost[name] += 1
            self._deaf.add(writer)
        writer.write(request)
        await writer.drain()

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, upstream: asyncio.StreamWriter
    ) -> None:
        while (chunk := await reader.read(65_536)) and upstream not in self._deaf:
            writer.write(chunk)
            await writer.drain()


class KafkaWire(Wire):
    """Counts requests by (client id, API key), read from the request header of the Kafka protocol."""

    async def forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            size = await reader.readexactly(4)
            request = await reader.readexactly(struct.unpack(">i", size)[0])
            api_key, _, _, length = struct.unpack(">hhih", request[:10])
            client = request[10 : 10 + max(length, 0)].decode()
            await self.pass_on((client, api_key), size + request, writer)


class HttpWire(Wire):
    """Counts requests by (method, path)."""

    async def forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            method, path, _ = head.split(b" ", 2)
            length = next(
                (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
            )
            await self.pass_on((method.decode(), path.decode()), head + await reader.readexactly(length), writer)


class PostgresWire(Wire):
    """Counts commits, as `("", "COMMIT")`."""

    async def forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(65_536):
            if chunk == COMMIT:
                await self.pass_on(("", "COMMIT"), chunk, writer)
            else:
                writer.write(chunk)
                await writer.drain()
