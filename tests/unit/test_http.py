"""The HTTP edge: problems without input in them, limits, tokens, ids, pages and an access log of templates."""

import asyncio
import base64
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID, uuid4

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from fastapi import APIRouter, Depends
from joserfc import jwt
from joserfc.jwk import OKPKey
from pydantic import BaseModel, ConfigDict, Field

from servicekit.app.probes import make_probes
from servicekit.core.clock import FakeClock
from servicekit.core.errors import Misconfigured, NotFound, TooMany
from servicekit.core.health import Health
from servicekit.core.settings import Settings
from servicekit.http.admission import MAX_BODY, OPEN_MAX_BODY, max_body
from servicekit.http.app import make_app
from servicekit.http.auth import Customer, Staff, customer, staff
from servicekit.http.paging import Cursor, Page, Paging, paging
from tests.support.asgi import AsgiClient

SECRET = "jane.canary@example.org"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Thing(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str = Field(min_length=2, max_length=10)
    sizes: list[int] = []


def make_router() -> APIRouter:
    router = APIRouter(prefix="/v1")

    @router.post("/things/{thing_id}", status_code=201)
    async def make_thing(thing_id: UUID, thing: Thing) -> dict[str, str]:
        return {"name": thing.name}

    @router.post("/batches", openapi_extra=max_body(200_000))
    async def batches(things: list[Thing], who: Annotated[Customer, Depends(customer())]) -> int:
        return len(things)

    @router.get("/crash")
    async def crash() -> None:
        raise RuntimeError(SECRET)

    @router.get("/slow")
    async def slow() -> None:
        raise TooMany(retry_after=12.3)

    @router.get("/none")
    async def none() -> None:
        raise NotFound

    @router.get("/me")
    async def me(who: Annotated[Customer, Depends(customer(guests=False))]) -> UUID:
        return who.subject_id

    @router.get("/desk")
    async def desk(who: Annotated[Staff, Depends(staff("support"))]) -> str:
        return who.role

    @router.get("/numbers")
    async def numbers(wanted: Annotated[Paging, Depends(paging)]) -> Page[int]:
        start = wanted.after.id.int if wanted.after else 0
        rows = list(range(start + 1, 8))[: wanted.fetch]
        return wanted.page(rows, [Cursor(NOW, UUID(int=row)) for row in rows])

    return router


class Keys:
    """A signing key for customers and one for staff, with their public halves on disk."""

    def __init__(self, folder: Path) -> None:
        self._signing = {issuer: Ed25519PrivateKey.generate() for issuer in ("account", "staff")}
        self.files = {issuer: folder / f"{issuer}.pub.pem" for issuer in self._signing}
        for issuer, key in self._signing.items():
            self.files[issuer].write_bytes(
                key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            )

    def token(self, issuer: str, *, key: str = "", minutes: float = 5, **claims: Any) -> str:
        pem = self._signing[key or issuer].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        expiry = int((NOW + timedelta(minutes=minutes)).timestamp())
        all_claims = {"iss": issuer, "aud": "shop", "sub": str(UUID(int=7)), "exp": expiry} | claims
        header = {"alg": "Ed25519"}
        return jwt.encode(header, all_claims, OKPKey.import_key(pem), algorithms=["Ed25519"])


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path)


@pytest.fixture
def health() -> Health:
    return Health("things", "api", "1.0", FakeClock(NOW))


@pytest.fixture
def client(keys: Keys, health: Health) -> AsgiClient:
    settings = Settings(customer_public_key_file=keys.files["account"], staff_public_key_file=keys.files["staff"])
    return AsgiClient(make_app(settings, FakeClock(NOW), health, [make_router()]))


async def in_parts(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.fault(28, "an invalid request with a value")
def test_invalid_fields_are_named_without_their_values(client: AsgiClient) -> None:
    answer = client.post(f"/v1/things/{uuid4()}", json={"name": "x", "sizes": [1, SECRET], SECRET: 1, "evil_name": 2})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["type"], problem["status"]) == ("/problems/invalid", 422)
    found = {(error["at"], error["code"]) for error in problem["errors"]}
    assert found == {
        ("name", "string_too_short"),
        ("sizes.1", "int_parsing"),
        ("*", "extra_forbidden"),
    }
    assert all(error["expected"].startswith(("Send ", "Leave ")) for error in problem["errors"])
    assert SECRET not in answer.text
    assert "evil" not in answer.text


