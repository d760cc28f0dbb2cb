"""What a connection may cost: `Connection` is one socket of a listener, `Connections` are all of them.

A sender gets so many bytes and seconds for the head of a request, so many seconds for its body, and has to take its answer at
a least pace. A peer has so many connections. A new connection that is one too many displaces the peer's connection that has
waited longest without a request to answer, so silent connections keep nobody out.
"""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from enum import Enum, auto
from http import HTTPStatus
from itertools import count
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from servicekit.core.metrics import CONNECTIONS_CLOSED
from servicekit.core.settings import Settings
from servicekit.http.peers import is_trusted, peer_of

MAX_HEAD: Final = 16 * 1024
MAX_HEADERS: Final = 100
# A body that comes faster than this gets more time than HTTP_BODY_SECONDS, an answer that is taken more slowly is given up.
LEAST_BYTES_A_SECOND: Final = 4096
# Bytes around a chunk for each byte in it (chunk sizes, extensions), and trailers.
_MOST_FRAMING: Final = 8
# After an error, or an answer before the end of a body, what still comes is read and dropped so long. A connection that
# is closed with bytes unread resets, and the sender might never see the answer.
LINGER_SECONDS: Final = 2.0
_TICK_SECONDS: Final = 0.5


class _State(Enum):
    WAITING = auto()  # nothing of a request has come
    HEAD = auto()
    BODY = auto()
    ANSWER = auto()  # the whole request is here


class _Refused(Exception):
    """Ends the parsing of a request that is not taken."""


class Connections:
    """The connections of one listener, and the time by which their deadlines go."""

    def __init__(self, settings: Settings, by_peer: bool = True) -> None:
        self.settings = settings
        self._per_peer = settings.http_connections_per_peer if by_peer else settings.http_connections
        # Seconds in which this process had the time to read: what it slept through is nobody else's delay.
        self.now = 0.0
        times = (settings.http_head_seconds, settings.http_body_seconds, settings.http_idle_seconds)
        self._tick = min(_TICK_SECONDS, min(*times, settings.http_write_seconds) / 4)
        self.order = count()
        self._by_peer: dict[str, set[Connection]] = {}

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Within it, deadlines are kept."""
        watch = asyncio.create_task(self._watch(), name="connections")
        try:
            yield
        finally:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._tick)
            self.pass_time(self._tick)

    def pass_time(self, seconds: float) -> None:
        """So long later: ends what is past its deadline."""
        self.now += seconds
        for connection in [each for crowd in self._by_peer.values() for each in crowd]:
            connection.check_deadline()

    def admit(self, connection: "Connection", peer: str, is_proxy: bool) -> bool:
        """Whether it may stay. Makes room when its peer, or the process, has too many; a proxy stands for many peers."""
        crowd = self._by_peer.get(peer, set())
        if len(crowd) >= self._per_peer and not is_proxy:
            if not self._make_room(crowd):
                return False
        elif sum(map(len, self._by_peer.values())) >= self.settings.http_connections:
            largest_first = sorted(self._by_peer.values(), key=len, reverse=True)
            if not any(self._make_room(each) for each in largest_first):
                return False
        self._by_peer.setdefault(peer, set()).add(connection)
        return True

    def leave(self, connection: "Connection", peer: str) -> None:
        """Harmless when repeated."""
        crowd = self._by_peer.get(peer, set())
        crowd.discard(connection)
        if not crowd:
            self._by_peer.pop(peer, None)

    def _make_room(self, crowd: Iterable["Connection"]) -> bool:
        oldest = min((each for each in crowd if each.is_waiting), key=lambda each: each.place, default=None)
        if oldest is not None:
            oldest.drop("displaced")
        return oldest is not None


class ServerConfig(uvicorn.Config):
    """Uvicorn's settings, with the connections of this listener."""

    def __init__(self, app: ASGIApp, connections: Connections, **settings: Any) -> None:
        super().__init__(app, **settings, http=Connection, ws="none")
        self.connections = connections


