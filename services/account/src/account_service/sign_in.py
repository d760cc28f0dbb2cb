"""What letting people in takes: passwords, the tokens that they get, and limits on trying."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from joserfc import jwt
from joserfc.jwk import OKPKey

from account_service.passwords import Passwords
from account_service.settings import AccountSettings
from servicekit import Limit
from servicekit.core.clock import Clock
from servicekit.http.auth import ALGORITHM, AUDIENCE, CUSTOMER_ISSUER
from servicekit.http.limits import Limits

# By address and peer: nobody keeps others from registering with their own address.
REGISTER: Final = Limit("register", 10, 60, "term")
REGISTER_PEER: Final = Limit("register_peer", 30, 60, "peer")
SIGN_IN_PEER: Final = Limit("sign_in_peer", 60, 60, "peer")
# At one address from one peer: it takes several peers to use up what all have together.
SIGN_IN_HOURLY: Final = Limit("sign_in_hourly", 30, 3600, "term")
# Guesses at one address from all peers together.
SIGN_IN_EVERYWHERE: Final = Limit("sign_in_everywhere", 200, 3600, "term")
SIGNED_IN: Final = Limit("signed_in", 1, 86_400, "term")


@dataclass(frozen=True)
class AccessToken:
    """A JWT for the header `Authorization: Bearer`, and the seconds that it lasts."""

    text: str
    expires_in: int


class TokenIssuer:
    """Signs customers' access tokens with the shop's customer key (Ed25519, PKCS#8 PEM). See `servicekit.http.auth`."""

    def __init__(self, private_key_pem: bytes, clock: Clock, settings: AccountSettings) -> None:
        self._key = OKPKey.import_key(private_key_pem)
        self._clock = clock
        self._minutes = {"customer": settings.customer_token_minutes, "guest": settings.guest_token_minutes}

    def customer(self, subject_id: UUID) -> AccessToken:
        return self._issue(subject_id, "customer")

    def guest(self, subject_id: UUID) -> AccessToken:
        return self._issue(subject_id, "guest")

    def _issue(self, subject_id: UUID, scope: str) -> AccessToken:
        now, life = self._clock.now(), timedelta(minutes=self._minutes[scope])
        times = {"iat": int(now.timestamp()), "exp": int((now + life).timestamp())}
        claims = {"iss": CUSTOMER_ISSUER, "aud": AUDIENCE, "sub": str(subject_id), "scope": scope, **times}
        text = jwt.encode({"alg": ALGORITHM}, claims, self._key, algorithms=[ALGORITHM])
        return AccessToken(text, int(life.total_seconds()))


class Access:
    """One per process. It counts tries under keyed digests of an e-mail address."""

    def __init__(self, settings: AccountSettings, clock: Clock, limits: Limits) -> None:
        self.passwords = Passwords(settings)
        self.tokens = TokenIssuer(settings.read("customer_key_file"), clock, settings)
        self.limits = limits
        self.sign_in_limit = Limit("sign_in", settings.sign_in_per_minute, 60, "term")
        self._refusal_seconds = settings.sign_in_refusal_seconds

    async def admit_new(self, address: bytes, peer: str) -> None:
        """Count a try to register, or to begin as a guest. Raises `TooMany`."""
        await self.limits.take((REGISTER, _pair(address, peer)))

    async def admit_sign_in(self, address: bytes, peer: str) -> None:
        """Count a try to sign in. Raises `TooMany`.

        Each peer has its own tries at an address, and what is beyond them counts nowhere else. What all peers
        together try does not shut out a peer from which the owner
        has signed in since yesterday.
        """
        pair = _pair(address, peer)
        await self.limits.take((self.sign_in_limit, pair), (SIGN_IN_HOURLY, pair))
        (everywhere,) = await self.limits.count((SIGN_IN_EVERYWHERE, address))
        if not self.limits.is_over(SIGN_IN_EVERYWHERE, everywhere):
            return
        if not await self.limits.was_tried(SIGNED_IN, pair):
            raise self.limits.refusal((SIGN_IN_EVERYWHERE, everywhere))

    async def remember(self, address: bytes, peer: str) -> None:
        """The owner of the address has signed in from there."""
        await self.limits.remember(SIGNED_IN, _pair(address, peer))

    def rest_of_refusal(self, elapsed: float) -> float:
        """Seconds to wait so that a refusal takes a whole number of steps: no caller can measure what it took."""
        step = self._refusal_seconds
        return -elapsed % step if step else 0.0


def _pair(address: bytes, peer: str) -> bytes:
    return address + peer.encode()
