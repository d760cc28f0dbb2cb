"""A carrier as a real counterpart: another JOSE library, its own Kafka user, the manners that docs/carrier.md asks for.

As a library: `async with Carrier(Account.from_environment("meridian")) as carrier: await carrier.wait_for(10)`.
As a process: `python -m tests.support.carrier meridian`, with what `.local/stack.env` sets; it prints counts only.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self
from uuid import UUID, uuid5

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from jwcrypto.common import JWException  # type: ignore[import-untyped] # jwcrypto ships no types
from jwcrypto.jwe import JWE  # type: ignore[import-untyped]
from jwcrypto.jwk import JWK  # type: ignore[import-untyped]

ALGORITHMS = ["ECDH-ES+A256KW", "A256GCM"]
USUAL = ("acknowledged", "handed_over", "delivered")


@dataclass(frozen=True)
class Account:
    """What a carrier has: its Kafka user, its private JWK and the gateway's public one, both as JSON text."""

    carrier: str
    bootstrap: str
    user: str
    password: str = field(repr=False)
    private_jwk: str = field(repr=False)
    gateway_jwk: str

    @classmethod
    def from_environment(cls, carrier: str, environment: Mapping[str, str] = os.environ) -> Self:
        """Reads the names that `.local/stack.env` sets."""
        name = carrier.upper()
        return cls(
            carrier,
            environment["KAFKA_BOOTSTRAP"],
            environment[f"KAFKA_{name}_USER"],
            environment[f"KAFKA_{name}_PASSWORD"],
            Path(environment[f"CARRIER_{name}_KEY_FILE"]).read_text(),
            Path(environment["GATEWAY_REPLY_KEY_FILE"]).read_text(),
        )


@dataclass(frozen=True)
class Opened:
    """One message as the carrier opened it, the first time it came."""

    message_id: UUID
    kind: str
    shipment_id: UUID
    not_after: datetime
    shipment: dict[str, Any] | None
    record_key: bytes
    number: int = 1


class Desk:
    """What a carrier does with messages, without Kafka: opens, deduplicates, corrects, deletes, refuses, and says what it answers.

    `is_silent` keeps it from answering notices of erasure; it deletes all the same.
    """

    def __init__(
        self, private_jwk: str, answers: Sequence[str] = USUAL, now: Callable[[], datetime] | None = None
    ) -> None:
        self._key = JWK.from_json(private_jwk)
        self._answers = tuple(answers)
        self._now = now or (lambda: datetime.now(UTC))
        self.raw = 0
        self.duplicates = 0
        self.unreadable = 0
        self.opened: list[Opened] = []
        self.refused: set[UUID] = set()
        self.recalled: set[UUID] = set()
        self.erased: set[UUID] = set()
        self.is_silent = False
        self._held: dict[UUID, tuple[int, dict[str, Any]]] = {}
        self._known: set[UUID] = set()

    @property
    def shipments(self) -> dict[UUID, dict[str, Any]]:
        """What is held, by shipment id, each in its last version: what was recalled or erased is not there."""
        return {shipment_id: shipment for shipment_id, (_, shipment) in self._held.items()}

    def receive(self, value: bytes, record_key: bytes = b"") -> list[tuple[UUID, str]]:
        """Takes one record. Returns the replies to give: (shipment id, kind)."""
        self.raw += 1
        try:
            message = json.loads(self.open(value))
            opened = Opened(
                UUID(message["message_id"]),
                message["kind"],
                UUID(message["shipment_id"]),
                datetime.fromisoformat(message["not_after"]),
                message.get("shipment"),
                record_key,
                message.get("number", 1),
            )
        except (JWException, ValueError, KeyError):
            self.unreadable += 1
            return []
        if opened.message_id in self._known:
            self.duplicates += 1
            return []
        self._known.add(opened.message_id)
        self.opened.append(opened)
        return [(opened.shipment_id, kind) for kind in self._answer(opened)]

    def open(self, value: bytes) -> bytes:
        """Raises `JWException`."""
        token = JWE()
        token.allowed_algs = ALGORITHMS
        token.deserialize(value.decode("ascii"), self._key)
        payload: bytes = token.payload
        return payload

    def _answer(self, message: Opened) -> tuple[str, ...]:
        shipment_id = message.shipment_id
        if message.kind in ("recall", "erasure"):
            self._delete(shipment_id)
            if message.kind == "recall":
                self.recalled.add(shipment_id)
                return ()
            self.erased.add(shipment_id)
            return () if self.is_silent else ("erased",)
        if shipment_id in self.recalled | self.erased or message.not_after <= self._now():
            self.refused.add(shipment_id)
            return ("refused",)
        number, _ = self._held.get(shipment_id, (0, {}))
        if message.shipment is None or message.number <= number:
            return ()  # an older version than the one in force
        self._held[shipment_id] = (message.number, message.shipment)
        # A correction of what is there needs no answer; one that comes alone is the shipment.
        return self._answers if number == 0 else ()

    def _delete(self, shipment_id: UUID) -> None:
        """Nothing of the shipment stays, in no version."""
        self._held.pop(shipment_id, None)
        self.opened = [
            replace(o, shipment=None) if o.shipment_id == shipment_id and o.shipment is not None else o
            for o in self.opened
        ]


