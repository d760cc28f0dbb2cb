"""SQL of the keys by age."""

from datetime import datetime
from uuid import UUID

from event_contracts.vault_api import AgedKey
from servicekit.db.postgres import Database


async def read_aged(
    db: Database, before: datetime, after: tuple[datetime, UUID] | None, data_class: str | None, limit: int
) -> list[AgedKey]:
    """Active keys made before a moment, the oldest first, behind the place of the last one that was read."""
    rows = await db.fetch(
        """-- read_aged
        SELECT key_id, subject_id, data_class, anchor, created_at FROM keys
        WHERE state = 'active' AND created_at < $1
          AND ($2::timestamptz IS NULL OR (created_at, key_id) > ($2, $3::uuid))
          AND ($4::varchar IS NULL OR data_class = $4)
        ORDER BY created_at, key_id LIMIT $5""",
        before,
        after[0] if after else None,
        after[1] if after else None,
        data_class,
        limit,
    )
    return [AgedKey(*row) for row in rows]
