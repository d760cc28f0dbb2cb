"""The path of one `HoldingsErased`: which functions of ours run from the reader's batch to the database. `-s` prints them."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any
from uuid import uuid4

from event_contracts.event import Event
from event_contracts.privacy import EraseHoldings
from tests.support.infra import postgres_server
from tests.support.rights import Shop, approve, open_erasure, shop

__all__ = ["postgres_server", "shop"]
ROOT = Path(__file__).parents[2]
SOURCES = (str(ROOT / "services"), str(ROOT / "shared"))
# Of the functions between the handler and the SQL two are there for speed and for types: `rules_of` keeps the rules of a
# policy, and `settings_of` gives the settings their type.
MOST = 10


@contextmanager
def recorded() -> Iterator[list[tuple[str, str]]]:
    """(module, function) of our own code in the order of their first calls, without comprehensions and generated code."""
    seen: dict[tuple[str, str], None] = {}

    def note(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(SOURCES) and not code.co_name.startswith("<"):
            seen.setdefault((str(frame.f_globals["__name__"]), code.co_qualname))

    path: list[tuple[str, str]] = []
    sys.setprofile(note)
    try:
        yield path
    finally:
        sys.setprofile(None)
        path += seen


async def erase_replies(shop: Shop) -> list[Event]:
    """The replies to the first `EraseHoldings` of an erasure."""
    subject = uuid4()
    shop.holds(subject, "account", "identity", subject)
    async with shop.client() as client:
        request_id = await open_erasure(shop, client, subject)
        await shop.settle()
        await approve(shop, client, request_id)
    while True:
        await shop.work()
        for command in await shop.asked():
            if isinstance(command, EraseHoldings):
                return shop.answers(command)
            await shop.hear(*shop.answers(command))


async def test_a_reply_takes_few_functions_to_the_database(shop: Shop) -> None:
    replies = await erase_replies(shop)
    with recorded() as path:
        await shop.hear(replies[0])
    ours = [(module, name) for module, name in path if module.startswith("privacy_service.")]
    (handler,) = [at for at, (_, name) in enumerate(ours) if name == "on_erased"]
    between = [each for each in ours[handler + 1 :] if not each[0].endswith("store")]
    sql = [each for each in ours[handler + 1 :] if each[0].endswith("store")]
    for title, found in (("before", ours[: handler + 1]), ("between", between), ("sql", sql)):
        print(f"\n{title}: {len(found)} functions in {len({module for module, _ in found})} modules")
        print(*(f"  {module}  {name}" for module, name in found), sep="\n")
    print(
        f"\nall of our own code, with servicekit: {len(path)} functions in {len({module for module, _ in path})} modules"
    )
    assert {"save_states", "save_replies"} <= {name for _, name in sql}, "the reply is not saved on this path"
    assert len(between) <= MOST, between
