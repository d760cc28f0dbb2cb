"""Inputs that no route expects, and the APIs that they are tried on: see tests/integration/test_no_input_is_a_crash.py."""

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import quote
from uuid import UUID

import httpx
from fastapi import FastAPI

# Stands in every odd text that has room for it; no refusal may show it.
CANARY: Final = "zq7Canary"
# Routes that ask for a password or a code, and answer 401 to a wrong one.
SECRETS_ASKED: Final = ("/sign-in", "/confirmation", "/password")
_ZERO, _MAX = str(UUID(int=0)), str(UUID(int=2**128 - 1))
_MOMENTS: Final = (
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-12:00",
    "9999-12-31T23:59:59.999999999Z",
    "2026-01-01T00:00:00",
    "0001-01-01",
    "infinity",
    "-infinity",
)
_NUMBERS: Final = (
    "1e400",
    "-1e400",
    "1e-400",
    "NaN",
    "-Infinity",
    "-0",
    "-0.0",
    "0.1",
    "1" + "0" * 400,
    "-1" + "0" * 400,
)
_LARGE: Final = (str(2**31), str(2**63), str(-(2**63) - 1), "253402300800", "-62135596801", "9e18")
_TEXTS: Final = ("", " ", _ZERO, _MAX, CANARY * 2_000, f"{CANARY}\\ud800", f"\\udc00{CANARY}", f"{CANARY}\\u0000")
# Texts of JSON, or nearly.
JSONS: Final = (
    *_NUMBERS,
    *_LARGE,
    *(f'"{text}"' for text in (*_TEXTS, *_MOMENTS, "1e400", "\u202e" + CANARY)),
    *("true", "null", "[]", "{}", "[null]", f'{{"{CANARY}": 1}}', f'{{"{CANARY}\\u0000": 1, "{CANARY}\\u0000": 2}}'),
    *("[" * 150 + "]" * 150, "[" * 10_000, '{"a":' * 500 + "1" + "}" * 500),
)
BODIES: Final = (
    *(text.encode() for text in JSONS),
    *(b"", b"\xff\xfe{\x00}\x00", b"\xef\xbb\xbf{}", b"\x1f\x8b\x08\x00", b'"\xed\xa0\x80"', b"\x00", b"{", b"a=b&a=c"),
)
MEDIA_TYPES: Final = (
    *(b"", b"text/plain", b"application/xml", b"application/x-www-form-urlencoded", b"multipart/form-data"),
    *(
        b"multipart/form-data; boundary=\xff",
        b"application/json; charset=utf-16",
        b"\xff\x00\xff",
        b"application/" * 500,
    ),
    *(b"application/cloudevents+json; charset=\xff", b"application/cloudevents-batch+json", b"application/zq7+json"),
)
# Percent-encoded, for a part of a path or for a value of a query.
_ENCODED: Final = ("%00", "%ff", "%ED%A0%80", "%2e%2e%2f", "%25ff", "%E2%80%AE", "%C2%B2", "%D9%A3" * 32)
PARTS: Final = (
    *_ENCODED,
    _ZERO,
    _MAX,
    f"urn:uuid:{_MAX}",
    CANARY * 500,
    *(quote(text) for text in (*_NUMBERS, *_LARGE)),
)


def a_cursor(at: str, row: str = _MAX) -> str:
    return base64.urlsafe_b64encode(f"{at} {row}".encode()).rstrip(b"=").decode()


VALUES: Final = (
    *PARTS,
    *("", "+", "nan", "inf", "-inf", "+1", "%20", "true", "=", "1_0"),
    *(quote(moment) for moment in _MOMENTS),
    *(a_cursor(moment) for moment in _MOMENTS),
    *(
        a_cursor("2026-01-01T00:00:00+00:00", row)
        for row in ("", "1", "\ud800".encode("utf-8", "replace").decode(), "f" * 90)
    ),
    *("A", "AAAAA", "%3D%3D%3D%3D", "A" * 200),
)
HEADERS: Final = (
    *(b"", b"\x00", b"\xff\xfe", b"zq7Canary" * 400, b"1e400", b"-1", b"9" * 400, _ZERO.encode(), _MAX.encode()),
    *(b"*/*;q=NaN", b";;;,,,", b"text/html;q=1e400, application/zq7Canary", b'"', b"\xed\xa0\x80", b"{" * 200),
)


