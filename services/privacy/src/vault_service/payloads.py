"""Bodies of the vault's routes. msgspec decodes them: with thousands of keys in one, pydantic would cost more than the rest."""

from typing import TypeVar

import msgspec
from fastapi import Request
from fastapi.responses import Response

from servicekit.core.errors import Invalid, UnsupportedMedia
from servicekit.http.bodies import is_json

B = TypeVar("B", bound=msgspec.Struct)


async def read_body(request: Request, kind: type[B]) -> B:
    """The body as `kind`. Raises `Invalid`, `UnsupportedMedia`. In JSON the edge has refused a name that stands twice."""
    if not is_json(request.headers.get("content-type", "")):
        raise UnsupportedMedia
    try:
        return msgspec.json.decode(await request.body(), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Invalid("The body is not what this route reads; see docs/vault.md.") from None


def answer(content: msgspec.Struct) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json")
