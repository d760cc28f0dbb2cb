"""The sockets of a listener: what is refused, what has an end, and who is answered meanwhile. The server is the real one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, Request
from fastapi.responses import StreamingResponse

from servicekit.core.clock import Clock
from servicekit.core.health import Health
from servicekit.core.settings import Settings
from servicekit.http.app import make_app
from servicekit.http.auth import Guard
from servicekit.http.connections import LINGER_SECONDS, MAX_HEAD, MAX_HEADERS
from servicekit.http.peers import peer, peer_of
from servicekit.http.serving import serving

LONG = 600.0
SOON = 0.2
HEAD = b"POST /v1/echo HTTP/1.1\r\nHost: shop\r\n"
SERVICE = Guard[str]("service", lambda state, token: token)
GET = b"GET /v1/peer HTTP/1.1\r\nHost: shop\r\n"


@dataclass
class Edge:
    """A listener, and what its routes wait for and note."""

    port: int = 0
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    entered: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    download_ended: asyncio.Event = field(default_factory=asyncio.Event)

    def make_router(self) -> APIRouter:
        router = APIRouter(prefix="/v1")

        @router.get("/peer")
        async def show_peer(request: Request) -> str:
            return peer(request.scope)

        @router.get("/gate")
        async def gate() -> str:
            self.entered.release()
            await self.opened.wait()
            return "through"

        @router.get("/services/gate")
        async def service_gate(service: Annotated[str, Depends(SERVICE)]) -> str:
            return await gate()

        @router.get("/services")
        async def show_service(service: Annotated[str, Depends(SERVICE)]) -> str:
            return service

        @router.post("/echo")
        async def echo(request: Request) -> dict[str, Any]:
            return {"body": (await request.body()).decode(), "headers": sorted(request.headers)}

        @router.get("/download")
        async def download() -> StreamingResponse:
            async def parts() -> AsyncIterator[bytes]:
                try:
                    while True:
                        yield b"x" * 65_536
                        await asyncio.sleep(0)
                finally:
                    self.download_ended.set()

            return StreamingResponse(parts())

        return router


@asynccontextmanager
async def listening(requests_per_caller: int | None = None, **settings: Any) -> AsyncIterator[Edge]:
    """With deadlines that no test reaches, but for those that are given. With `requests_per_caller` its callers are services."""
    times = {f"http_{what}_seconds": LONG for what in ("head", "body", "idle", "write")}
    chosen = Settings(http_port=0, **{**times, **settings})
    edge = Edge()
    health = Health("things", "api", "1.0", Clock())
    app = make_app(chosen, Clock(), health, [edge.make_router()], requests_per_caller=requests_per_caller)
    async with serving(app, chosen, by_peer=requests_per_caller is None) as edge.port:
        yield edge


Socket = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def connected(edge: Edge, address: str = "127.0.0.1") -> AsyncIterator[Socket]:
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.port, local_addr=(address, 0))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def until_closed(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the other side ends the connection."""
    came = b""
    try:
        while part := await reader.read(65_536):
            came += part
    except ConnectionError:
        pass
    return came


async def send(edge: Edge, request: bytes, address: str = "127.0.0.1") -> bytes:
    """All that comes back until the server ends the connection."""
    async with connected(edge, address) as (reader, writer):
        writer.write(request)
        return await until_closed(reader)


