"""The key-encrypting keys (KEKs), one per epoch: loaded from a provider outside the databases, used from memory.

A provider may be slow (a cloud's key service): it is asked once per epoch and process. Wrapping and unwrapping are local.
"""

import asyncio
import hmac
import secrets
from collections.abc import Awaitable, Callable, Collection, Iterable
from datetime import timedelta
from typing import Final, Protocol, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

from servicekit.core.errors import Unavailable

KEK_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_INDEX_LABEL: Final = b"index/v1/"
_TRIES: Final = 3

R = TypeVar("R")


class WrongKek(Unavailable):
    """A stored key does not unwrap: the row was changed, or the KEK is another one. It is not erased; restore it."""

    code = "wrong_kek"


class KekMissing(Unavailable):
    """The provider has no KEK for an epoch of this database. What it wraps is not erased: restore the KEK from escrow."""

    code = "kek_missing"


class KekNotLoaded(Unavailable):
    """The KEK of an epoch is not in this process's memory yet. Try again."""

    code = "kek_not_loaded"

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.epoch = epoch


class Provider(Protocol):
    """Where KEKs are made, kept and destroyed: a folder of files, or a cloud's key service.

    A handle is what the provider needs to find the KEK again; it lies beside the epoch in the vault's database and tells
    nothing to who has only that. All methods raise Unavailable while the provider does not answer.
    """

    @property
    def name(self) -> str:
        """For people: `file`, `aws-kms`."""

    @property
    def deletion_delay(self) -> timedelta:
        """How long after an epoch is empty its KEK may still be brought back."""

    @property
    def waits(self) -> timedelta:
        """How much of `deletion_delay` the vault has to wait before it calls `destroy`; the rest is the provider's."""

    async def first(self) -> tuple[int, bytes]:
        """Epoch and handle that a vault without any epoch begins with. Raises Misconfigured."""

    async def create(self, after: int) -> tuple[int, bytes]:
        """A KEK that was never used, its epoch (higher than `after`) and handle; two calls at once give two."""

    async def load(self, epoch: int, handle: bytes) -> bytes:
        """The KEK: 32 bytes. Raises KekMissing, Misconfigured."""

    async def destroy(self, epoch: int, handle: bytes) -> None:
        """From now on, or `deletion_delay` from now on, nobody has this KEK. May be repeated."""

    async def create_index(self) -> bytes:
        """The handle of the key under the blind indexes; it belongs to no epoch and is never changed."""

    async def load_index(self, handle: bytes) -> bytes:
        """The key under the blind indexes: 32 bytes. Raises KekMissing, Misconfigured."""

    async def strays(self, known: Collection[tuple[int, bytes]]) -> list[str]:
        """Names of KEKs that none of these (epoch, handle) accounts for: left by a crash, or by a database since lost."""


class Kek:
    """The KEKs that this process has loaded. `find` gives the handle of an epoch, None once it is destroyed."""

    def __init__(self, provider: Provider, index: bytes, find: Callable[[int], Awaitable[bytes | None]]) -> None:
        self.provider = provider
        self._index, self._find = index, find
        self._aeads: dict[int, AESGCMSIV] = {}
        self._loading = asyncio.Lock()

    async def ready(self, epochs: Iterable[int]) -> None:
        """Load the KEKs of these epochs; one that is destroyed stays away. Raises KekMissing, Misconfigured, Unavailable."""
        for epoch in epochs:
            async with self._loading:
                if epoch not in self._aeads and (handle := await self._find(epoch)) is not None:
                    self._aeads[epoch] = AESGCMSIV(await self.provider.load(epoch, handle))

    def forget(self, epoch: int) -> None:
        """This KEK is destroyed."""
        self._aeads.pop(epoch, None)

    def keep_only(self, epochs: Collection[int]) -> None:
        """Forget all KEKs but these."""
        self._aeads = {epoch: aead for epoch, aead in self._aeads.items() if epoch in epochs}

    async def with_loaded(self, attempt: Callable[[], Awaitable[R]]) -> R:
        """Run `attempt`; when it lacks a KEK, load that outside of the attempt's transaction and run it again.

        A row that was read just before its epoch ended is read again, and names the next epoch by then.
        """
        for _ in range(_TRIES):
            try:
                return await attempt()
            except KekNotLoaded as missing:
                await self.ready([missing.epoch])
        return await attempt()

    def wrap(self, epoch: int, key: bytes, bound: bytes) -> bytes:
        """`key` under the epoch's KEK, with `bound` as associated data. Raises KekNotLoaded."""
        return _wrap(self._aead(epoch), key, bound)

    def unwrap(self, epoch: int, wrapped: bytes, bound: bytes) -> bytes:
        """The key again. Raises WrongKek (changed, moved, another KEK) and KekNotLoaded."""
        try:
            return self._aead(epoch).decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], bound)
        except (InvalidTag, ValueError):
            raise WrongKek from None

    def index_key(self, kind: str) -> bytes:
        """32 bytes: the key of the blind index `kind`."""
        # HKDF-SHA256 (RFC 5869) with no salt; one block of output is all that is asked for.
        extracted = hmac.digest(bytes(KEK_BYTES), self._index, "sha256")
        return hmac.digest(extracted, _INDEX_LABEL + kind.encode() + b"\x01", "sha256")

    def _aead(self, epoch: int) -> AESGCMSIV:
        try:
            return self._aeads[epoch]
        except KeyError:
            raise KekNotLoaded(epoch) from None


def wrap_under(kek: bytes, key: bytes, bound: bytes) -> bytes:
    """`Kek.wrap` with a KEK that is no epoch's yet."""
    return _wrap(AESGCMSIV(kek), key, bound)


def _wrap(aead: AESGCMSIV, key: bytes, bound: bytes) -> bytes:
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + aead.encrypt(nonce, key, bound)
