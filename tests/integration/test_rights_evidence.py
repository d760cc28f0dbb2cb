"""What a destruction leaves on record, on real Postgres: each key once, whatever the vault has said of it before."""

import json
from uuid import uuid4

from tests.support.infra import postgres_server
from tests.support.rights import Shop, approve, open_erasure, shop, show

__all__ = ["postgres_server", "shop"]


async def test_what_was_destroyed_before_the_saga_knew_is_on_record(shop: Shop) -> None:
    """As after a restore of this database: the vault's answer to the fence says already that the key is gone."""
    subject = uuid4()
    name = shop.holds(subject, "account", "identity", subject)
    async with shop.client() as client:
        request_id = await open_erasure(shop, client, subject)
        await shop.settle()
        shop.vault.states[name] = "destroyed"
        await approve(shop, client, request_id)
        await shop.settle()
        assert (await show(shop, client, request_id))["status"] == "completed"
    assert await destroyed(shop) == [str(name)]


async def destroyed(shop: Shop) -> list[str]:
    rows = await shop.kit.db.fetch("SELECT body FROM evidence_leaves WHERE kind = 'key_destruction'")
    return sorted(key["key_id"] for row in rows for key in json.loads(row["body"])["keys"])
