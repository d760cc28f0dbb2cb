"""The hash of a record: with topic, partition and offset it says which record is meant.

It is keyed, so that nobody can try a value on it, and names its key: a hash under another key says nothing.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Final
from uuid import UUID

from servicekit.core.settings import Settings
from servicekit.kafka.cloudevents import RawRecord

_NAME_BYTES: Final = 2
_PERSON: Final = b"record/v1"


def hash_key(settings: Settings | None) -> bytes:
    """From the service's id key; where there is none, as in some tests, hashes have no key."""
    file = None if settings is None else settings.id_key_file
    return b"" if file is None else _read(file)


@lru_cache
def _read(file: Path) -> bytes:
    return blake2b(file.read_bytes().strip(), digest_size=32, person=_PERSON).digest()


def hash_of(record: RawRecord, key: bytes) -> UUID:
    """Of key, value and headers. Two bytes name the key, fourteen are the digest."""
    digest = blake2b(key=key, digest_size=16 - _NAME_BYTES, person=_PERSON)
    parts: list[bytes | None] = [record.key, record.value]
    for name, value in record.headers:
        parts += (name.encode(), value)
    for part in parts:
        # The length goes first: two different lists of parts are two different inputs. A null is no empty value.
        digest.update(b"-" if part is None else b"%d:" % len(part))
        digest.update(part or b"")
    return UUID(bytes=_name(key) + digest.digest())


def is_same(stored: UUID, record: RawRecord, key: bytes) -> bool:
    """Whether it is the record of the stored hash. True as well where that is under another key and cannot be compared."""
    return stored.bytes[:_NAME_BYTES] != _name(key) or stored == hash_of(record, key)


@lru_cache
def _name(key: bytes) -> bytes:
    return blake2b(key, digest_size=_NAME_BYTES, person=_PERSON).digest()