def _part(text: str | bytes) -> str:
    raw = text.encode() if isinstance(text, str) else text
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


_HEADS: Final = (
    *(
        '{"alg":"Ed25519"}',
        '{"alg":["Ed25519"]}',
        '{"alg":{}}',
        '{"alg":null}',
        '{"alg":"Ed25519","crit":["b64"],"b64":false}',
    ),
    *(
        '{"alg":"Ed25519","zip":"DEF"}',
        '{"alg":"Ed25519","jwk":{}}',
        '{"alg":"Ed25519","kid":1e400}',
        '{"typ":[]}',
        '{"alg":NaN}',
    ),
    *(
        "[]",
        "1",
        '"alg"',
        "null",
        "",
        "[" * 1_000,
        '{"a":' * 300,
        '{"alg":' + "9" * 1_000 + "}",
        '"\\ud800"',
        '{"alg":"\\ud800"}',
    ),
)
_CLAIMS: Final = (
    *(
        '{"iss":"account"}',
        '{"iss":"privacy"}',
        '{"iss":["account"]}',
        '{"iss":null}',
        '{"iss":"../../x"}',
        '{"iss":"\\u0000"}',
    ),
    *('{"iss":"account","exp":1e400}', '{"iss":"privacy","exp":' + "9" * 400 + "}", "[]", "1", "null", "", "[" * 1_000),
)
# Not one is signed by anybody.
TOKENS: Final = (
    *(f"{_part(head)}.{_part(claims)}.{_part(b'0' * 64)}" for head in _HEADS for claims in _CLAIMS[:2]),
    *(f"{_part(_HEADS[0])}.{_part(claims)}.{_part(b'0' * 64)}" for claims in _CLAIMS),
    *(
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        "=.=.=",
        "A" * 2_000,
        "A" * 5_000,
        "." * 4_000,
        f"{_part(_HEADS[0])}..",
        f"{_part(_HEADS[0])}.e30.=",
    ),
    *(f"{_part(bytes([0xFF] * 40))}.e30.AA", f"e30.{_part(bytes([0xFF] * 40))}.AA", "\xff.\xff.\xff", "a b", "a\x00b"),
)


_OPEN: Final = ("/v1/accounts", "/v1/accounts/{registration_id}/confirmation", "/v1/sign-in", "/v1/guests")
_LAST: Final = ("/cancel", "/close", "/approve", "/deny")


@dataclass(frozen=True)
class Sent:
    """A request as it goes out; the path and query are percent-encoded already."""

    method: str
    path: str
    query: str = ""
    body: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(frozen=True)
class Api:
    """One service: its app in this process, who calls it, and a good body of each route that takes one, by its template."""

    name: str
    app: FastAPI
    actors: Mapping[str, str | Callable[[], str]]
    """Token by the beginning of a path, or what makes one that is still good; of several the longest counts."""
    bodies: Mapping[str, Any] = field(default_factory=dict)
    media_types: Mapping[str, str] = field(default_factory=dict)
    ids: Mapping[str, str] = field(default_factory=dict)
    """Of what there is, by the name of the parameter."""

    def operations(self) -> list[tuple[str, str, list[dict[str, Any]]]]:
        """Method, template and parameters; what ends something comes last."""
        found = [
            (method.upper(), path, operation.get("parameters", []))
            for path, methods in self.app.openapi()["paths"].items()
            for method, operation in methods.items()
        ]
        return sorted(found, key=lambda each: each[0] == "DELETE" or each[1].endswith(_LAST))

    def who(self, path: str) -> tuple[bytes, bytes]:
        token = self.actors[max((each for each in self.actors if path.startswith(each)), key=len)]
        return b"authorization", f"Bearer {token if isinstance(token, str) else token()}".encode()

    def media_type(self, path: str) -> tuple[bytes, bytes]:
        return b"content-type", self.media_types.get(path, "application/json").encode()


