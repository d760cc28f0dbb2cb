"""The list of revocations as records of the topic `vault.revocations`, which is kept for ever, in the list's order."""

from typing import Final
from uuid import uuid4

import msgspec

from event_contracts.topics import REVOCATIONS
from servicekit import Settings
from servicekit.core.errors import Unavailable
from servicekit.core.faults import declare, faultpoint
from servicekit.db.postgres import Database
from servicekit.kafka.client import OutRecord, Producer
from vault_service.revocations import store

declare("vault.claimed", "vault.published", "vault.marked")
BATCH: Final = 200
# Longer than a batch takes: Kafka is waited for 12 s. How long nobody publishes when a process dies in the middle of one.
_CLAIM_SECONDS: Final = 20.0
_HEADERS: Final = (("content-type", b"application/json"),)


class Publisher:
    """Only one process publishes at a time, so that the topic has the list's order. After a crash, and from a restored
    database, entries come again: readers go by their number.
    """

    def __init__(self, db: Database, settings: Settings) -> None:
        self._db, self._producer, self._process = db, Producer(settings), uuid4()

    async def publish(self) -> None:
        """All that is not published yet. Raises Unavailable; then the rest waits for the next time."""
        while await store.is_unpublished(self._db):
            if not await store.claim_publishing(self._db, self._process, _CLAIM_SECONDS):
                return
            faultpoint("vault.claimed")
            entries = await store.read_unpublished(self._db, BATCH)
            records = [
                OutRecord(REVOCATIONS, str(entry.subject).encode(), msgspec.json.encode(entry), _HEADERS)
                for entry in entries
            ]
            try:
                await self._producer.send(records)
            except Producer.ERRORS:
                raise Unavailable("Kafka does not take the entries of the revocation list; they wait.") from None
            faultpoint("vault.published")
            await store.mark_published(self._db, self._process, [entry.number for entry in entries])
            faultpoint("vault.marked")

    async def stop(self) -> None:
        await self._producer.stop()
