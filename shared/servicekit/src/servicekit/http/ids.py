"""Ids of new resources: the service makes them, so no caller chooses one, and a retry needs no table.

An id is HMAC-SHA256 under the service's id key over service, route, caller and Idempotency-Key, shaped as a UUID of
version 8 (RFC 9562 §5.8; docs/protocols.md#ids-and-repeated-requests).
Who reads an id in an event, a log or a certificate can make nothing with it.
"""

import hmac
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final
from uuid import UUID, uuid4

from fastapi import Depends, Header, Request

from servicekit.core.errors import FieldProblem, InvalidFields, Misconfigured, Unavailable
from servicekit.core.settings import Settings
from servicekit.http.auth import Customer, Staff

KEY_BYTES: Final = 32
STRANGER: Final = "stranger"
_LABEL: Final = "id/v1"
# Version and variant, as in a UUID of version 8.
_SHAPE_MASK: Final = ~((0xF << 76) | (0x3 << 62))
_SHAPE: Final = (0x8 << 76) | (0x2 << 62)
_EXPECTED: Final = "Send a fresh random UUID (version 4 or 7); on a retry the same one again."

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="A random UUID (v4 or v7) of your own. Send the same one with the same body on a retry. The answer has the id.",
    ),
]


class Ids:
    """Makes the ids of one service."""

    def __init__(self, service: str, key: bytes | None) -> None:
        """`key` None: it refuses with `Unavailable` to make ids."""
        self._service, self._key = service, key

    @classmethod
    def of(cls, service: str, settings: Settings) -> "Ids":
        """Under the key in `id_key_file`, 32 bytes or more in hex. Raises `Misconfigured`."""
        if settings.id_key_file is None:
            return cls(service, None)
        try:
            key = bytes.fromhex(settings.read("id_key_file").decode("ascii"))
        except ValueError:
            key = b""
        if len(key) < KEY_BYTES:
            raise Misconfigured(
                f"ID_KEY_FILE does not hold {KEY_BYTES} bytes in hex. Make it with: openssl rand -hex 32"
            )
        return cls(service, key)

    def derive(self, label: str) -> bytes | None:
        """A key of another use; None without an id key."""
        return None if self._key is None else hmac.digest(self._key, label.encode(), "sha256")

    def make(self, route: str, caller: str, key: UUID) -> UUID:
        """The id for this route (its template), caller (`caller_of`) and Idempotency-Key. Raises `Unavailable`."""
        if self._key is None:
            raise Unavailable("This service has no key to make ids with: the operator sets ID_KEY_FILE.")
        # No part holds a NUL: two different lists of parts are two different texts.
        text = "\0".join((_LABEL, self._service, route, caller, str(key)))
        number = int.from_bytes(hmac.digest(self._key, text.encode(), "sha256")[:16], "big")
        return UUID(int=number & _SHAPE_MASK | _SHAPE)


def caller_of(who: Customer | Staff | None) -> str:
    """The caller as part of an id; None is a stranger, on an open route."""
    match who:
        case Customer():
            return f"customer:{who.subject_id}"
        case Staff():
            return f"staff:{who.staff_id}"
        case None:
            return STRANGER


async def _stranger() -> None:
    return None


def new_id(caller: Callable[..., Any] = _stranger) -> Callable[..., Awaitable[UUID]]:
    """A dependency: the id of what this request makes; without an Idempotency-Key a fresh one. 422 for a key that is not random.

    `caller` is the dependency that says who asks, the same as the route's own; an open route has none.
    """

    async def make(request: Request, who: Annotated[Any, Depends(caller)], given: IdempotencyKey = None) -> UUID:
        ids: Ids = request.app.state.ids
        return ids.make(request.scope["route"].path, caller_of(who), uuid4() if given is None else _random(given))

    return make


def _random(given: str) -> UUID:
    try:
        key = UUID(given)
    except ValueError:
        key = UUID(int=0)
    # Other versions are not random, so others can guess them. An id that a service made (v8) is no key, either.
    if key.version not in (4, 7):
        raise InvalidFields([FieldProblem(at="header.idempotency-key", code="uuid_version", expected=_EXPECTED)])
    return key