async def ask(edge: Edge, path: str = "/v1/peer", address: str = "127.0.0.1", more: bytes = b"") -> bytes:
    """One whole request on a connection of its own."""
    request = b"GET %b HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n%b\r\n" % (path.encode(), more)
    return await send(edge, request, address)


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n"
TWO_WAYS: dict[str, tuple[bytes, int]] = {
    "length and chunked": (CHUNKED + b"Content-Length: 4\r\n\r\n0\r\n\r\n", 400),
    "two lengths": (HEAD + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde", 400),
    "a length with a sign": (HEAD + b"Content-Length: +4\r\n\r\nabcd", 400),
    "a length in hexadecimal": (HEAD + b"Content-Length: 0x4\r\n\r\nabcd", 400),
    "a length that wraps around": (HEAD + b"Content-Length: 18446744073709551620\r\n\r\nabcd", 400),
    "another coding than chunked": (HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "chunked, and not at last": (HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400),
    "a coding that is none": (HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
    "chunked in two headers": (CHUNKED + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "chunked in HTTP/1.0": (CHUNKED.replace(b"1.1", b"1.0") + b"\r\n0\r\n\r\n", 501),
    "lines that end with LF": (GET.replace(b"\r\n", b"\n") + b"\n", 400),
    "a header that ends with LF": (GET + b"A: b\nC: d\r\n\r\n", 400),
    "a header that ends with CR": (GET + b"A: b\rC: d\r\n\r\n", 400),
    "a blank before the colon": (GET + b"A : b\r\n\r\n", 400),
    "a folded header": (GET + b"A: b\r\n c\r\n\r\n", 400),
    "a NUL in a header": (GET + b"A: b\0c\r\n\r\n", 400),
    "no host": (b"GET /v1/peer HTTP/1.1\r\n\r\n", 400),
    "two hosts": (GET + b"Host: other\r\n\r\n", 400),
    "a chunk that ends with LF": (CHUNKED + b"\r\n2\nab\n0\n\n", 400),
    "a chunk size with a blank": (CHUNKED + b"\r\n2 \r\nab\r\n0\r\n\r\n", 400),
    "a chunk that is longer than its size": (CHUNKED + b"\r\n2\r\nabX\r\n0\r\n\r\n", 400),
    "HTTP/0.9": (b"GET /v1/peer\r\n\r\n", 505),
    "HTTP/2.0": (GET.replace(b"1.1", b"2.0") + b"\r\n", 505),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "a tunnel": (b"CONNECT other:1 HTTP/1.1\r\nHost: shop\r\n\r\n", 400),
}


@pytest.mark.attack("a request that two parsers read in two ways", expected="400, 501 or 505, and the connection ends")
async def test_a_request_that_can_be_read_in_two_ways_is_refused() -> None:
    async with listening() as edge:
        found = {name: status(await send(edge, request)) for name, (request, _) in TWO_WAYS.items()}
    assert found == {name: expected for name, (_, expected) in TWO_WAYS.items()}


@pytest.mark.attack("headers in a trailer, behind the body", expected="they are dropped")
async def test_a_trailer_is_no_header() -> None:
    async with listening() as edge:
        trailer = b"Connection: close\r\n\r\n2\r\nab\r\n0\r\nAuthorization: x\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n"
        answer = await send(edge, CHUNKED + trailer)
    assert status(answer) == 200
    assert b'"body":"ab"' in answer
    assert b"authorization" not in answer
    assert b"x-forwarded-for" not in answer


async def test_what_clients_do_send_is_served() -> None:
    requests = {
        "HTTP/1.0": GET.replace(b"1.1", b"1.0") + b"\r\n",
        "an absolute address": GET.replace(b"/v1", b"http://other/v1") + b"Connection: close\r\n\r\n",
        "empty lines first": b"\r\n\r\n" + GET + b"Connection: close\r\n\r\n",
        "chunks with extensions": CHUNKED + b"Connection: close\r\n\r\n2;a=b\r\nab\r\n0\r\n\r\n",
        # It is answered in HTTP/1.1, and what follows in the other protocol is not read.
        "an upgrade": GET + b"Connection: upgrade\r\nUpgrade: h2c\r\n\r\n" + GET + b"\r\n",
    }
    async with listening() as edge:
        answers = {name: await send(edge, request) for name, request in requests.items()}
        async with connected(edge) as (reader, writer):
            writer.write(HEAD + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b"ab")
            assert status(await reader.readuntil(b"\r\n")) == 200
    assert {name: status(answer) for name, answer in answers.items()} == dict.fromkeys(requests, 200)
    assert all(answer.count(b"HTTP/1.1 ") == 1 for answer in answers.values())


@pytest.mark.attack("a queue of requests on one connection", expected="the first is answered, and the connection ends")
async def test_requests_do_not_queue_up_on_a_connection() -> None:
    async with listening() as edge, connected(edge) as (reader, writer):
        writer.write(b"GET /v1/gate HTTP/1.1\r\nHost: shop\r\n\r\n" + 10_000 * (GET + b"\r\n"))
        await edge.entered.acquire()
        edge.opened.set()
        answer = await until_closed(reader)
    assert status(answer) == 200
    assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.fault(32, "endless headers")
@pytest.mark.attack("a head without an end", expected="431 after 16 KiB")
@pytest.mark.parametrize(
    "head",
    [
        GET + b"A: " + b"x" * MAX_HEAD,
        GET + b"x" * MAX_HEAD,
        b"GET /" + b"x" * MAX_HEAD,
        GET + b"Connection: close\r\nA: %b\r\n\r\n" % (b"x" * MAX_HEAD),
        b"GET /%b HTTP/1.1\r\nHost: shop\r\n\r\n" % (b"x" * MAX_HEAD),
        GET + b"A: b\r\n" * MAX_HEADERS + b"\r\n",
    ],
    ids=["value", "name", "path", "whole value", "whole path", "many"],
)
async def test_a_head_is_limited(head: bytes) -> None:
    async with listening() as edge:
        assert status(await send(edge, head)) == 431
        # Many small pieces are one head as well.
        async with connected(edge) as (reader, writer):
            for start in range(0, len(head), 1000):
                writer.write(head[start : start + 1000])
                await writer.drain()
            assert status(await until_closed(reader)) == 431
        assert status(await ask(edge, more=b"A: %b\r\n" % (b"x" * (MAX_HEAD - 200)))) == 200


@pytest.mark.fault(32, "a body that is all framing")
@pytest.mark.attack("a chunk extension or a trailer without an end", expected="400")
@pytest.mark.parametrize("framing", [b"1;a=", b"1\r\nx\r\n0\r\nA: "], ids=["extension", "trailer"])
async def test_what_stands_around_a_body_is_limited(framing: bytes) -> None:
    async with listening() as edge, connected(edge) as (reader, writer):
        writer.write(CHUNKED + b"\r\n" + framing)
        answer = asyncio.ensure_future(until_closed(reader))
        while not answer.done():
            writer.write(b"x" * 1000)
            await asyncio.sleep(0)
        assert status(await answer) == 400


@pytest.mark.fault(32, "an endless body behind an answer")
@pytest.mark.attack("a body that goes on after the refusal", expected="413, and the connection ends")
async def test_a_body_that_goes_on_after_the_answer_is_cut_off() -> None:
    assert LINGER_SECONDS < LONG
    async with listening() as edge, connected(edge) as (reader, writer):
        writer.write(HEAD + b"Content-Length: 1000000000\r\n\r\n")
        answer = asyncio.ensure_future(until_closed(reader))
        while not answer.done():
            writer.write(b"x" * 1000)
            await asyncio.sleep(0.01)
        assert status(await answer) == 413


@pytest.mark.fault(32, "half-sent heads and bodies")
@pytest.mark.attack("a request that is sent in part", expected="408 at the deadline")
@pytest.mark.parametrize(
    "part",
    [b"G", GET, GET + b"A: b", HEAD + b"Content-Length: 9\r\n\r\nabc", CHUNKED + b"\r\n5\r\nab"],
    ids=["method", "head", "header", "body", "chunk"],
)
async def test_a_request_that_stays_half_sent_is_given_up(part: bytes) -> None:
    async with listening(http_head_seconds=SOON, http_body_seconds=SOON) as edge:
        assert status(await send(edge, part)) == 408


@pytest.mark.fault(32, "slow heads")
@pytest.mark.attack("a head that comes byte by byte", expected="408: each byte gives no more time")
async def test_a_slow_head_gets_no_more_time() -> None:
    async with listening(http_head_seconds=SOON) as edge, connected(edge) as (reader, writer):
        writer.write(GET)
        answer = asyncio.ensure_future(until_closed(reader))
        while not answer.done():
            writer.write(b"A")
            await asyncio.sleep(SOON / 10)
        assert status(await answer) == 408


async def test_idle_and_silent_connections_are_closed() -> None:
    async with listening(http_head_seconds=SOON, http_idle_seconds=SOON) as edge:
        assert await send(edge, b"") == b""
        assert await send(edge, b"\r\n\r\n") == b""
        assert status(await send(edge, GET + b"\r\n")) == 200


@pytest.mark.fault(32, "an answer that nobody takes")
@pytest.mark.attack("a download that is not read", expected="it ends at the deadline")
async def test_an_answer_that_is_not_taken_is_given_up() -> None:
    async with listening(http_write_seconds=SOON) as edge, connected(edge) as (reader, writer):
        writer.write(b"GET /v1/download HTTP/1.1\r\nHost: shop\r\n\r\n")
        assert status(await reader.readuntil(b"\r\n")) == 200
        await edge.download_ended.wait()


@pytest.mark.fault(32, "silent connections, more than the process takes")
@pytest.mark.attack("520 silent or half-sent connections", expected="others are answered, also from the same address")
@pytest.mark.parametrize(
    "part",
    [b"", b"GET / HTTP/1.1\r\nHost: x\r\nX-A: ", HEAD + b"Content-Length: 9\r\n\r\nabc"],
    ids=["silent", "head", "body"],
)
@pytest.mark.parametrize("limits", [{}, {"http_connections_per_peer": 1000}], ids=["per peer", "all"])
async def test_connections_that_wait_keep_nobody_out(part: bytes, limits: dict[str, int]) -> None:
    async with listening(**limits) as edge, AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(connected(edge)) for _ in range(520)]
        for _, writer in sockets:
            writer.write(part)
        for address in ("127.0.0.1", "127.0.0.2"):
            assert [status(await ask(edge, address=address)) for _ in range(10)] == [200] * 10
        # The first ones had to go.
        assert await until_closed(sockets[0][0]) == b""


@pytest.mark.fault(32, "silent connections until their deadline")
async def test_connections_that_wait_are_closed_at_their_deadline() -> None:
    async with listening(http_head_seconds=SOON) as edge, AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(connected(edge)) for _ in range(90)]
        assert [await until_closed(reader) for reader, _ in sockets] == [b""] * 90


async def test_a_request_that_is_being_answered_is_never_displaced() -> None:
    async with listening(http_connections_per_peer=2) as edge:
        waiting = [asyncio.ensure_future(ask(edge, "/v1/gate")) for _ in range(2)]
        for _ in waiting:
            await edge.entered.acquire()
        assert await ask(edge) == b""
        assert status(await ask(edge, address="127.0.0.2")) == 200
        edge.opened.set()
        assert [status(await each) for each in waiting] == [200, 200]
        assert status(await ask(edge)) == 200


async def test_requests_in_progress_are_limited_and_half_sent_ones_are_none() -> None:
    async with listening(http_requests=1) as edge, connected(edge) as (_, writer):
        writer.write(HEAD + b"Content-Length: 9\r\n\r\nabc")
        assert status(await ask(edge)) == 200
        waiting = asyncio.ensure_future(ask(edge, "/v1/gate"))
        await edge.entered.acquire()
        refused = await ask(edge)
        assert status(refused) == 503
        assert b"retry-after: 5\r\n" in refused
        edge.opened.set()
        assert status(await waiting) == 200
        assert status(await ask(edge)) == 200


def of(service: bytes) -> bytes:
    return b"Authorization: Bearer %b\r\n" % service


@pytest.mark.attack("one service sends the vault all the requests it answers at once", expected="others are answered")
async def test_a_service_at_its_limit_keeps_no_other_out() -> None:
    """Also where all connections are its own: those on which it was refused wait, so one of them is displaced."""
    async with listening(requests_per_caller=2, http_connections=4) as edge, AsyncExitStack() as stack:
        under_way = [asyncio.ensure_future(ask(edge, "/v1/services/gate", more=of(b"account"))) for _ in range(2)]
        for _ in under_way:
            await edge.entered.acquire()
        for _ in range(2):
            reader, writer = await stack.enter_async_context(connected(edge))
            writer.write(b"GET /v1/services HTTP/1.1\r\nHost: shop\r\n%b\r\n" % of(b"account"))
            refused = await reader.readuntil(b"\r\n\r\n")
            assert status(refused) == 503
            assert b"retry-after: 5\r\n" in refused
        assert status(await ask(edge, "/v1/services", more=of(b"order"))) == 200
        edge.opened.set()
        assert [status(await each) for each in under_way] == [200, 200]
        assert status(await ask(edge, "/v1/services", more=of(b"account"))) == 200


@pytest.mark.attack("a stranger names the address of another peer", expected="it is not believed")
async def test_only_a_trusted_proxy_names_the_peer() -> None:
    forwarded = b"X-Forwarded-For: 9.9.9.9, 198.51.100.7\r\n"
    async with listening(http_trusted_proxies="127.0.0.2, 10.0.0.0/8", http_connections_per_peer=1) as edge:
        assert b'"127.0.0.1"' in await ask(edge, more=forwarded)
        assert b'"198.51.100.7"' in await ask(edge, address="127.0.0.2", more=forwarded)
        # A proxy stands for many: it has as many connections as it needs.
        async with connected(edge, "127.0.0.2") as (reader, writer), connected(edge, "127.0.0.2"):
            writer.write(GET + forwarded + b"\r\n")
            assert status(await reader.readuntil(b"\r\n")) == 200


def test_a_peer_is_an_address_or_a_network_of_ipv6() -> None:
    assert peer_of(("203.0.113.7", 1)) == "203.0.113.7"
    assert peer_of(("2001:db8:1:2:3:4:5:6", 1)) == peer_of(("2001:db8:1:2::1", 2)) == "2001:db8:1:2::/64"
    assert peer_of(("::ffff:203.0.113.7", 1)) == "203.0.113.7"
    assert peer_of(None) == ""
