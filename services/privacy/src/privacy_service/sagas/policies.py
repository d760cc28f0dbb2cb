"""The policies that sagas go by: kept whole under their digest, so that one which is no longer in force can still be read."""

from collections.abc import Collection
from typing import Final

from privacy_service.sagas import policies_store as store
from servicekit import Tx
from servicekit.core.policy import Policy
from servicekit.db.postgres import Database

# Of sagas that began before policies were kept: they go by the one in force.
UNKNOWN: Final = ""
# A digest names one content for ever, so one memory serves the process.
_KNOWN: Final[dict[str, Policy]] = {}


async def keep(tx: Tx, policy: Policy) -> None:
    """To be called before a saga is said to go by it."""
    if not await store.knows_policy(tx, policy.digest):
        await store.write_policy(tx, policy.digest, policy.version, policy.model_dump_json())


async def read(db: Database | Tx, digests: Collection[str]) -> list[Policy]:
    """Those of these digests; each is read from the database once in a process."""
    unknown = [digest for digest in digests if digest not in _KNOWN]
    if unknown:
        for digest, document in await store.read_policies(db, unknown):
            _KNOWN[digest] = Policy.model_validate_json(document)
    return [_KNOWN[digest] for digest in digests]
