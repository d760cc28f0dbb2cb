"""`Kit`: what routes, handlers and jobs of one process work with. Sealing and opening are batched and name a purpose."""

from __future__ import annotations

import asyncio
import hmac
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeAlias, TypeVar
from uuid import UUID

from msgspec import Struct
from pydantic import BaseModel, ValidationError

from event_contracts import Erased, PersonalData, Sealed
from event_contracts.privacy import PositionDecided, QuarantineDecided
from event_contracts.texts import RECORDED
from servicekit.core.clock import Clock
from servicekit.core.errors import Fenced, Gone, KeyReused, Poison
from servicekit.core.metrics import OPENED, OPENED_ERASED, SEALED
from servicekit.core.policy import Policy
from servicekit.core.settings import Settings
from servicekit.core.work import Gate, Work
from servicekit.db.outbox import Outbox
from servicekit.db.postgres import Database, Tx
from servicekit.http.ids import Ids
from servicekit.http.limits import Limits
from servicekit.vault.client import IndexEntry, LeaseName, New, VaultClient
from servicekit.vault.leases import KeyName
from servicekit.vault.token import SealingKey, TokenRefused, open_token, seal

T = TypeVar("T", bound=PersonalData)
R = TypeVar("R")
C = TypeVar("C")
DIGEST_BYTES = 32
_KEY_ID_BYTES = 16


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


# What an operator decides about records in quarantine, or about the position of a reader.
Decided: TypeAlias = QuarantineDecided | PositionDecided
RecordDecision: TypeAlias = Callable[["Kit", Tx, Decided], Awaitable[None]]


@dataclass(frozen=True)
class Kit:
    """One per process: settings, clock, policy, vault and database of the service `name`; `own` is what its `Service` made,
    and `context` gives it with its type. `record_decision` puts on record what an operator decides about records in
    quarantine and positions.

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
    own: object = None
    record_decision: RecordDecision | None = None
    works: Work = field(default_factory=Work)
    gate: Gate = field(default_factory=Gate)
    wakes: dict[str, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))

    def context(self, kind: type[C]) -> C:
        """What the service's `own` made, which must be a `kind`. Raises TypeError."""
        if not isinstance(self.own, kind):
            raise TypeError(f"the service {self.name} holds no {kind.__name__} of its own")
        return self.own

    @cached_property
    def limits(self) -> Limits:
        """How often somebody may try something; counted for all processes of the service."""
        key = Ids.of(self.name, self.settings).derive("limits/v1")
        return Limits(self.db, self.clock, key, self.settings.limits_factor)

    async def seal(self, value: T, *, subject: UUID, anchor: UUID) -> Sealed[T]:
        """Seals one value under the key of its class for this subject and anchor; the key is made if there is none."""
        (sealed,) = await self.seal_many([(value, subject, anchor)])
        return sealed

    async def seal_many(
        self,
        parts: Sequence[tuple[PersonalData, UUID, UUID]],
        index: Sequence[IndexEntry] = (),
        people: Iterable[UUID] = (),
    ) -> list[Sealed[Any]]:
        """Seals (value, subject, anchor) each, with one vault call for all; `index` digests are left beside the keys.

        `people` among the subjects are new, as in `seal_new`. Raises `Fenced` if a person's data is being erased, `Forbidden`,
        `Unavailable`; then nothing is sealed.
        """
        new = New(frozenset(people)) if people else None
        return _seal(parts, await self.vault.ensure(_names(parts), index, new))

    async def seal_new(
        self,
        parts: Sequence[tuple[PersonalData, UUID, UUID]],
        body: BaseModel,
        index: Sequence[IndexEntry] = (),
        people: Iterable[UUID] = (),
    ) -> tuple[list[Sealed[Any]], bytes]:
        """`seal_many` for a new resource, and the digest of the request's body under the key of the first part.

        `people` among the subjects are new as well. The digest is stored beside the resource: `same_body` compares it.
        Raises `Gone` when one of the names had a key that is destroyed or fenced, `Taken` when a new person has a key of
        another service; then nothing is sealed.
        """
        keys = await self.vault.ensure(_names(parts), index, New(frozenset(people)))
        return _seal(parts, keys), body_digest(keys[0], body)

    async def seal_living(self, parts: Sequence[tuple[PersonalData, UUID, UUID]]) -> list[Sealed[Any] | None]:
        """`seal_many` for what others say of people: None where the person, or what the value hangs on, is being erased or
        is erased. No key is made in the place of one that is gone.
        """
        if not parts:
            return []
        try:
            return [*_seal(parts, await self.vault.ensure(_names(parts), (), New()))]
        except (Fenced, Gone):
            if len(parts) == 1:
                return [None]
        half = len(parts) // 2
        return [*await self.seal_living(parts[:half]), *await self.seal_living(parts[half:])]

    async def body_digest(self, first: tuple[PersonalData, UUID, UUID], body: BaseModel) -> bytes:
        """The digest of a request's body under the key of this part, which was sealed just now."""
        (key,) = await self.vault.ensure(_names([first]))
        return body_digest(key, body)

    async def check_retry(
        self, stored: bytes | None, body: BaseModel, first: tuple[type[PersonalData] | PersonalData, UUID, UUID]
    ) -> None:
        """Whether a retry says what made the resource, whose `first` part stands under this model, subject and anchor.

        Raises `KeyReused` when it says something else, `Gone` when the part's key is gone; it makes no key.
        """
        value, subject, anchor = first
        try:
            (key,) = await self.vault.ensure([KeyName(subject, str(value.data_class), anchor)], (), New())
        except Fenced:
            raise Gone from None
        same_body(stored, body_digest(key, body))

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
        """The keyed digest of a look-up term; `kind` is one of `IndexKind`. Raises `Forbidden`, `Unavailable`."""
        key = await self.vault.index_key(kind)
        return hmac.digest(key, normalise(kind, term).encode(), "sha256")

    def work(self) -> AbstractAsyncContextManager[None]:
        """Around everything that opens or seals: until it ends, an erasure waits for this process.

        See docs/protocols.md#the-list-of-revocations.
        """
        return self.works.unit()

    async def run_tx(self, name: str, work: Callable[[Tx], Awaitable[R]]) -> R:
        """Runs `work` in one transaction; see `Database.run_tx`."""
        return await self.db.run_tx(name, work, self.outbox)


