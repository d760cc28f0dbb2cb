"""Who asks: the access tokens of customers and staff as FastAPI dependencies.

Both are JWTs signed with Ed25519 (RFC 7519, RFC 9864), audience "shop": a customer's is issued by "account" and has the
scope `customer` or `guest`, a staff member's by "staff" and has a `role`. Services hold public keys only.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar, cast
from uuid import UUID

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey
from starlette.datastructures import Headers
from starlette.types import Scope

from servicekit.core.clock import Clock
from servicekit.core.errors import Forbidden, Unauthenticated, Unavailable

AUDIENCE = "shop"
CUSTOMER_ISSUER = "account"
STAFF_ISSUER = "staff"
ALGORITHM = "Ed25519"
_MAX_TOKEN = 4096
_WHO = "shop.who"


@dataclass(frozen=True, slots=True)
class Customer:
    """A signed-in customer, or a guest: who ordered without an account and may see that one order."""

    subject_id: UUID
    guest: bool


@dataclass(frozen=True, slots=True)
class Staff:
    staff_id: UUID
    role: str


class Tokens:
    """Verifies access tokens under the public keys (SPKI PEM) of their issuers;
    without a key it refuses with `Unavailable`.
    """

    def __init__(self, clock: Clock, *, customer_key: bytes | None, staff_key: bytes | None) -> None:
        self._clock = clock
        keys = {CUSTOMER_ISSUER: customer_key, STAFF_ISSUER: staff_key}
        self._keys = {issuer: OKPKey.import_key(pem) for issuer, pem in keys.items() if pem}

    def customer(self, token: str) -> Customer:
        """Raises `Unauthenticated` when the token is not a valid one of a customer."""
        claims = self._claims(token, CUSTOMER_ISSUER)
        if claims.get("scope") not in ("customer", "guest"):
            raise Unauthenticated
        return Customer(_subject(claims), guest=claims["scope"] == "guest")

    def staff(self, token: str) -> Staff:
        """Raises `Unauthenticated` when the token is not a valid one of a staff member."""
        claims = self._claims(token, STAFF_ISSUER)
        if not isinstance(claims.get("role"), str):
            raise Unauthenticated
        return Staff(_subject(claims), claims["role"])

    def _claims(self, token: str, issuer: str) -> dict[str, Any]:
        key = self._keys.get(issuer)
        if key is None:
            raise Unavailable("This service has no key to verify access tokens with: the operator sets its key file.")
        if len(token) > _MAX_TOKEN:
            raise Unauthenticated
        rules = jwt.JWTClaimsRegistry(
            now=int(self._clock.now().timestamp()),
            iss={"essential": True, "value": issuer},
            aud={"essential": True, "value": AUDIENCE},
            exp={"essential": True},
            sub={"essential": True},
        )
        try:
            claims: dict[str, Any] = jwt.decode(token, key, algorithms=[ALGORITHM]).claims
            rules.validate(claims)
        # A header nested as deep as a token is long breaks the JSON reader.
        except (JoseError, ValueError, TypeError, RecursionError):
            raise Unauthenticated from None
        return claims


def _subject(claims: dict[str, Any]) -> UUID:
    try:
        return UUID(claims["sub"])
    except (ValueError, AttributeError, TypeError):
        raise Unauthenticated from None


_bearer = HTTPBearer(auto_error=False, bearerFormat="JWT", description="An access token as issued at sign-in.")
_Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


W = TypeVar("W")


class Guard(Generic[W]):
    """A dependency that gives who asks. The edge runs it before it reads the body of a request."""

    def __init__(self, who: str, verify: Callable[[Any, str], W]) -> None:
        """`who` is let in, in words. `verify` gets the app's state and the token; it is cheap, and raises `Unauthenticated`
        or `Forbidden`.
        """
        self.who, self._verify = who, verify

    def admit(self, scope: Scope, state: Any) -> W:
        """Who sends this request; the route is told the same."""
        scheme, _, token = Headers(scope=scope).get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated
        who = self._verify(state, token.strip())
        scope[_WHO] = (self, who)
        return who

    async def __call__(self, request: Request, _: _Credentials) -> W:
        guard, who = request.scope.get(_WHO, (None, None))
        if guard is self:
            return cast(W, who)
        return self.admit(request.scope, request.app.state)


def caller_in(scope: Scope) -> Any:
    """Who sends this request, as its route's `Guard` has said; None on an open route."""
    return scope.get(_WHO, (None, None))[1]


def customer(*, guests: bool = True) -> Guard[Customer]:
    """A dependency that gives the customer who asks: `Annotated[Customer, Depends(customer())]`; 401 without a valid
    token.

    With `guests=False` a guest's token gets 403.
    """

    def verify(state: Any, token: str) -> Customer:
        who = cast(Tokens, state.tokens).customer(token)
        if who.guest and not guests:
            raise Forbidden("A guest has no account. Register one, then try again.")
        return who

    return Guard("customer or guest" if guests else "customer", verify)


def staff(*roles: str) -> Guard[Staff]:
    """A dependency that gives the staff member who asks:
    401 without a valid token, 403 with another role than these.
    """

    def verify(state: Any, token: str) -> Staff:
        who = cast(Tokens, state.tokens).staff(token)
        if who.role not in roles:
            raise Forbidden("This needs another staff role than yours. Ask somebody who has it.")
        return who

    return Guard(f"staff: {', '.join(roles)}", verify)