def odd_requests(api: Api) -> Iterator[Sent]:
    """One thing is odd in each; the rest is good."""
    for method, path, parameters in api.operations():
        good = api.bodies.get(f"{method} {path}")
        body = b"" if good is None else json.dumps(good).encode()
        plain = Sent(method, _fill(api, path, {}), _query(parameters, {}), body, (api.who(path), api.media_type(path)))
        yield plain
        for parameter in parameters:
            yield from _odd_parameter(api, path, parameters, parameter, plain)
        yield replace(plain, query="%ff=1&a=%00&" + "&".join("a" * 90))
        for value in HEADERS:
            yield replace(plain, headers=(*plain.headers, (b"accept", value)))
        if method in ("GET", "DELETE"):
            yield replace(plain, body=b"[" * 5_000)
            continue
        for odd in (*BODIES, *(text.encode() for text in _varied(good))):
            yield replace(plain, body=odd)
        for media_type in MEDIA_TYPES:
            yield replace(plain, headers=(plain.headers[0], (b"content-type", media_type)))


def _odd_parameter(
    api: Api, path: str, parameters: list[dict[str, Any]], parameter: dict[str, Any], plain: Sent
) -> Iterator[Sent]:
    name = parameter["name"]
    match parameter["in"]:
        case "path":
            yield from (replace(plain, path=_fill(api, path, {name: value})) for value in PARTS)
        case "query":
            yield from (replace(plain, query=_query(parameters, {name: value})) for value in VALUES)
        case _:
            yield from (replace(plain, headers=(*plain.headers, (name.lower().encode(), value))) for value in HEADERS)


def odd_tokens(api: Api) -> Iterator[Sent]:
    """On one route of each actor."""
    closed = [(method, path) for method, path, _ in api.operations() if path not in _OPEN]
    for method, path in {api.who(path): (method, path) for method, path in closed}.values():
        for token in TOKENS:
            who = (b"authorization", b"Bearer " + token.encode("latin-1"))
            yield Sent(method, _fill(api, path, {}), headers=(who,))


def _fill(api: Api, path: str, odd: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        return odd.get(match[1], api.ids.get(match[1], str(UUID(int=7))))

    return re.sub(r"\{(\w+)\}", value, path)


def _query(parameters: list[dict[str, Any]], odd: Mapping[str, str]) -> str:
    """A good value of each parameter, and the odd one."""
    good = {each["name"]: _good(each) for each in parameters if each["in"] == "query"}
    return "&".join(f"{name}={value}" for name, value in {**good, **odd}.items() if value)


def _good(parameter: Mapping[str, Any]) -> str:
    schema = parameter["schema"]
    kind = schema.get("anyOf", [schema])[0]
    match kind.get("format"), kind.get("type"):
        case "date-time", _:
            return "2026-01-01T00:00:00Z"
        case "uuid", _:
            return str(UUID(int=7))
        case _, "integer":
            return str(max(1, kind.get("minimum", 1)))
    return "email" if parameter.get("required") else ""


_HOLE: Final = "hole-b2c1"


def _varied(good: Any) -> Iterator[str]:
    """The text of the good body with each value in it, and each value of a list, replaced by each odd one."""
    for holed in _holed(good):
        before, _, after = json.dumps(holed).partition(f'"{_HOLE}"')
        for odd in JSONS:
            yield before + odd + after


def _holed(value: Any) -> Iterator[Any]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        for holed in (_HOLE, *_holed(inner)):
            copy = value.copy()
            copy[key] = holed
            yield copy


async def send(http: httpx.AsyncClient, sent: Sent) -> httpx.Response:
    query = f"?{sent.query}" if sent.query else ""
    return await http.request(
        sent.method, f"http://test{sent.path}{query}", content=sent.body, headers=list(sent.headers)
    )
