"""What may change in a contract while its version stays: old records are read by new code, and new records by old code.

Compares JSON Schemas (`Event.model_json_schema()`), the committed one with the one of the code. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]
# What bounds a value. A tighter bound refuses old records; a looser one lets pass what yesterday's reader refuses.
_BOUNDS = (
    *("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"),
    *("minLength", "maxLength", "minItems", "maxItems", "pattern", "const"),
)
_LOWER_BOUNDS = ("minimum", "exclusiveMinimum", "minLength", "minItems")
# What says whose data it is, how it is classified and where it travels.
_MARKS = {
    "x-privacy": "what is sealed in it",
    "x-about": "its subject or anchor",
    "x-category": "its category",
    "x-data-class": "its data class",
    "x-topic": "its topic",
    "x-key": "its record key",
}


def breaks(before: Schema, after: Schema, *, readers_first: bool = False) -> list[str]:
    """Why a reader or writer of `before` would break on `after`; empty when the change is compatible.

    With `readers_first` every reader of `after` runs before its first writer does: then only what refuses old records breaks.
    """
    return list(dict.fromkeys(_breaks(before, after, _Schemas(before, after, readers_first), "")))


class _Schemas:
    """Both documents, for their $refs; and the pairs of $refs under way, for models that contain themselves."""

    def __init__(self, before: Schema, after: Schema, readers_first: bool) -> None:
        self.before, self.after, self.readers_first = before, after, readers_first
        self.seen: set[tuple[str, str]] = set()


def _resolve(document: Schema, schema: Schema) -> Schema:
    while "$ref" in schema:
        schema = document["$defs"][str(schema["$ref"]).rsplit("/", 1)[-1]]
    return schema


def _breaks(before: Schema, after: Schema, documents: _Schemas, at: str) -> Iterator[str]:
    pair = (str(before.get("$ref", "")), str(after.get("$ref", "")))
    if all(pair):
        if pair in documents.seen:
            return
        documents.seen.add(pair)
    before, after = _resolve(documents.before, before), _resolve(documents.after, after)
    where = at or "the whole"
    if _kinds(before) != _kinds(after) and not (documents.readers_first and _kinds(before) < _kinds(after)):
        lost = _kinds(before) - _kinds(after)
        gained = _kinds(after) - _kinds(before)
        # A wider type is as bad as a narrower one: yesterday's reader gets what it cannot read.
        yield f"{where}: its type changed: {_list(lost)} became {_list(gained)}"
        return
    yield from _marks(before, after, where)
    if not _is_only_null_new(before, after):
        yield from _bounds(before, after, where, documents.readers_first)
    yield from _fields(before, after, documents, at)
    for part in ("items", "additionalProperties"):
        if isinstance(before.get(part), Mapping) and isinstance(after.get(part), Mapping):
            yield from _breaks(before[part], after[part], documents, f"{at}[]")
    if "anyOf" in before or "anyOf" in after:
        for old, new in zip(_branches(before), _branches(after), strict=False):
            yield from _breaks(old, new, documents, at)


def _branches(schema: Schema) -> list[Schema]:
    branches = schema.get("anyOf", [{key: value for key, value in schema.items() if not key.startswith("x-")}])
    return [branch for branch in branches if branch.get("type") != "null"]


def _is_only_null_new(before: Schema, after: Schema) -> bool:
    """A value that may be absent now: its bounds stand in a branch of `anyOf`."""
    return "anyOf" in after and "anyOf" not in before


def _kinds(schema: Schema) -> frozenset[str]:
    """The types that it takes: `string`, `string:uuid`, `null`, `an object`, `an enum` …"""
    if "anyOf" in schema:
        return frozenset(kind for branch in schema["anyOf"] for kind in _kinds(branch))
    if "$ref" in schema:
        return frozenset(("a part",))
    if "enum" in schema:
        return frozenset(("an enum",))
    kind, form = str(schema.get("type", "anything")), schema.get("format")
    return frozenset((f"{kind}:{form}" if form else kind,))


def _marks(before: Schema, after: Schema, where: str) -> Iterator[str]:
    for mark, meaning in _MARKS.items():
        if before.get(mark) != after.get(mark) and not _only_gains_categories(before.get(mark), after.get(mark)):
            yield f"{where}: {meaning} changed"


def _only_gains_categories(before: Any, after: Any) -> bool:
    """A new optional field of a sealed model adds its category; a lost field is reported by that model's own schema."""
    if not isinstance(before, Mapping) or not isinstance(after, Mapping) or "categories" not in before:
        return False
    gains = set(after.get("categories", ())) >= set(before["categories"])
    return gains and {**before, "categories": ()} == {**after, "categories": ()}


def _bounds(before: Schema, after: Schema, where: str, readers_first: bool) -> Iterator[str]:
    for key in _BOUNDS:
        if before.get(key) != after.get(key) and not (readers_first and _is_looser(key, before, after)):
            yield f"{where}: {key} changed from {before.get(key, 'none')} to {after.get(key, 'none')}"
    lost = [f"-{value}" for value in before.get("enum", ()) if value not in after.get("enum", ())]
    gained = [f"+{value}" for value in after.get("enum", ()) if value not in before.get("enum", ())]
    if lost or (gained and not readers_first):
        yield f"{where}: its values changed: {_list([*lost, *gained])}"


def _is_looser(key: str, before: Schema, after: Schema) -> bool:
    """Whether all that was within the bound before is so now. A pattern says more about a text than its length does."""
    old, new = before.get(key), after.get(key)
    if new is None:
        return True
    if "pattern" in before and "pattern" not in after and key in ("minLength", "maxLength"):
        return True
    if key in ("const", "pattern") or old is None:
        return False
    return bool(new <= old if key in _LOWER_BOUNDS else new >= old)


def _fields(before: Schema, after: Schema, documents: _Schemas, at: str) -> Iterator[str]:
    old_fields, new_fields = before.get("properties", {}), after.get("properties", {})
    for name, old in old_fields.items():
        path = f"{at}.{name}".lstrip(".")
        if name not in new_fields:
            yield f"{path}: the field is gone"
        else:
            yield from _breaks(old, new_fields[name], documents, path)
    for name in sorted(set(after.get("required", ())) - set(before.get("required", ()))):
        what = "was optional and is required now" if name in old_fields else "is new and required: old records lack it"
        yield f"{f'{at}.{name}'.lstrip('.')}: {what}"
    for name in sorted(set(before.get("required", ())) - set(after.get("required", ()))):
        if name in new_fields and not documents.readers_first:
            yield f"{f'{at}.{name}'.lstrip('.')}: was required and is optional now: old readers need it"


def _list(values: Any) -> str:
    return ", ".join(sorted(map(str, values))) or "nothing"
