"""Who calls the vault: short-lived tokens, each signed by the service's own key; no shared secret."""

import json
import re
from pathlib import Path
from typing import Any, Final, cast

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from event_contracts import base64url
from servicekit.core.clock import Clock
from servicekit.core.errors import Unauthenticated
from servicekit.http.auth import Guard
from servicekit.vault.client import AUDIENCE, TOKEN_ALGORITHM

LONGEST_LIFE: Final = 60
_LEEWAY: Final = 5
_MAX_TOKEN: Final = 2048
_MOST_VERIFIED: Final = 1_000
_SYSTEM = re.compile(r"[a-z][a-z0-9-]{1,31}")


class Callers:
    """Verifies services' tokens with the public keys `<system>.pem` of a folder, which are read when first needed."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder, self._clock = folder, clock
        self._keys: dict[str, OKPKey] = {}
        # A service sends one token for half a minute: its signature is checked once. By token the system, and until when.
        self._verified: dict[str, tuple[str, int]] = {}

    def verify(self, token: str) -> str:
        """The system that signed this token in the last minute. Raises Unauthenticated."""
        now = int(self._clock.now().timestamp())
        system, until = self._verified.get(token, ("", 0))
        if now < until <= now + LONGEST_LIFE + _LEEWAY:
            return system
        if len(token) > _MAX_TOKEN:
            raise Unauthenticated
        try:
            system = _claimed_issuer(token)
            claims = jwt.decode(token, self._key(system), algorithms=[TOKEN_ALGORITHM]).claims
            _rules(system, now).validate(claims)
        except (JoseError, OSError, ValueError, TypeError, KeyError, RecursionError):
            raise Unauthenticated("The service's token is not valid here: check its key and its clock.") from None
        if claims["exp"] > now + LONGEST_LIFE + _LEEWAY:
            raise Unauthenticated(f"The service's token lives too long: {LONGEST_LIFE} seconds is the limit.")
        if len(self._verified) >= _MOST_VERIFIED:
            self._verified.clear()
        self._verified[token] = (system, int(claims["exp"]))
        return system

    def _key(self, system: str) -> OKPKey:
        if system not in self._keys:
            self._keys[system] = OKPKey.import_key((self._folder / f"{system}.pem").read_bytes())
        return self._keys[system]


def _claimed_issuer(token: str) -> str:
    """Whose key the token is to be verified with; not believed before that."""
    _, payload, _ = token.split(".")
    issuer = json.loads(base64url.decode(payload))["iss"]
    if not isinstance(issuer, str) or not _SYSTEM.fullmatch(issuer):
        raise ValueError("the issuer is not the name of a system")
    return issuer


def _rules(system: str, now: int) -> Any:
    return jwt.JWTClaimsRegistry(
        now=now,
        leeway=_LEEWAY,
        iss={"essential": True, "value": system},
        aud={"essential": True, "value": AUDIENCE},
        iat={"essential": True},
        exp={"essential": True},
    )


# A dependency that gives the system that calls; 401 without a valid token.
caller: Final = Guard[str]("service", lambda state, token: cast(Callers, state.callers).verify(token))
