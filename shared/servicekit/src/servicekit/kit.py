"""`Kit`: what routes, handlers and jobs of one process work with. Sealing and opening are batched and name a purpose."""

from __future__ import annotations

import asyncio
import hmac
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from uuid import UUID

from msgspec import Struct
from pydantic import ValidationError

from event_contracts import Erased, PersonalData, Sealed
from event_contracts.texts import RECORDED
from servicekit.clock import Clock
from servicekit.errors import Poison
from servicekit.leases import KeyName
from servicekit.metrics import OPENED, OPENED_ERASED, SEALED
from servicekit.outbox import Outbox
from servicekit.policy import Policy
from servicekit.postgres import Database, Tx
from servicekit.settings import Settings
from servicekit.token import SealingKey, TokenRefused, open_token, seal
from servicekit.vault_client import IndexEntry, LeaseName, VaultClient
from servicekit.work import Gate, Work

T = TypeVar("T", bound=PersonalData)
R = TypeVar("R")
DIGEST_BYTES = 32


class Opening(Struct, Generic[T], frozen=True):
    """A sealed value to open, with the model, subject and anchor that the *opener* states from the row or event at hand.

    `read` decodes less than the whole model from its JSON, and raises `ValueError` for what breaks the contract.
    """

    sealed: Sealed[T]
    model: type[T]
    subject: UUID
    anchor: UUID
    read: Callable[[bytes], T] | None = None

    @property
    def lease(self) -> LeaseName:
        return LeaseName(self.sealed.key_id, self.subject, str(self.model.data_class), self.anchor)


@dataclass(frozen=True)
class Kit:
    """One per process: settings, clock, policy, vault and database of the service `name`; `own` is what its `Service` made.

    `works` is what is under way; while the `gate` is shut nothing is served and no record is applied; `wakes` holds what a
    job sleeps on, by its name: `tx.wake(kit.wakes[name])` has it run at once if it is in this process.
    """

    name: str
    settings: Settings
    clock: Clock
    policy: Policy
    vault: VaultClient
    db: Database
    outbox: Outbox | None = None
    own: Any = None
    works: Work = field(default_factory=Work)
    gate: Gate = field(default_factory=Gate)
    wakes: dict[str, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))

    async def seal(self, value: T, *, subject: UUID, anchor: UUID) -> Sealed[T]:
        """Seals one value under the key of its class for this subject and anchor; the key is made if there is none."""
        (sealed,) = await self.seal_many([(value, subject, anchor)])
        return sealed

    async def seal_many(
        self, parts: Sequence[tuple[PersonalData, UUID, UUID]], index: Sequence[IndexEntry] = ()
    ) -> list[Sealed[Any]]:
        """Seals (value, subject, anchor) each, with one vault call for all; `index` digests are left beside the keys.

        Raises `Fenced` if a person's data is being erased, `Forbidden`, `Unavailable`; then nothing is sealed.
        """
        names = [KeyName(subject, str(value.data_class), anchor) for value, subject, anchor in parts]
        keys = await self.vault.ensure(names, index)
        by_class = Counter(name.data_class for name in names)
        for data_class, count in by_class.items():
            SEALED.labels(data_class).inc(count)
        return [
            Sealed(
                seal(
                    key,
                    value.model_dump_json(exclude_none=True).encode(),
                    data_class=name.data_class,
                    model_name=type(value).__name__,
                    subject=name.subject,
                    anchor=name.anchor,
                )
            )
            for key, name, (value, _, _) in zip(keys, names, parts, strict=True)
        ]

    async def open_many(self, wanted: Sequence[Opening[T]], *, purpose: str) -> list[T | Erased]:
        """Opens all with one vault call, in the same order; `Erased` where the key is fenced or destroyed.

        Raises `UnknownKey` if the vault lacks a key (never an erasure), `Forbidden` if the policy does not grant this
        service the class for the purpose, `Poison` if a token was changed, moved or holds no such model.
        """
        keys = await self.vault.lease(purpose, [opening.lease for opening in wanted])
        opened: list[T | Erased] = [_open(opening, key) for opening, key in zip(wanted, keys, strict=True)]
        counts = Counter(
            (str(opening.model.data_class), isinstance(value, Erased))
            for opening, value in zip(wanted, opened, strict=True)
        )
        for (data_class, erased), count in counts.items():
            (OPENED_ERASED if erased else OPENED).labels(data_class, purpose).inc(count)
        return opened

    async def open(self, opening: Opening[T], *, purpose: str) -> T | Erased:
        (value,) = await self.open_many([opening], purpose=purpose)
        return value

    async def digest(self, kind: str, term: str) -> bytes:
        """The keyed digest of a look-up term: `email`, `phone` or `order_number`. Raises `Forbidden`, `Unavailable`."""
        key = await self.vault.index_key(kind)
        return hmac.digest(key, normalise(kind, term).encode(), "sha256")

    def work(self) -> AbstractAsyncContextManager[None]:
        """Around everything that opens or seals: until it ends, an erasure waits for this process (`PROTOCOLS.md` §2)."""
        return self.works.unit()

    async def run_tx(self, name: str, work: Callable[[Tx], Awaitable[R]]) -> R:
        """Runs `work` in one transaction; see `Database.run_tx`."""
        return await self.db.run_tx(name, work, self.outbox)


def normalise(kind: str, term: str) -> str:
    """One spelling of a term: case and width folded; of a phone or an order number only letters, digits and a plus."""
    folded = unicodedata.normalize("NFKC", term).strip().casefold()
    if kind == "email":
        return folded
    return "".join(character for character in folded if character.isalnum() or character == "+")


def _open(opening: Opening[T], key: SealingKey | Erased) -> T | Erased:
    if isinstance(key, Erased):
        return key
    try:
        plaintext = open_token(
            opening.sealed.token,
            key,
            data_class=str(opening.model.data_class),
            model_name=opening.model.__name__,
            subject=opening.subject,
            anchor=opening.anchor,
        )
        if opening.read is not None:
            return opening.read(plaintext)
        return opening.model.model_validate_json(plaintext, context=RECORDED)
    except TokenRefused:
        raise Poison("token_refused") from None
    except (ValidationError, ValueError):
        raise Poison("sealed_value_breaks_contract") from None
