"""SQL of the policies that sagas follow."""

from collections.abc import Sequence

from servicekit import Tx
from servicekit.db.postgres import Database


async def knows_policy(tx: Tx, digest: str) -> bool:
    return bool(await tx.fetchval("-- knows_policy\nSELECT true FROM rights_policies WHERE policy = $1", digest))


async def write_policy(tx: Tx, digest: str, version: str, document: str) -> None:
    await tx.execute(
        "-- write_policy\nINSERT INTO rights_policies VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        digest,
        version,
        document,
    )


async def read_policies(db: Database | Tx, digests: Sequence[str]) -> list[tuple[str, str]]:
    """(digest, document) of those that are known."""
    rows = await db.fetch(
        "-- read_policies\nSELECT policy, document FROM rights_policies WHERE policy = ANY($1::text[])", list(digests)
    )
    return [(row["policy"], row["document"]) for row in rows]
