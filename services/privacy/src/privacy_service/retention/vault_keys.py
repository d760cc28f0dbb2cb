"""What a retention run asks of the vault: living keys by age."""

from datetime import datetime
from typing import Final
from urllib.parse import urlencode
from uuid import UUID

from event_contracts.vault_api import MOST_AGED_KEYS, AgedKey, AgedKeys
from servicekit import Kit

KEYS_A_PAGE: Final = MOST_AGED_KEYS


async def read_aged(
    kit: Kit, before: datetime, after: tuple[datetime, UUID] | None, data_class: str | None
) -> list[AgedKey]:
    """The next page of keys made before a moment, the oldest first, behind a place. Raises Forbidden, Unavailable."""
    asked = {"created_before": before.isoformat(), "limit": str(KEYS_A_PAGE)}
    if after is not None:
        asked |= {"after": after[0].isoformat(), "after_key": str(after[1])}
    if data_class is not None:
        asked["data_class"] = data_class
    return (await kit.vault.call("GET", f"/v1/keys?{urlencode(asked)}", AgedKeys)).keys
