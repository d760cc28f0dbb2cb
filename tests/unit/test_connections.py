"""The deadlines of a connection, by a clock that the test moves."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from uvicorn.server import ServerState

from servicekit.core.settings import Settings
from servicekit.http.connections import LEAST_BYTES_A_SECOND, LINGER_SECONDS, Connection, Connections, ServerConfig

TIMES = Settings(http_head_seconds=10, http_body_seconds=10, http_idle_seconds=15, http_write_seconds=30)
GET = b"GET / HTTP/1.1\r\nHost: shop\r\n"
POST = b"POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 100000\r\n\r\n"


class Wire(asyncio.Transport):
    """Keeps what is written; `unsent` bytes of it are not taken by the other side."""

    def __init__(self) -> None:
        super().__init__()
        self.written, self.unsent, self.ended, self.aborted = b"", 0, False, False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("203.0.113.7", 1), "sockname": ("203.0.113.1", 80)}.get(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def write_eof(self) -> None:
        self.ended = True

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.aborted

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def close(self) -> None:
        self.ended = True


async def app(scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


class Opened:
    """One connection of a listener with `TIMES`."""

    def __init__(self, listener: Connections | None = None) -> None:
        self.listener = listener or Connections(TIMES)
        self.wire = Wire()
        config = ServerConfig(app, self.listener, lifespan="off", log_config=None)
        self.connection = Connection(config, ServerState(), {}, asyncio.get_running_loop())
        self.connection.connection_made(self.wire)

    def get(self, data: bytes) -> None:
        self.connection.data_received(data)

    def wait(self, seconds: float) -> SimpleNamespace:
        """What can be seen of it so much later."""
        self.listener.pass_time(seconds)
        status = int(self.wire.written.rpartition(b"HTTP/1.1 ")[2][:3] or 0)
        return SimpleNamespace(status=status, ended=self.wire.ended, aborted=self.wire.aborted)


@pytest.mark.fault(32, "silent connections")
async def test_a_silent_connection_has_the_time_of_a_head() -> None:
    opened = Opened()
    assert not opened.wait(9.9).aborted
    assert opened.wait(0.1).aborted


@pytest.mark.fault(32, "half-sent heads")
@pytest.mark.attack("a head byte by byte", expected="408 after 10 s")
async def test_bytes_of_a_head_give_no_more_time() -> None:
    opened = Opened()
    opened.get(GET)
    for _ in range(9):
        assert opened.wait(1).status == 0
        opened.get(b"A")
    assert (opened.wait(1).status, opened.wire.ended) == (408, True)
    assert opened.wait(LINGER_SECONDS).aborted


@pytest.mark.fault(32, "slow bodies")
@pytest.mark.attack("a body byte by byte", expected="408 after 10 s and what its bytes are worth")
async def test_a_body_gets_more_time_for_what_has_come() -> None:
    opened = Opened()
    opened.get(POST)
    opened.get(b"x" * LEAST_BYTES_A_SECOND * 3)
    assert opened.wait(12.9).status == 0
    opened.get(b"x")
    assert opened.wait(0.2).status == 408


async def test_an_idle_connection_is_closed() -> None:
    opened = Opened()
    opened.get(GET + b"\r\n")
    assert opened.wait(600).status == 0  # it is being answered, as long as that takes
    await asyncio.sleep(0)
    assert opened.wait(14.9).status == 204
    opened.get(GET)  # from the first byte it has the time of a head
    assert not opened.wait(9.9).ended
    opened.get(b"\r\n")
    await asyncio.sleep(0)
    assert not opened.wait(14.9).aborted
    assert opened.wait(0.1).aborted


@pytest.mark.fault(32, "an answer that is taken too slowly")
async def test_an_answer_has_to_be_taken_at_a_least_pace() -> None:
    opened = Opened()
    opened.get(GET + b"\r\n")
    opened.wire.unsent = 40 * LEAST_BYTES_A_SECOND
    opened.connection.pause_writing()
    opened.wire.unsent -= 30 * LEAST_BYTES_A_SECOND
    assert not opened.wait(30).aborted
    assert not opened.wait(29.9).aborted
    assert opened.wait(0.1).aborted
    opened.connection.connection_lost(None)


async def test_an_answer_that_moves_is_never_cut_off() -> None:
    opened = Opened()
    opened.get(GET + b"\r\n")
    for _ in range(10):
        opened.wire.unsent = 60_000
        opened.connection.pause_writing()
        assert not opened.wait(29.9).aborted
        opened.wire.unsent = 0
        opened.connection.resume_writing()
        assert not opened.wait(600).aborted


async def test_the_connection_that_has_waited_longest_makes_room() -> None:
    listener = Connections(Settings(http_connections_per_peer=3))
    first, second, third = (Opened(listener) for _ in range(3))
    first.get(GET + b"\r\n")  # is being answered
    second.get(GET)
    Opened(listener)
    assert [each.wire.aborted for each in (first, second, third)] == [False, True, False]
