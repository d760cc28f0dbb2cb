"""What a request passes before its route runs, in this order: its head, who asks, how often, how large, how it reads.

Before it is known who asks, and on open routes before the limits, only work on the bounded head is done (law L13).
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl

from fastapi import APIRouter
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.datastructures import Headers
from starlette.types import Receive, Scope

from servicekit.core import metrics
from servicekit.core.errors import (
    CardNumber,
    Forbidden,
    Invalid,
    KitError,
    Malformed,
    Misconfigured,
    TooLarge,
    Unauthenticated,
)
from servicekit.http.auth import Customer, Guard, Staff
from servicekit.http.bodies import NO_JSON, is_json, read_json
from servicekit.http.cards import Found, find_card, has_card
from servicekit.http.ids import caller_of
from servicekit.http.limits import CUSTOMER, OPEN, STAFF, Limit, Limits, Strangers, limits_of
from servicekit.http.peers import peer

MAX_BODY = 64 * 1024
# What a stranger may send: the largest form of an open route has some hundred bytes.
OPEN_MAX_BODY = 16 * 1024
_MAX_BODY_KEY = "x-max-body-bytes"
_ITEM_BY_ITEM_KEY = "x-card-numbers-item-by-item"
_MOST_QUERIES: Final = 50


def max_body(size: int) -> dict[str, Any]:
    """`openapi_extra` of a route that takes bodies of up to `size` bytes, of callers whom it knows."""
    return {_MAX_BODY_KEY: size}


def item_by_item() -> dict[str, Any]:
    """`openapi_extra` of a route that takes lists and looks for card numbers in each item itself, so as to leave only that out."""
    return {_ITEM_BY_ITEM_KEY: True}


@dataclass(frozen=True, slots=True)
class Rule:
    """What holds for one route; `guard` None: it is open to strangers."""

    method: str
    path: str
    matches: re.Pattern[str]
    guard: Guard[Any] | None
    queries: frozenset[str]
    max_body: int
    limits: tuple[Limit, ...]
    item_by_item: bool


def rules_of(routers: Iterable[APIRouter]) -> list[Rule]:
    """The rules of all routes, in the order in which they are tried."""
    contexts = (context for router in routers for context in iter_route_contexts(router.routes))
    return [rule for context in contexts if isinstance(context.original_route, APIRoute) for rule in _rules(context)]


def _rules(route: Any) -> Iterator[Rule]:
    """`route` has the attributes of an `APIRoute`, as they are where its router is included."""
    parts = list(_all(route.dependant))
    guard = next((part.call for part in parts if isinstance(part.call, Guard)), None)
    queries = frozenset(field.alias for part in parts for field in part.query_params)
    extra = route.openapi_extra or {}
    own = limits_of(extra)
    if guard is None and (_MAX_BODY_KEY in extra or any(limit.by == "actor" for limit in own)):
        raise Misconfigured(f"{route.path} is open: it takes no large body, and its limits count by peer.")
    size = extra.get(_MAX_BODY_KEY, MAX_BODY if guard is not None else OPEN_MAX_BODY)
    for method in sorted(route.methods):
        yield Rule(method, route.path, route.path_regex, guard, queries, size, own, _ITEM_BY_ITEM_KEY in extra)


def _all(dependant: Dependant) -> Iterator[Dependant]:
    yield dependant
    for part in dependant.dependencies:
        yield from _all(part)


class Admission:
    """Admits requests to the routes of `rules`. `limits` None: nothing is counted but strangers, in this process."""

    def __init__(
        self, state: Any, rules: Iterable[Rule], strangers: Strangers, limits: Limits | None, *, refuse_cards: bool
    ) -> None:
        self._state, self._rules, self._strangers, self._limits = state, list(rules), strangers, limits
        self._refuse_cards = refuse_cards

    async def admit(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body. Raises a `KitError` for a request that does not get in."""
        rule = self._find(scope)
        if rule is None:
            self._strangers.take(peer(scope))
            return b""
        who = self._who(scope, rule)
        if self._limits is not None:
            await self._limits.take(*((limit, _term(limit, scope, who)) for limit in (*_everywhere(who), *rule.limits)))
        query = _read_query(scope, rule)
        body = await _read_body(scope, receive, rule.max_body)
        if self._refuse_cards and any(has_card(text) for pair in query for text in pair):
            raise _refused_card(Found((), in_key=False), "query")
        self._check_body(scope, rule, body)
        return body

    def _find(self, scope: Scope) -> Rule | None:
        """The rule of the route that will run: the first that matches, as the router has it."""
        path, method = scope["path"], scope["method"]
        return next((rule for rule in self._rules if rule.method == method and rule.matches.match(path)), None)

    def _who(self, scope: Scope, rule: Rule) -> Any:
        if rule.guard is None:
            self._strangers.take(peer(scope))
            return None
        try:
            return rule.guard.admit(scope, self._state)
        except (Unauthenticated, Forbidden):
            self._strangers.take(peer(scope))
            raise

    def _check_body(self, scope: Scope, rule: Rule, body: bytes) -> None:
        if not body:
            return
        found = None
        try:
            value = read_json(body)
        except ValueError:
            if self._refuse_cards and has_card(body.decode("utf-8", "replace")):
                raise _refused_card(Found((), in_key=False), "body") from None
            if is_json(Headers(scope=scope).get("content-type", "")):
                raise Malformed(NO_JSON) from None
        else:
            is_left_to_route = rule.item_by_item and isinstance(value, list)
            found = find_card(value) if self._refuse_cards and not is_left_to_route else None
        if found is not None:
            raise _refused_card(found, "body")


def _everywhere(who: Any) -> tuple[Limit, ...]:
    match who:
        case None:
            return OPEN
        case Customer():
            return CUSTOMER
        case Staff():
            return STAFF
        case _:
            return ()


def _term(limit: Limit, scope: Scope, who: Any) -> str:
    return caller_of(who) if limit.by == "actor" else peer(scope)


def _read_query(scope: Scope, rule: Rule) -> list[tuple[str, str]]:
    """Names and values. Raises `Invalid` for a name that the route does not know, or that stands twice."""
    try:
        query = parse_qsl(
            scope["query_string"].decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MOST_QUERIES
        )
    except ValueError:
        raise Invalid("The query is not percent-encoded UTF-8, or has too many parts. Correct it.") from None
    names = [name for name, _ in query]
    if len(set(names)) < len(names) or not rule.queries.issuperset(names):
        known = ", ".join(sorted(rule.queries)) or "none"
        raise Invalid(f"This route knows these query parameters, once each: {known}. Leave the others out.")
    return query


def _refused_card(found: Found, where: str) -> KitError:
    metrics.CARD_NUMBERS_REFUSED.inc()
    place = ".".join((where, *map(str, found.path)))
    part = "name" if found.in_key else "value"
    return CardNumber(
        f"The request contains a payment card number, in the {part} at position {place}. "
        "Send the payment provider's verification token instead."
    )


async def _read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    length = Headers(scope=scope).get("content-length", "0")
    if length.isdecimal() and int(length[:12]) > limit:
        raise TooLarge
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Invalid("The request ended before its body did.")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        more = message.get("more_body", False)
        if size > limit:
            raise TooLarge
    return b"".join(parts)
