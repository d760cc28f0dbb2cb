"""Ids as a service makes them, for tests that must know one before the answer comes."""

from pathlib import Path
from uuid import UUID

from deploy.local import keys
from servicekit.core.settings import Settings
from servicekit.http.ids import Ids


def id_of(folder: Path, service: str, route: str, caller: str, key: UUID) -> UUID:
    """What `service` makes on `route` for `caller`, such as `customer:<subject>`; `folder` has the stack's keys."""
    settings = Settings(id_key_file=keys.id_key_file(folder, service))
    return Ids.of(service, settings).make(route, caller, key)


def order_id_of(folder: Path, buyer: UUID, key: UUID) -> UUID:
    """The id of the order that this buyer places under this Idempotency-Key."""
    return id_of(folder, "order", "/v1/orders", f"customer:{buyer}", key)
