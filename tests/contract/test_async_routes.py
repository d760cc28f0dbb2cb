"""Routes and their dependencies are coroutines: FastAPI runs any other one in a thread, which costs two switches a request."""

import inspect
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends
from fastapi.routing import APIRoute, iter_route_contexts

from evidence_log import witness
from servicekit import Kit, paging
from servicekit.http.admission import _all
from tests.support.reviews.app import make_router as reviews_router
from tests.support.routes import all_routers


def synchronous(routers: Iterable[APIRouter]) -> Iterator[str]:
    """Path and name of each function behind a route that FastAPI would run in a thread."""
    for router in routers:
        for context in iter_route_contexts(router.routes):
            route: Any = context
            if isinstance(context.original_route, APIRoute):
                calls = [part.call for part in _all(route.dependant) if part.call is not None]
                yield from (f"{route.path}: {call!r}" for call in calls if not _is_coroutine(call))


def _is_coroutine(call: Any) -> bool:
    return inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(type(call).__call__)


def test_no_route_of_any_service_runs_in_a_thread(tmp_path: Path) -> None:
    routers = [router for of_service in all_routers(tmp_path).values() for router in of_service]
    routers += [witness.make_router(cast(Any, None)), reviews_router(cast(Kit, None))]
    assert list(synchronous(routers)) == []


def test_a_synchronous_route_and_a_synchronous_dependency_of_a_dependency_are_found() -> None:
    """Else the test above could be satisfied with nothing."""
    router, outer = APIRouter(), APIRouter()

    def in_a_thread() -> int:
        return 1

    async def above(number: Annotated[int, Depends(in_a_thread)]) -> int:
        return number

    @router.get("/a")
    async def with_dependency(number: Annotated[int, Depends(above)]) -> int:
        return number

    @router.get("/b")
    def synchronous_route(page: Annotated[Any, Depends(paging)]) -> int:
        return 1

    outer.include_router(router)
    found = list(synchronous([outer]))
    assert [text.partition(":")[0] for text in found] == ["/a", "/b"]
    assert "in_a_thread" in found[0]
    assert "synchronous_route" in found[1]
