"""The vault's client: ensures keys for writers, leases keys to readers, in batches, with a bounded cache of leases.

Fails closed: without the vault it raises `Unavailable` after a short time of trying again. A cached key is used only
with the subject, class and anchor it was leased with, for the purpose it was leased for, and until its lease is over,
counted from the moment of the *request* (docs/protocols.md#asking-the-vault).
"""

import asyncio
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import accumulate, islice
from typing import Final, Literal, NamedTuple, TypeVar
from uuid import UUID, uuid4

import httpx
import msgspec
from joserfc import jwt
from joserfc.jwk import OKPKey

from event_contracts import base64url
from event_contracts.personal import Erased
from event_contracts.vault_api import (
    MOST_KEYS,
    Done,
    EnsureAnswer,
    EnsureBody,
    FindBody,
    Found,
    IndexBody,
    IndexKeys,
    KeyBody,
    LeaseAnswer,
    LeaseBody,
    LeasedKey,
    LeasesBody,
    RevocationPage,
)
from servicekit.core.batcher import Batcher
from servicekit.core.clock import Backoff, Clock
from servicekit.core.errors import Fenced, Forbidden, Gone, Invalid, Taken, Unavailable
from servicekit.core.logs import code, get_log
from servicekit.core.metrics import VAULT_CALLS, VAULT_SECONDS
from servicekit.http.tls import tls_of
from servicekit.vault.client_errors import error_of
from servicekit.vault.leases import KeyName as KeyName  # so that callers need one import
from servicekit.vault.leases import Lease, Leases
from servicekit.vault.token import SealingKey

AUDIENCE: Final = "vault"
TOKEN_ALGORITHM: Final = "Ed25519"  # noqa: S105 - RFC 9864's name of it
TOKEN_LIFE: Final = timedelta(seconds=55)
TOKEN_RENEWAL: Final = timedelta(seconds=30)
BATCH: Final = MOST_KEYS
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0

log = get_log("vault_client")


class LeaseName(NamedTuple):
    """A key that a token names, with what the opener states of it."""

    key_id: UUID
    subject: UUID
    data_class: str
    anchor: UUID

    @property
    def name(self) -> KeyName:
        return KeyName(self.subject, self.data_class, self.anchor)


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """A blind-index digest to be left beside a key: `key` is the position of that key in what `ensure` is asked for."""

    kind: str
    digest: bytes
    key: int


@dataclass(frozen=True, slots=True)
class New:
    """The keys are for something new: no name may have had a key that is gone, and `people` are new as well.

    A name that has a key already is a retry's, and gets that key.
    """

    people: frozenset[UUID] = frozenset()

    def what(self, subject: UUID) -> Literal["person", "anchor"]:
        return "person" if subject in self.people else "anchor"


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What one call of `ensure` asks for; the positions of its index entries are those of its own names."""

    names: Sequence[KeyName]
    index: Sequence[IndexEntry]
    new: New | None

    def size(self) -> int:
        return max(len(self.names), len(self.index))


A = TypeVar("A", bound=msgspec.Struct)
L = TypeVar("L", EnsureAnswer, LeaseAnswer)


class ServiceIdentity:
    """Signs the short-lived tokens by which the vault knows a service: EdDSA, iss = system, aud = vault."""

    def __init__(self, system: str, private_key_pem: bytes, clock: Clock) -> None:
        self.system = system
        self._key = OKPKey.import_key(private_key_pem)
        self._clock = clock
        self._token = ""
        self._made_at = clock.now()

    def token(self) -> str:
        """A token that is good for at least another 25 s, also after the clock was set back: the vault's was, too."""
        now = self._clock.now()
        if not self._token or not timedelta() <= now - self._made_at < TOKEN_RENEWAL:
            claims = {"iss": self.system, "aud": AUDIENCE, "iat": int(now.timestamp())}
            claims["exp"] = int((now + TOKEN_LIFE).timestamp())
            self._token = jwt.encode({"alg": TOKEN_ALGORITHM}, claims, self._key, algorithms=[TOKEN_ALGORITHM])
            self._made_at = now
        return self._token


