"""What letting people in takes: passwords, the tokens that they get, and limits on trying."""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from joserfc import jwt
from joserfc.jwk import OKPKey

from account_service.passwords import Passwords
from account_service.settings import AccountSettings
from servicekit.auth import ALGORITHM, AUDIENCE, CUSTOMER_ISSUER
from servicekit.clock import Clock
from servicekit.limits import RateLimit


@dataclass(frozen=True)
class AccessToken:
    """A JWT for the header `Authorization: Bearer`, and the seconds that it lasts."""

    text: str
    expires_in: int


class TokenIssuer:
    """Signs customers' access tokens with the shop's customer key (Ed25519, PKCS#8 PEM). See `servicekit.auth`."""

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
    """One per process. The limits count per keyed digest of an e-mail address."""

    def __init__(self, settings: AccountSettings, clock: Clock) -> None:
        self.passwords = Passwords(settings)
        self.tokens = TokenIssuer(settings.read("customer_key_file"), clock, settings)
        rate, burst = settings.sign_in_per_minute, settings.sign_in_burst
        self.sign_in_limit = RateLimit("sign_in", clock, per_minute=rate, burst=burst)
        self.register_limit = RateLimit("register", clock, per_minute=rate, burst=burst)
        self._refusal_seconds = settings.sign_in_refusal_seconds

    def rest_of_refusal(self, elapsed: float) -> float:
        """Seconds to wait so that a refusal takes a whole number of steps: no caller can measure what it took."""
        step = self._refusal_seconds
        return -elapsed % step if step else 0.0
