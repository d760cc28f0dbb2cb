"""The HTTP edge of a process: `make_app`.

Admission, errors and the access log are dealt with here for all routes.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from fastapi import APIRouter, FastAPI
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from servicekit.core import metrics
from servicekit.core.clock import Clock
from servicekit.core.errors import KitError, Unavailable
from servicekit.core.health import Health
from servicekit.core.logs import code, get_log
from servicekit.core.settings import Settings
from servicekit.core.work import Work
from servicekit.http.admission import Admission, rules_of
from servicekit.http.auth import Tokens, caller_in
from servicekit.http.ids import Ids
from servicekit.http.limits import Limits, Strangers
from servicekit.http.problems import RESPONSES, add_handlers, problem_response

log = get_log("http")

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")


def make_app(
    settings: Settings,
    clock: Clock,
    health: Health,
    routers: Iterable[APIRouter] = (),
    *,
    refuse_cards: bool = True,
    work: Work | None = None,
    limits: Limits | None = None,
    requests_per_caller: int | None = None,
) -> FastAPI:
    """The app of one process: the routes of its service. What the operator asks is elsewhere: `probes.py`.

    `refuse_cards=False` is for an API between services that takes ids, codes and digests only, thousands at once.
    `work` counts the requests under way of a process that holds keys. Without `limits` only strangers are counted.
    Of `HTTP_REQUESTS` one caller, as its token names it, has at most `requests_per_caller`, so it keeps no other out.
    """
    app = FastAPI(
        title=health.service,
        version=health.version,
        docs_url=None,
        redoc_url=None,
        responses=RESPONSES,
        # Spans would carry paths and exceptions' messages (law L1).
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.state.tokens = Tokens(
        clock,
        customer_key=settings.read("customer_public_key_file") if settings.customer_public_key_file else None,
        staff_key=settings.read("staff_public_key_file") if settings.staff_public_key_file else None,
    )
    app.state.ids = Ids.of(health.service, settings)
    routers = list(routers)
    for router in routers:
        app.include_router(router)
    factor = settings.limits_factor
    strangers = Strangers(
        clock, per_minute=settings.strangers_per_minute * factor, burst=int(settings.strangers_burst * factor) or 1
    )
    admission = Admission(app.state, rules_of(routers), strangers, limits, refuse_cards=refuse_cards)
    add_handlers(app)
    app.add_middleware(
        _Edge,
        health=health,
        admission=admission,
        work=work or Work(),
        most=settings.http_requests,
        most_each=requests_per_caller or settings.http_requests,
    )
    return app


_BUSY: Final = (
    "This process answers as many requests as it can at once, or as many of one service. Try again a little later."
)
_END_WORK: Final = "servicekit.end_work"
_CUT_OFF: Final = "The process is stopping, and this request had not ended. Send it again as it was."


def end_work(request: Request) -> None:
    """The request is no unit of work any more: its route says itself, with `kit.work()`, when it uses keys."""
    request.scope[_END_WORK]()


class _Edge:
    """Around every request: admits it or refuses it, catches what nobody caught, logs and counts."""

    def __init__(
        self, app: ASGIApp, health: Health, admission: Admission, work: Work, most: int, most_each: int
    ) -> None:
        self._app, self._health, self._admission, self._work = app, health, admission, work
        self._most, self._most_each = most, most_each
        self._answering, self._by_caller = 0, Counter[Any]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        unit = 0
        answer = _Answer(send, lambda: self._work.end(unit))
        started = time.perf_counter()
        try:
            body = await self._admitted(scope, receive)
            with self._one_more(caller_in(scope)):
                # From here until the answer begins it opens and seals: a slow client holds no erasure up.
                unit = self._work.begin()
                scope[_END_WORK] = answer.end_work
                await self._app(scope, _replay(body, receive), answer.send)
        except KitError as error:
            await problem_response(error)(scope, receive, answer.send)
        except asyncio.CancelledError:
            # The process stops, and the request has had its time: the server itself would say 500.
            if not answer.status:
                await problem_response(Unavailable(_CUT_OFF))(scope, receive, answer.send)
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, its message must not reach the server's own log
            log.error("request_crashed", error=error, route=code(_route(scope)))
            if not answer.status:
                await problem_response(KitError())(scope, receive, answer.send)
        finally:
            answer.end_work()
            _record(scope, answer.status, time.perf_counter() - started)

    @contextmanager
    def _one_more(self, caller: Any) -> Iterator[None]:
        """Counts what is whole and under way: a request that has not arrived keeps nobody out. Raises `Unavailable`."""
        if self._answering >= self._most or self._by_caller[caller] >= self._most_each:
            raise Unavailable(_BUSY)
        self._answering += 1
        self._by_caller[caller] += 1
        try:
            yield
        finally:
            self._answering -= 1
            self._by_caller[caller] -= 1
            if not self._by_caller[caller]:
                del self._by_caller[caller]

    async def _admitted(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body of a request that may go on. Raises a `KitError` for one that may not."""
        if self._health.refuses:
            raise Unavailable
        return await self._admission.admit(scope, receive)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body that was read already, then goes on with the connection's own messages."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Message:
        return waiting.pop() if waiting else await receive()

    return next_message


class _Answer:
    """Remembers the status on its way out, and keeps personal data out of caches."""

    def __init__(self, send: Send, end_work: Callable[[], None]) -> None:
        self._send, self.end_work = send, end_work
        self.status = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["Cache-Control"] = "no-store"
            headers["X-Content-Type-Options"] = "nosniff"
            self.end_work()
        await self._send(message)


def _route(scope: Scope) -> str:
    """The template of the route, such as /v1/orders/{order_id}: the path itself is the caller's."""
    template = getattr(scope.get("route"), "path", None)
    return template.replace("{", ":").replace("}", "") if isinstance(template, str) else "unmatched"


def _record(scope: Scope, status: int, seconds: float) -> None:
    route = _route(scope)
    method = scope["method"] if scope["method"] in _METHODS else "other"
    metrics.HTTP_REQUESTS.labels(method, route, status).inc()
    metrics.HTTP_SECONDS.labels(method, route).observe(seconds)
    log.info("request", method=code(method), route=code(route), status=status, ms=round(seconds * 1000, 1))