class VaultClient:
    """One per process.

    `patience` is how long a call is tried in all, in seconds; `cached_keys` bounds each of the two caches. By
    `holder_id` the vault knows this process as a holder of keys (docs/protocols.md#asking-the-vault).
    """

    def __init__(
        self,
        url: str,
        identity: ServiceIdentity,
        clock: Clock,
        *,
        patience: float = 5.0,
        cached_keys: int = 20_000,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        limits = httpx.Limits(max_connections=8, max_keepalive_connections=8)
        self._http = httpx.AsyncClient(
            base_url=url,
            timeout=patience,
            limits=limits,
            transport=transport,
            trust_env=False,
            follow_redirects=False,
            verify=tls_of(url),
        )
        self.holder_id = uuid4()
        self._identity, self._clock, self._patience = identity, clock, patience
        self._leases = Leases(clock, cached_keys)
        own = (Forbidden, Fenced, Invalid, Gone, Taken)
        self._ensuring = Batcher(self._ensure, own, BATCH, _Wanted.size)
        self._index_keys: dict[str, tuple[bytes, float]] = {}

    async def close(self) -> None:
        """Forget all keys and close the connections."""
        self._leases.clear()
        self._index_keys.clear()
        await self._ensuring.close()
        await self._http.aclose()

    async def ensure(
        self, wanted: Sequence[KeyName], index: Sequence[IndexEntry] = (), new: New | None = None
    ) -> list[SealingKey]:
        """A key to seal with for each name, made where there is none yet; same order. One request per 2,000 names.

        What is asked while a request is under way goes together in the next one. `index` is written beside the keys in the
        same transaction, so with it the vault is always asked; with `new`, too.
        Raises Fenced, Forbidden, TooMany, Unavailable; with `new` also Gone and Taken.
        """
        if index and len(wanted) > BATCH:
            raise ValueError(f"at most {BATCH} keys can be ensured together with index entries; send them in parts")
        ask_always = bool(index) or new is not None
        found: dict[KeyName, SealingKey | None] = {
            name: None if ask_always else self._leases.ensured(name) for name in wanted
        }
        missing = list(wanted) if ask_always else [name for name, key in found.items() if key is None]
        for start in range(0, len(missing), BATCH):
            names = missing[start : start + BATCH]
            found.update(zip(names, await self._ensuring.answer(_Wanted(names, index, new)), strict=True))
        return [key for name in wanted if (key := found[name]) is not None]

    async def _ensure(self, wanted: Sequence[_Wanted]) -> list[list[SealingKey]]:
        """The keys of each, with one call for all."""
        names = [
            KeyBody(*name, None if each.new is None else each.new.what(name.subject))
            for each in wanted
            for name in each.names
        ]
        starts = accumulate((len(each.names) for each in wanted), initial=0)
        index = [
            IndexBody(entry.kind, base64url.encode(entry.digest), start + entry.key)
            for each, start in zip(wanted, starts, strict=False)
            for entry in each.index
        ]
        reply, deadline = await self._lease_call("/v1/keys/ensure", EnsureBody(names, index), EnsureAnswer)
        keys = iter([SealingKey.derive(entry.key_id, base64url.decode(entry.key)) for entry in reply.keys])
        found = [list(islice(keys, len(each.names))) for each in wanted]
        for each, its in zip(wanted, found, strict=True):
            for name, key in zip(each.names, its, strict=True):
                self._leases.put_ensured(Lease(key, name, deadline))
        return found

    async def lease(self, purpose: str, wanted: Sequence[LeaseName]) -> list[SealingKey | Erased]:
        """A key to open with for each name, `Erased` if it is fenced or destroyed; same order. One request per 2,000.

        Raises UnknownKey (never read it as erased), Forbidden, TooMany, Unavailable.
        """
        found: dict[LeaseName, SealingKey | Erased | None] = {
            lease: self._leases.opened(lease.key_id, lease.name, purpose) for lease in wanted
        }
        missing = [lease for lease, key in found.items() if key is None]
        for start in range(0, len(missing), BATCH):
            names = missing[start : start + BATCH]
            body = LeasesBody(purpose, [LeaseBody(*lease) for lease in names])
            reply, deadline = await self._lease_call("/v1/keys/lease", body, LeaseAnswer)
            for lease, entry in zip(names, reply.keys, strict=True):
                found[lease] = self._take(lease, entry, purpose, deadline)
        erased = [key.key_id for key in found.values() if isinstance(key, Erased)]
        if erased:
            self.drop(erased)
        return [key for lease in wanted if (key := found[lease]) is not None]

    async def index_key(self, kind: str) -> bytes:
        """The key of the blind index `kind` (email, phone, order_number, shop_order_number). Raises Forbidden, Unavailable."""
        key, deadline = self._index_keys.get(kind, (b"", 0.0))
        if self._clock.boottime() >= deadline:
            asked = self._clock.boottime()
            reply = await self.call("GET", f"/v1/index-keys?kinds={kind}", IndexKeys)
            key = base64url.decode(reply.keys[kind])
            self._index_keys[kind] = (key, asked + reply.lease_seconds)
        return key

    async def find(self, kind: str, digest: bytes) -> list[KeyName]:
        """Whose active keys have this digest beside them. Raises Forbidden, TooMany, Unavailable."""
        reply = await self.call("POST", "/v1/directory/find", Found, FindBody(kind, base64url.encode(digest)))
        return [KeyName(each.subject, each.data_class, each.anchor) for each in reply.found]

    async def revocations(self, after: int, wait: float, done: int | None = None, limit: int = 500) -> RevocationPage:
        """At most `limit` entries of the list after number `after`; waits up to `wait` seconds (30 at most) for one.

        `done` reports that all work has ended that this process began with keys named up to that number.
        Raises Unavailable.
        """
        path = f"/v1/revocations?after={after}&wait={wait}&limit={limit}"
        if done is not None:
            path += f"&holder={self.holder_id}&done={done}"
        return await self.call("GET", path, RevocationPage, patience=wait + self._patience)

    async def sign_off(self) -> None:
        """This process holds no key any more: nobody has to wait for it. Raises Unavailable."""
        self._leases.clear()
        holder, self.holder_id = self.holder_id, uuid4()  # what is leased after this is another holder's
        await self.call("DELETE", f"/v1/holders/{holder}", Done)

    def is_live(self, purpose: str, key_ids: Iterable[UUID]) -> bool:
        """Whether all of these leases still run: to be asked right before what they opened is used or sent."""
        return self._leases.is_live(purpose, key_ids)

    def apply(self, incarnation: str, revision: int, key_ids: Iterable[UUID]) -> None:
        """The revocation list was read up to `revision`: drop these keys, and refuse replies from before it."""
        self._leases.applied(incarnation, revision)
        self.drop(key_ids)

    def drop(self, key_ids: Iterable[UUID]) -> None:
        """Forget these keys at once."""
        self._leases.drop(key_ids)

    def _take(self, lease: LeaseName, entry: LeasedKey, purpose: str, deadline: float) -> SealingKey | Erased:
        if entry.key_id != lease.key_id:
            raise Unavailable("The vault answered for another key than it was asked for; check that it is our vault.")
        match entry.state:
            case "active":
                key = SealingKey.derive(lease.key_id, base64url.decode(entry.key))
                self._leases.put_opened(Lease(key, lease.name, deadline), purpose)
                return key
            case "fenced" | "destroyed":
                return Erased(lease.key_id)
        raise Unavailable("The vault answered with a state that this version does not know; update this service.")

    async def _lease_call(self, path: str, body: EnsureBody | LeasesBody, kind: type[L]) -> tuple[L, float]:
        """The answer, and the boot time until which its keys may be used. A reply that is out of date is asked again."""
        give_up = self._clock.boottime() + self._patience
        while True:
            asked, era = self._clock.boottime(), self._leases.era
            reply = await self.call("POST", path, kind, body)
            if len(reply.keys) != len(body.keys):
                raise Unavailable(
                    "The vault answered for other keys than it was asked for; check that it is our vault."
                )
            if self._leases.accepts(reply.incarnation, reply.revision, era):
                return reply, asked + reply.lease_seconds
            VAULT_CALLS.labels(path, "out_of_date").inc()
            if self._clock.boottime() >= give_up:
                raise Unavailable("The vault answers from behind the revocation list that this process has applied.")
            await asyncio.sleep(_FIRST_PAUSE)

    async def call(
        self,
        method: str,
        path: str,
        kind: type[A],
        body: msgspec.Struct | None = None,
        *,
        patience: float | None = None,
    ) -> A:
        """Call a route of the vault that may be repeated, and read its answer as `kind`.

        `patience` in seconds, if it is not the client's. Raises Forbidden, Fenced, Invalid, TooMany, Unavailable.
        """
        call = _name(path)
        content = None if body is None else msgspec.json.encode(body)
        with VAULT_SECONDS.labels(call).time():
            response = await self._send(method, path, content, patience or self._patience)
        VAULT_CALLS.labels(call, str(response.status_code)).inc()
        if response.status_code != httpx.codes.OK:
            raise error_of(response)
        try:
            return msgspec.json.decode(response.content, type=kind)
        except msgspec.MsgspecError:
            raise Unavailable("The vault's answer cannot be read: check VAULT_URL, and both sides' versions.") from None

    async def _send(self, method: str, path: str, content: bytes | None, patience: float) -> httpx.Response:
        """Send until an answer comes or patience ends: every call may be repeated. The token is renewed on the way."""
        give_up = self._clock.boottime() + patience
        pause = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        while True:
            headers = {
                "Authorization": f"Bearer {self._identity.token()}",
                "Content-Type": "application/json",
                "X-Holder": str(self.holder_id),
            }
            try:
                response = await self._http.request(method, path, content=content, headers=headers, timeout=patience)
                if response.status_code not in (502, 503, 504):
                    return response
                reason = str(response.status_code)
            except httpx.TransportError as error:
                reason = type(error).__name__
            if self._clock.boottime() + pause.seconds >= give_up:
                log.warning("vault_unavailable", call=code(_name(path)), reason=code(reason))
                raise Unavailable("The vault does not answer, so nothing can be sealed or opened. Try again later.")
            await asyncio.sleep(pause.next() * random.uniform(0.5, 1.0))


def _name(path: str) -> str:
    """The route without what differs from call to call."""
    return "/v1/holders" if path.startswith("/v1/holders/") else path.partition("?")[0]
