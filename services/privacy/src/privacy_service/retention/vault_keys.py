"""What a retention run asks of the vault: living keys by age."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from urllib.parse import urlencode
from uuid import UUID

import msgspec

from servicekit import Kit

KEYS_A_PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class AgedKey:
    """A living key, and when it was made."""

    key_id: UUID
    subject: UUID
    data_class: str
    anchor: UUID
    created_at: datetime


class _Key(msgspec.Struct, frozen=True):
    key_id: UUID
    subject: UUID
    data_class: str
    anchor: UUID
    created_at: datetime


class _Keys(msgspec.Struct, frozen=True):
    keys: list[_Key]


async def read_aged(
    kit: Kit, before: datetime, after: tuple[datetime, UUID] | None, data_class: str | None
) -> Sequence[AgedKey]:
    """The next page of keys made before a moment, the oldest first, behind a place. Raises Forbidden, Unavailable."""
    asked = {"created_before": before.isoformat(), "limit": str(KEYS_A_PAGE)}
    if after is not None:
        asked |= {"after": after[0].isoformat(), "after_key": str(after[1])}
    if data_class is not None:
        asked["data_class"] = data_class
    answer = await kit.vault.call("GET", f"/v1/keys?{urlencode(asked)}", _Keys)
    return [AgedKey(key.key_id, key.subject, key.data_class, key.anchor, key.created_at) for key in answer.keys]