def seal_reply(gateway_jwk: str, carrier: str, shipment_id: UUID, kind: str, at: datetime, **more: Any) -> bytes:
    """A `CarrierReply` for the gateway, as a compact JWE. Sent twice it has the same id."""
    key = JWK.from_json(gateway_jwk)
    reply = {"reply_id": str(uuid5(shipment_id, f"{carrier}/{kind}")), "kind": kind, "shipment_id": str(shipment_id)}
    content = json.dumps({**reply, "at": at.isoformat(), **more})
    header = {"alg": ALGORITHMS[0], "enc": ALGORITHMS[1], "kid": key.get("kid")}
    token = JWE(content.encode(), json.dumps(header))
    token.add_recipient(key)
    compact: str = token.serialize(compact=True)
    return compact.encode("ascii")


class Carrier:
    """A running carrier. It commits no offsets: what it did is in its memory, so a new one begins at the earliest."""

    def __init__(
        self,
        account: Account,
        answers: Sequence[str] = USUAL,
        pause: float = 0.0,
        *,
        is_silent: bool = False,
        tracks: bool = False,
    ) -> None:
        """`answers` to every accepted shipment, in this order, `pause` seconds apart; none to erasures if `is_silent`. With
        `tracks` it says at the hand-over how the parcel can be followed."""
        self.account = account
        self.desk = Desk(account.private_jwk, answers)
        self.desk.is_silent = is_silent
        self.replied = 0
        self._pause = pause
        self._tracks = tracks
        self._replies: asyncio.Queue[list[tuple[UUID, str]]] = asyncio.Queue()
        self._news = asyncio.Condition()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        security: dict[str, Any] = {
            "bootstrap_servers": self.account.bootstrap,
            "security_protocol": "SASL_PLAINTEXT",
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_plain_username": self.account.user,
            "sasl_plain_password": self.account.password,
        }
        name = self.account.carrier
        self._consumer = AIOKafkaConsumer(
            f"carrier.{name}.shipments",
            group_id=f"{name}.shipments",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            **security,
        )
        self._producer = AIOKafkaProducer(acks="all", enable_idempotence=True, linger_ms=5, **security)
        await self._consumer.start()
        await self._producer.start()
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._answer())]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._consumer.stop()
        await self._producer.stop()

    async def wait_for(self, shipments: int, timeout: float = 240) -> None:
        """Waits until so many shipments were accepted. Raises `TimeoutError`."""
        await self._wait(lambda: len(self.desk.shipments) >= shipments, timeout)

    async def wait_until(self, true: Callable[[Desk], bool], timeout: float = 240) -> None:
        """Waits until `true` of what the carrier has seen. Raises `TimeoutError`."""
        await self._wait(lambda: true(self.desk), timeout)

    async def send_raw(self, value: bytes, key: bytes | None = None) -> None:
        """Writes anything into the replies topic, as a faulty carrier could."""
        await self._producer.send_and_wait(f"carrier.{self.account.carrier}.replies", value, key=key)

    async def reply(self, shipment_id: UUID, kind: str, at: datetime | None = None, **more: Any) -> None:
        """One sealed reply, of now or of `at`; `more` are fields that a talkative carrier adds."""
        await (await self._send_reply(shipment_id, kind, at, **more))

    async def _send_reply(
        self, shipment_id: UUID, kind: str, at: datetime | None = None, **more: Any
    ) -> Awaitable[Any]:
        account = self.account
        sealed = seal_reply(account.gateway_jwk, account.carrier, shipment_id, kind, at or datetime.now(UTC), **more)
        topic, key = f"carrier.{account.carrier}.replies", str(shipment_id).encode()
        acknowledged: Awaitable[Any] = await self._producer.send(topic, sealed, key=key)
        self.replied += 1
        return acknowledged

    async def _wait(self, true: Callable[[], bool], timeout: float) -> None:
        async with asyncio.timeout(timeout), self._news:
            await self._news.wait_for(true)

    async def _read(self) -> None:
        while True:
            batches = await self._consumer.getmany(timeout_ms=200, max_records=200)
            answers: list[tuple[UUID, str]] = []
            for record in (record for records in batches.values() for record in records):
                answers += self.desk.receive(record.value or b"", record.key or b"")
                await asyncio.sleep(0)
            if answers:
                await self._replies.put(answers)
            async with self._news:
                self._news.notify_all()

    async def _answer(self) -> None:
        while True:
            answers = await self._replies.get()
            acknowledged = []
            for shipment_id, kind in answers:
                more = self._tracking(shipment_id) if self._tracks and kind == "handed_over" else {}
                acknowledged.append(await self._send_reply(shipment_id, kind, **more))
                await asyncio.sleep(self._pause)
            await asyncio.gather(*acknowledged)

    def _tracking(self, shipment_id: UUID) -> dict[str, Any]:
        carrier = self.account.carrier
        number = f"{carrier[:2].upper()}{shipment_id.int % 10**12:012}"
        return {"tracking_number": number, "tracking_url": f"https://track.{carrier}.example/{number}"}


async def _main(carrier: str) -> None:
    account, pause = Account.from_environment(carrier), float(os.environ.get("CARRIER_PAUSE", "0"))
    async with Carrier(account, pause=pause, tracks=True) as running:
        while True:
            await asyncio.sleep(5)
            desk = running.desk
            counts = f"{len(desk.shipments)} shipments, {desk.duplicates} duplicates, {len(desk.recalled)} recalled"
            print(f"{carrier}: {counts}, {len(desk.erased)} erased, {running.replied} replies", flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main(sys.argv[1]))