def _names(parts: Sequence[tuple[PersonalData, UUID, UUID]]) -> list[KeyName]:
    return [KeyName(subject, str(value.data_class), anchor) for value, subject, anchor in parts]


def _seal(parts: Sequence[tuple[PersonalData, UUID, UUID]], keys: Sequence[SealingKey]) -> list[Sealed[Any]]:
    names = _names(parts)
    for data_class, count in Counter(name.data_class for name in names).items():
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


def body_digest(key: SealingKey, body: BaseModel) -> bytes:
    """The key's id, then an HMAC of the parsed body. It dies with the key.

    A `SecretStr` counts as stars: only a password's slow hash may say whether two are alike.
    """
    return key.key_id.bytes + key.digest(body.model_dump_json(exclude_defaults=True).encode())


def same_body(stored: bytes | None, asked: bytes) -> None:
    """Raises `KeyReused` when a retry's body is another one, `Gone` when the key under the stored digest is gone."""
    if stored is None or stored[:_KEY_ID_BYTES] != asked[:_KEY_ID_BYTES]:
        raise Gone
    if not hmac.compare_digest(stored, asked):
        raise KeyReused


def normalise(kind: str, term: str) -> str:
    """One spelling of a term; services bring e-mail addresses and phones into their normal form before.

    Of an e-mail address only the case is folded: a full or a compatibility folding makes one of two mailboxes, such as ß and
    ss. Of a phone or an order number only letters, digits and a plus count.
    """
    if kind == "email":
        return unicodedata.normalize("NFC", term).strip().lower()
    folded = unicodedata.normalize("NFKC", term).strip().casefold()
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
