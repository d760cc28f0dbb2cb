"""Problem details (RFC 9457) for every error at the HTTP edge. Nothing in them comes from the request."""

import math
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from servicekit.core.errors import MAX_FIELDS, FieldProblem, InvalidFields, KitError, NotFound, TooMany, Unauthenticated
from servicekit.core.logs import get_log
from servicekit.http.expected import expected

log = get_log("http")

MEDIA_TYPE = "application/problem+json"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")


class Problem(BaseModel):
    """RFC 9457. `type` is a relative URI and names the error for programs."""

    type: str = Field(examples=["/problems/invalid"])
    title: str
    status: int
    detail: str
    errors: list[FieldProblem] = []


def invalid_fields(error: ValidationError, *prefix: str | int) -> InvalidFields:
    """From a pydantic error of input that a route validated itself and found at `prefix`."""
    return InvalidFields(_fields(error.errors(include_url=False, include_input=False), prefix))


RESPONSES: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "An error, as problem details",
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        "model": Problem,
    },
    422: {"description": "The request is not valid", "model": Problem},
}


def problem_response(error: KitError) -> Response:
    """The answer to a request that ended in `error`."""
    problem: dict[str, Any] = {
        "type": f"/problems/{error.code}",
        "title": error.code.replace("_", " "),
        "status": error.status,
        "detail": error.detail,
    }
    if isinstance(error, InvalidFields):
        problem["errors"] = [field.model_dump(exclude_none=True) for field in error.fields]
    return JSONResponse(problem, status_code=error.status, headers=_headers(error), media_type=MEDIA_TYPE)


def _headers(error: KitError) -> dict[str, str]:
    if isinstance(error, TooMany):
        return {"Retry-After": str(max(1, math.ceil(error.retry_after)))}
    if isinstance(error, Unauthenticated):
        return {"WWW-Authenticate": "Bearer"}
    return {"Retry-After": "5"} if error.status == 503 else {}


def add_handlers(app: FastAPI) -> None:
    """Make the app answer its errors with problem details."""
    app.add_exception_handler(KitError, _kit_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_exception)


async def _kit_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, KitError)
    if error.status >= 500:
        log.error("request_failed", error=error)
    # Programs that call us need the code; what failed inside is for the log.
    return problem_response(error if error.status != 500 else KitError())


async def _validation_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return problem_response(InvalidFields(_fields(error.errors())))


async def _http_exception(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == HTTPStatus.NOT_FOUND:
        return problem_response(NotFound())
    phrase = HTTPStatus(error.status_code).phrase
    problem = {"type": "about:blank", "title": phrase, "status": error.status_code, "detail": f"{phrase}."}
    return JSONResponse(problem, error.status_code, headers=dict(error.headers or {}), media_type=MEDIA_TYPE)


def _fields(errors: Sequence[Mapping[str, Any]], prefix: tuple[str | int, ...] = ()) -> list[FieldProblem]:
    return [
        FieldProblem(at=_path(error, prefix), code=error["type"], expected=expected(error))
        for error in errors[:MAX_FIELDS]
    ]


def _path(error: Mapping[str, Any], prefix: tuple[str | int, ...]) -> str:
    path = [str(part) if isinstance(part, int) or _NAME.fullmatch(part) else "*" for part in (*prefix, *error["loc"])]
    # The name of a field that we do not know is the sender's.
    if error["type"] == "extra_forbidden":
        path[-1] = "*"
    # Callers know their fields by the body that they sent.
    return ".".join(path[1:] if path[0] == "body" and len(path) > 1 else path)