def test_invalid_path_and_broken_json_show_nothing(client: AsgiClient) -> None:
    assert SECRET not in client.post(f"/v1/things/{SECRET}", json={"name": "xx"}).text
    answer = client.post(f"/v1/things/{uuid4()}", content=SECRET, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert SECRET not in answer.text


@pytest.mark.parametrize(
    "body",
    [
        b'{"name": "abc", "name": "abd"}',
        b'{"name": "abc", "n\\u0061me": "abd"}',
        b'{"name": "abc", "sizes": [{"jane": 1, "jane": 2}]}',
        b'{"name": "\\ud800bc"}',
        b'{"name": "abc", "sizes": [NaN]}',
        b"[" * 1_000 + b"]" * 1_000,
        b'{"name": "ab\xff"}',
    ],
)
@pytest.mark.parametrize(
    "media_type", ["application/json", "application/vnd.jane+json; charset=utf-8", f"application/{'x' * 250}+json"]
)
@pytest.mark.attack("JSON that two readers read in two ways", expected="400, without the text")
def test_json_that_can_be_read_in_two_ways_is_refused(client: AsgiClient, body: bytes, media_type: str) -> None:
    answer = client.post(f"/v1/things/{uuid4()}", content=body, headers={"Content-Type": media_type})
    assert (answer.status_code, answer.json()["type"]) == (400, "/problems/malformed")
    assert "jane" not in answer.text


def test_errors_become_problems_with_their_headers(client: AsgiClient) -> None:
    assert client.get("/v1/none").json()["type"] == "/problems/not_found"
    assert client.get(f"/{SECRET}").json()["status"] == 404
    assert client.get("/v1/slow").headers["retry-after"] == "13"
    assert client.request("DELETE", "/v1/none").status_code == 405
    assert client.get("/v1/me").headers["www-authenticate"] == "Bearer"


@pytest.mark.fault(28, "a failing handler with a value in its error")
def test_a_crash_answers_500_and_logs_no_message(client: AsgiClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        answer = client.get("/v1/crash")
    assert answer.status_code == 500
    assert answer.json()["type"] == "/problems/internal"
    assert SECRET not in answer.text + caplog.text
    assert any(getattr(r, "_safe_fields", {}).get("event") == "request_crashed" for r in caplog.records)


@pytest.mark.fault(26, "a request outlives the time that a stopping process gives it")
async def test_a_request_that_the_stop_cuts_off_is_to_be_sent_again(keys: Keys, health: Health) -> None:
    app = make_app(Settings(customer_public_key_file=keys.files["account"]), FakeClock(NOW), health, [make_router()])
    sent: list[Any] = []
    arrived = asyncio.Event()

    async def receive() -> None:
        arrived.set()
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/v1/crash", "query_string": b"", "headers": []}
    request = asyncio.ensure_future(app(scope, receive, send))
    await arrived.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert sent[0]["status"] == 503
    assert b"Send it again" in sent[1]["body"]


def test_access_log_has_the_template_not_the_path(client: AsgiClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="shop.http"):
        client.post(f"/v1/things/{uuid4()}", json={"name": "abc"})
        client.get(f"/{SECRET}")
    fields = [vars(record)["_safe_fields"] for record in caplog.records if hasattr(record, "_safe_fields")]
    assert [(f["route"], f["status"]) for f in fields] == [("/v1/things/:thing_id", 201), ("unmatched", 404)]


@pytest.mark.attack("a body without an end", expected="413")
def test_bodies_are_limited_in_size_also_without_a_length(client: AsgiClient, keys: Keys) -> None:
    big = [{"name": "abc"}] * 8_000
    mine = bearer(keys.token("account", scope="customer"))
    assert client.post("/v1/batches", json=big, headers=mine).json() == 8_000
    assert client.post("/v1/batches", json=big * 2, headers=mine).status_code == 413
    assert client.post("/v1/things/x", content=b"x" * (OPEN_MAX_BODY + 1)).status_code == 413
    assert client.post("/v1/things/x", content=in_parts(b"x" * OPEN_MAX_BODY, b"y")).status_code == 413


@pytest.mark.parametrize("path", ["/v1/batches", "/v1/nowhere"])
@pytest.mark.attack("a large and costly body without a token", expected="an answer before the body is read")
def test_a_strangers_body_is_not_read_where_a_token_is_needed(client: AsgiClient, path: str) -> None:
    read: list[bytes] = []

    async def body() -> AsyncIterator[bytes]:
        for _ in range(100):
            read.append(b"1 " * 10_000)
            yield read[-1]

    for headers in ({}, bearer("x.y.z")):
        assert client.post(path, content=body(), headers=headers).status_code in (401, 404)
    assert read == []


@pytest.mark.attack("a token nested as deep as it is long", expected="401")
def test_a_token_of_deep_json_is_refused(client: AsgiClient) -> None:
    deep = base64.urlsafe_b64encode(b"[" * 2_800).rstrip(b"=").decode()
    for token in (f"{deep}.e30.AAAA", f"e30.{deep}.AAAA", f"{deep}..", "..", "a.b.c.d", "é.é.é"):
        answer = client.get("/v1/me", headers={"Authorization": f"Bearer {token}".encode()})
        assert answer.status_code == 401


def test_an_open_route_takes_no_large_body(keys: Keys, health: Health) -> None:
    router = APIRouter()

    @router.post("/open", openapi_extra=max_body(MAX_BODY))
    async def take() -> None: ...

    with pytest.raises(Misconfigured, match="/open is open"):
        make_app(Settings(), FakeClock(NOW), health, [router])


@pytest.mark.attack("requests without a valid token, without an end", expected="429 for this peer alone")
async def test_a_peer_without_a_token_is_stopped_and_no_other(keys: Keys, health: Health) -> None:
    settings = Settings(
        customer_public_key_file=keys.files["account"], strangers_per_minute=1, strangers_burst=5, limits_factor=1
    )
    app = make_app(settings, FakeClock(NOW), health, [make_router()])

    async def get(path: str, peer: str, **headers: str) -> int:
        transport = httpx.ASGITransport(app, client=(peer, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            return (await http.get(path, headers=headers)).status_code

    tried = [await get(path, "10.0.0.1") for path in ("/v1/none", "/v1/nowhere", "/v1/me", "/v1/numbers", "/v1/me")]
    assert tried == [404, 404, 401, 200, 401]
    assert [await get(path, "10.0.0.1") for path in ("/v1/none", "/v1/nowhere", "/v1/me")] == [429] * 3
    # So is what a route refuses for its query, and a valid token of another kind.
    assert [await get("/v1/numbers?x=1", "10.0.0.3") for _ in range(6)] == [422] * 5 + [429]
    guest = bearer(keys.token("account", scope="guest"))
    assert [await get("/v1/me", "10.0.0.4", **guest) for _ in range(6)] == [403] * 5 + [429]
    # Who has a token is counted by it, wherever they are; another peer has its own tries.
    assert await get("/v1/me", "10.0.0.1", **bearer(keys.token("account", scope="customer"))) == 200
    assert await get("/v1/numbers", "10.0.0.2") == 200


@pytest.mark.parametrize("query", ["q=1", "limit=1&limit=2", f"{SECRET}=1", "limit=%ff", "&".join(["limit=1"] * 60)])
def test_a_query_that_the_route_does_not_know_is_refused(client: AsgiClient, query: str) -> None:
    answer = client.get(f"/v1/numbers?{query}")
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/invalid")
    assert SECRET not in answer.text
    if "%" not in query and len(query) < 100:
        assert "cursor, limit" in answer.json()["detail"]


@pytest.mark.parametrize(
    "at",
    ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00", "2026-01-01T00:00:00", "1999-12-31T00:00:00Z", "\0"],
)
def test_a_cursor_of_no_time_of_ours_is_refused(client: AsgiClient, at: str) -> None:
    cursor = base64.urlsafe_b64encode(f"{at} {UUID(int=1).hex}".encode()).decode()
    assert client.get("/v1/numbers", params={"cursor": cursor}).status_code == 422


def test_card_numbers_are_refused_before_the_route(client: AsgiClient) -> None:
    for answer in (
        client.post(f"/v1/things/{uuid4()}", json={"a": ["4111 1111 1111 1111"]}),
        client.post(f"/v1/things/{uuid4()}", content=b"x=4111-1111-1111-1111"),
        client.get("/v1/numbers", params={"cursor": "4111 1111 1111 1111"}),
    ):
        assert answer.status_code == 422
        assert answer.json()["type"] == "/problems/card_number"
        assert "1111" not in answer.text
    phone = client.post(f"/v1/things/{uuid4()}", json={"name": "+4222222222222"})
    assert phone.json()["type"] == "/problems/invalid"


@pytest.mark.attack("a customer's token that is expired, foreign or of another kind", expected="401")
def test_customer_tokens(client: AsgiClient, keys: Keys) -> None:
    def get(token: str) -> int:
        return client.get("/v1/me", headers=bearer(token)).status_code

    assert client.get("/v1/me", headers=bearer(keys.token("account", scope="customer"))).json() == str(UUID(int=7))
    assert get(keys.token("account", scope="guest")) == 403
    assert get(keys.token("account")) == 401
    assert get(keys.token("account", scope="customer", minutes=-1)) == 401
    assert get(keys.token("account", scope="customer", aud="vault")) == 401
    assert get(keys.token("account", scope="customer", sub="jane")) == 401
    assert get(keys.token("account", scope="customer", key="staff")) == 401
    assert get(keys.token("staff", scope="customer")) == 401
    assert get("x" * 5000) == 401


@pytest.mark.attack("an unsigned or symmetric customer's or staff token", expected="401")
def test_unsigned_and_symmetric_tokens_are_refused(client: AsgiClient, keys: Keys) -> None:
    _, payload, _ = keys.token("account", scope="customer").split(".")
    for header in (b'{"alg":"none"}', b'{"alg":"HS256"}'):
        head = base64.urlsafe_b64encode(header).rstrip(b"=").decode()
        assert client.get("/v1/me", headers=bearer(f"{head}.{payload}.")).status_code == 401


@pytest.mark.attack("a staff token without the role", expected="403")
def test_staff_tokens_need_one_of_the_roles(client: AsgiClient, keys: Keys) -> None:
    def get(token: str) -> int:
        return client.get("/v1/desk", headers=bearer(token)).status_code

    assert get(keys.token("staff", role="support")) == 200
    assert get(keys.token("staff", role="privacy_officer")) == 403
    assert get(keys.token("account", scope="customer")) == 401


def test_without_a_key_the_edge_fails_closed(keys: Keys, health: Health) -> None:
    client = AsgiClient(make_app(Settings(), FakeClock(NOW), health, [make_router()]))
    answer = client.get("/v1/me", headers=bearer(keys.token("account", scope="customer")))
    assert answer.status_code == 503


def test_a_process_that_refuses_answers_its_operator_only(client: AsgiClient, health: Health) -> None:
    health.refuse("behind_revocations")
    assert client.get("/v1/numbers").status_code == 503
    probes = AsgiClient(make_probes(health))
    assert probes.get("/readyz").status_code == 503
    assert probes.get("/readyz").json()["missing"] == ["behind_revocations"]
    assert probes.get("/livez").status_code == probes.get("/metrics").status_code == 200
    health.accept("behind_revocations")
    assert client.get("/v1/numbers").status_code == probes.get("/readyz").status_code == 200


@pytest.mark.attack(
    "a stranger reads the metrics", expected="404: the public listener knows none of the operator's paths"
)
def test_the_public_listener_tells_nothing_about_the_process(client: AsgiClient) -> None:
    assert {client.get(path).status_code for path in ("/metrics", "/livez", "/readyz", "/healthz")} == {404}


def test_pages_follow_each_other_to_the_end(client: AsgiClient) -> None:
    first = client.get("/v1/numbers?limit=3").json()
    second = client.get("/v1/numbers", params={"limit": 4, "cursor": first["next"]}).json()
    assert (first["items"], second) == ([1, 2, 3], {"items": [4, 5, 6, 7], "next": None})
    assert client.get("/v1/numbers?limit=101").status_code == 422
    assert client.get("/v1/numbers?cursor=jane").json()["type"] == "/problems/invalid"


def test_openapi_describes_problems_and_limits(client: AsgiClient) -> None:
    document = client.get("/openapi.json").json()
    responses = document["paths"]["/v1/batches"]["post"]["responses"]
    assert "application/problem+json" in responses["default"]["content"]
    assert document["paths"]["/v1/batches"]["post"]["x-max-body-bytes"] == 200_000
    assert "HTTPValidationError" not in document["components"]["schemas"]