class Connection(HttpToolsProtocol):
    """One socket. Refuses what two parsers could read in two ways, and what has no end."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        assert isinstance(config, ServerConfig)
        self._all = config.connections
        self._settings = config.connections.settings
        self._state = _State.WAITING
        self._refusal = HTTPStatus.BAD_REQUEST
        self._is_over = False
        self._head_size = self._head_read = self._framing = self._unsent = 0
        self.place = next(self._all.order)  # since when it waits, as an order
        self._until = self._all.now + self._settings.http_head_seconds
        self._peer = ""

    @property
    def is_waiting(self) -> bool:
        """There is no request that somebody works on."""
        return self._state is not _State.ANSWER

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._peer = peer_of(self.client)
        is_proxy = self.client is not None and is_trusted(self.client[0], self._settings)
        if not self._all.admit(self, self._peer, is_proxy):
            self.drop("too_many")

    def connection_lost(self, exc: Exception | None) -> None:
        self._all.leave(self, self._peer)
        super().connection_lost(exc)

    def drop(self, reason: str) -> None:
        """End it now."""
        CONNECTIONS_CLOSED.labels(reason).inc()
        self._all.leave(self, self._peer)
        self._is_over = True
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._is_over:
            return
        before = self._state
        super().data_received(data)
        if self._is_over:
            return
        if self._state is _State.HEAD and before is not _State.BODY:
            self._head_read += len(data)
            if self._head_read > MAX_HEAD:
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        elif self._state is before is _State.BODY:
            self._framing += len(data)
            if self._framing > MAX_HEAD:
                self._refuse(HTTPStatus.BAD_REQUEST)

    def on_message_begin(self) -> None:
        if self._state is not _State.WAITING:
            # It came before the answer to the one before it. No client of ours does that, and a queue has no end.
            raise _Refused
        super().on_message_begin()
        self._head_size = self._head_read = 0
        if self.cycle is not None:
            self._enter(_State.HEAD, self._settings.http_head_seconds)
        else:
            self._state = _State.HEAD  # a new connection had to begin at once

    def on_url(self, url: bytes) -> None:
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._state is not _State.HEAD:
            return  # a trailer: it must not become a header that nobody in front of us has seen
        self._count_head(len(name) + len(value) + len(b": \r\n"))
        if len(self.headers) >= MAX_HEADERS:
            self._stop(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._check_head()
        super().on_headers_complete()
        self._framing = 0
        self._enter(_State.BODY, self._settings.http_body_seconds)

    def on_body(self, body: bytes) -> None:
        self._framing -= (_MOST_FRAMING + 1) * len(body)
        if not self.cycle.response_complete:
            self._until += len(body) / LEAST_BYTES_A_SECOND
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if self.cycle.response_complete:
            self._wait()
        else:
            self._enter(_State.ANSWER, math.inf)
            if self.parser.should_upgrade():  # we speak nothing else: it is answered as it is, and that is the end
                self._is_over = True
                self.shutdown()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._state is _State.ANSWER:
            self._wait()
        else:  # the answer came before the end of the body
            self._until = min(self._until, self._all.now + LINGER_SECONDS)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._state is _State.ANSWER:
            self._watch_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._state is _State.ANSWER:
            self._until = math.inf
        elif self._state is _State.WAITING:
            self._until = self._all.now + self._settings.http_idle_seconds

    def check_deadline(self) -> None:
        """Called every tick."""
        if self._all.now < self._until:
            return
        if self._state in (_State.HEAD, _State.BODY) and not self._is_over:
            CONNECTIONS_CLOSED.labels("deadline").inc()
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)
            return
        unsent = self.transport.get_write_buffer_size()
        if unsent and self._unsent - unsent >= LEAST_BYTES_A_SECOND * self._settings.http_write_seconds:
            self._watch_writing()
        else:
            self.drop("deadline")

    def send_400_response(self, msg: str) -> None:
        """Called by the parser on an error: answers with the refusal, and ends the connection."""
        self._is_over = True
        if self._state is _State.ANSWER:
            self.shutdown()  # after the answer to the request before, which gets its time
            return
        if self._state is not _State.BODY or not self.cycle.response_started:
            self.transport.write(_answer(self._refusal))
        self.transport.write_eof()
        self._until = self._all.now + LINGER_SECONDS

    def _refuse(self, status: HTTPStatus) -> None:
        self._refusal = status
        self.send_400_response("")

    def _stop(self, status: HTTPStatus) -> None:
        """From a callback of the parser."""
        self._refusal = status
        raise _Refused

    def _enter(self, state: _State, seconds: float) -> None:
        self._state, self.place, self._until = state, next(self._all.order), self._all.now + seconds

    def _wait(self) -> None:
        self._enter(_State.WAITING, self._settings.http_idle_seconds)
        if self.transport.get_write_buffer_size():
            self._watch_writing()

    def _watch_writing(self) -> None:
        self._unsent = self.transport.get_write_buffer_size()
        self._until = self._all.now + self._settings.http_write_seconds

    def _count_head(self, size: int) -> None:
        self._head_size += size
        if self._head_size > MAX_HEAD:
            self._stop(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def _check_head(self) -> None:
        """What the parser lets pass, and another server may read in another way (RFC 9112 §3.2, §6.1)."""
        version = self.parser.get_http_version()
        if version not in ("1.0", "1.1"):
            self._stop(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
        hosts = 0
        for name, value in self.headers:
            if name == b"host":
                hosts += 1
            elif name == b"transfer-encoding" and (version == "1.0" or value.strip().lower() != b"chunked"):
                self._stop(HTTPStatus.NOT_IMPLEMENTED)
        if hosts > 1 or (hosts == 0 and version == "1.1"):
            self._stop(HTTPStatus.BAD_REQUEST)


def _answer(status: HTTPStatus) -> bytes:
    body = json.dumps({"type": "about:blank", "title": status.phrase, "status": status, "detail": f"{status.phrase}."})
    return (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/problem+json\r\n"
        f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n{body}"
    ).encode()
