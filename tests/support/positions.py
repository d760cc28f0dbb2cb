"""Where a reader is, for tests that have no reader around it."""

from collections.abc import Sequence

from servicekit.db.inbox import Place, load_places
from servicekit.db.postgres import Database


async def load_positions(db: Database, reader: str, places: Sequence[Place]) -> dict[Place, int]:
    """The next offset of each place; a place that is new to this reader begins at 0."""
    return {place: position.next for place, position in (await load_places(db, reader, places)).items()}
