"""The revocation list as its readers see it: entries with numbers that have no gaps, each naming the hash of the one before."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Final
from uuid import UUID

from event_contracts.vault_api import Entry, RevocationAction

FIRST_HASH: Final = "00" * 32
MOST_KEYS: Final = 2000


def make_entry(
    number: int,
    action: RevocationAction,
    request_id: UUID,
    subject: UUID,
    *,
    is_final: bool,
    key_ids: Sequence[UUID],
    previous_hash: str,
) -> Entry:
    """The entry with its hash: SHA-256 over all the rest as JSON with sorted names and no spaces, in hex."""
    rest = {
        "action": action,
        "is_final": is_final,
        "key_ids": [str(key_id) for key_id in key_ids],
        "number": number,
        "previous_hash": previous_hash,
        "request_id": str(request_id),
        "subject": str(subject),
    }
    digest = hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    return Entry(number, action, request_id, subject, is_final, list(key_ids), previous_hash, digest)


def is_whole(entry: Entry) -> bool:
    """Whether the entry's hash is that of its content."""
    return entry == make_entry(
        entry.number,
        entry.action,
        entry.request_id,
        entry.subject,
        is_final=entry.is_final,
        key_ids=entry.key_ids,
        previous_hash=entry.previous_hash,
    )


def first_break(entries: Iterable[Entry], number: int, previous_hash: str) -> int | None:
    """The number at which these entries, which follow on entry `number`, are no chain; None if they are one."""
    for entry in entries:
        number += 1
        if entry.number != number or entry.previous_hash != previous_hash or not is_whole(entry):
            return number
        previous_hash = entry.hash
    return None
