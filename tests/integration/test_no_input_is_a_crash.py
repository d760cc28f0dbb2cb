"""No input of anybody makes a 5xx: odd values in every place of every route, and what schemathesis makes of the OpenAPI
documents. A refusal shows nothing of what was sent, and says of each field what is expected.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from itertools import islice
from typing import Any
from uuid import UUID, uuid4

import httpx
import msgspec
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis.errors import Unsatisfiable

from account_service.app import SERVICE as ACCOUNT
from order_service.app import SERVICE as ORDER
from privacy_service.app import SERVICE as PRIVACY
from servicekit.app.service import Service
from servicekit.core.clock import Clock
from servicekit.core.health import Health
from servicekit.core.policy import Policy
from servicekit.db.postgres import Database
from servicekit.http.app import make_app
from servicekit.http.problems import MEDIA_TYPE
from servicekit.kit import Kit
from tests.support import accounts, orders, rights
from tests.support.accounts import PASSWORD, dsns, settings
from tests.support.accounts import shop as account_shop
from tests.support.asgi import open_client
from tests.support.infra import postgres_server
from tests.support.inputs import CANARY, SECRETS_ASKED, Api, odd_requests, odd_tokens, send
from tests.support.inventories import DirectoryVault
from tests.support.orders import order_dsns, order_keys
from tests.support.orders import shop as order_shop
from tests.support.rights import shop as privacy_shop
from tests.support.vaults import POLICY, World, loaded_kek, module_world
from vault_service.app import _api as vault_api
from vault_service.handlers import Vault
from vault_service.revocations import handlers as revocations
from vault_service.revocations import http as revocations_http
from vault_service.revocations.file import RevocationFile
from vault_service.settings import VaultSettings

__all__ = [  # fixtures
    "account_shop",
    "dsns",
    "module_world",
    "order_dsns",
    "order_keys",
    "order_shop",
    "postgres_server",
    "privacy_shop",
    "settings",
]

ME = UUID("0f3c1a52-7a5e-4c0a-8f3e-2b8f6f0d9c11")
ADDRESS = {"name": "Jane", "lines": ["Street 1", "Back door"], "city": "Bern", "postal_code": "3000", "country": "CH"}
CONSIGNEE = orders.a_purchase()["consignee"] | {"company": "Tea Ltd", "email": "zoe@example.org"}
WHOLE: dict[str, Any] = {
    "shop_order_number": "#2026/0042", "shipping": 490, "discount": 300, "tax": 700, "tax_included": True, "total": 4188,
    "invoice": {"number": "R-77", "issued_on": "2026-11-28"},
    "registration": {"vat": "PL 5260250995", "eori": "PL526025099500000", "tax_id": "526-025-09-95"},
}  # fmt: skip
REGISTRATION = {
    "email": "jane@example.org",
    "password": PASSWORD,
    "name": "Jane",
    "birth_date": "1990-02-03",
    "language": "en",
}
LOOK = {
    "specversion": "1.0",
    "id": str(uuid4()),
    "source": "/web",
    "type": "page_viewed",
    "time": "2026-11-01T00:00:00Z",
    "data": {"page": "/tea", "sku": "TEA-1", "seconds": 3},
}
# Tests of the limits are elsewhere.
UNLIMITED = 1e9


@pytest.fixture
async def apis(
    account_shop: accounts.Shop, order_shop: orders.Shop, privacy_shop: rights.Shop, module_world: World
) -> AsyncIterator[list[Api]]:
    """The four services in this process, each on its own database, with people whom they know."""
    async with AsyncExitStack() as parts:
        yield [
            await _account(account_shop),
            await _order(order_shop),
            await _privacy(privacy_shop),
            await _vault(module_world, parts),
        ]


async def _account(shop: accounts.Shop) -> Api:
    await shop.kit.db.fetch("DELETE FROM kit.rate_limits")  # used up by the test before
    me, headers = await shop.member()
    added = await shop.http.post("/v1/accounts/me/addresses", json=ADDRESS, headers=headers)
    return Api(
        "account",
        _app(shop.kit, ACCOUNT),
        {"/": headers["Authorization"].removeprefix("Bearer ")},
        {
            "POST /v1/accounts": REGISTRATION | {"phone": "+41441234567"},
            "POST /v1/accounts/{registration_id}/confirmation": {"code": "abcdef", "password": PASSWORD},
            "POST /v1/sign-in": {"email": "jane@example.org", "password": PASSWORD},
            "POST /v1/guests": {"email": "guest@example.org", "phone": "+41441234567", "language": "de"},
            "PATCH /v1/accounts/me": {
                "name": "Jane",
                "birth_date": "1990-02-03",
                "phone": "+41441234567",
                "language": "de",
            },
            "POST /v1/accounts/me/addresses": ADDRESS | {"state": "BE", "phone": "+41441234567"},
            "PUT /v1/accounts/me/addresses/{address_id}": ADDRESS,
            "POST /v1/accounts/me/favourites": {"sku": "TEA-1"},
            "POST /v1/browsing-events": LOOK,
        },
        {"/v1/browsing-events": "application/cloudevents+json"},
        {"address_id": added.json()["address_id"], "registration_id": str(me)},
    )


async def _order(shop: orders.Shop) -> Api:
    buyer, support, accountant = shop.buyer(), shop.staff("support"), shop.staff("accounting")
    order_id = await buyer.placed()
    actors = {
        "/": buyer,
        "/v1/orders/find": support,
        "/v1/orders/{order_id}/close": support,
        "/v1/tax-records": accountant,
    }
    parcel = {"weight_g": 3_000, "length_cm": 30, "width_cm": 20, "height_cm": 10}
    return Api(
        "order",
        _app(shop.kit, ORDER),
        {path: who.token for path, who in actors.items()},
        {
            "POST /v1/orders": orders.a_purchase(parcels=[parcel], **WHOLE),
            "POST /v1/quotes": orders.a_purchase(parcels=[parcel], **WHOLE),
            "PUT /v1/orders/{order_id}/consignee": CONSIGNEE,
            "POST /v1/orders/find": {"order_number": "7ZK3M-0Q9XA"},
            "POST /v1/orders/{order_id}/close": {"reason": "undeliverable"},
        },
        ids={"order_id": order_id},
    )


async def _privacy(shop: rights.Shop) -> Api:
    await shop.knows(ME)
    officer, customer = shop.staff("privacy_officer"), shop.customer(ME)
    kit = replace(shop.kit, vault=_FakeVault())  # type: ignore[arg-type]
    app = _app(kit, PRIVACY)
    corrections = {
        "identity": {"name": "Jane", "birth_date": "1990-02-03"},
        "contact": {"email": "jane@example.org", "phone": "+41441234567"},
    }
    asked: dict[str, Any] = {"kind": "rectification", "data_classes": ["identity"], "regime": "gdpr"}
    request = asked | {"subject_ids": [str(ME)], "identity_check": "callback", "rectification": corrections}
    async with open_client(app) as http:
        other = request | {"kind": "access", "data_classes": None, "rectification": None}  # one of a kind is open
        opened = await http.post("/v1/requests", json=other, headers=officer)
    assert opened.status_code == 201, opened.text
    delivery = {"delivery": {"order_id": str(uuid4()), "consignee": CONSIGNEE}}
    return Api(
        "privacy",
        app,
        {path: who["Authorization"].removeprefix("Bearer ") for path, who in (("/", officer), ("/v1/me", customer))},
        {
            "POST /v1/find": {"by": "email", "term": "jane@example.org"},
            "POST /v1/requests": request,
            "POST /v1/me/requests": asked | {"rectification": delivery},
            "POST /v1/requests/{request_id}/identity": {"check": "callback"},
            "POST /v1/requests/{request_id}/deny": {"reason": "no_match"},
            "POST /v1/requests/{request_id}/extend": {"reason": "complex", "until": "2026-12-24T00:00:00Z"},
            "POST /v1/holds": {
                "subject_id": str(ME),
                "data_class": "contact",
                "anchor": str(ME),
                "basis": "litigation",
                "until": "2027-12-24T00:00:00Z",
            },
            "POST /v1/retention/runs": {"dry_run": True},
        },
        ids={"request_id": opened.json()["request_id"], "subject_id": str(ME), "token": "A" * 43},
    )


async def _vault(world: World, parts: AsyncExitStack) -> Api:
    db = await Database.connect(world.app_dsn, "vault-inputs")
    parts.push_async_callback(db.close)
    service_keys = world.folder / "keys" / "service_keys"
    settings = VaultSettings(service_keys_dir=service_keys, limits_factor=UNLIMITED)
    file = RevocationFile.open(world.folder / "revocations.jsonl", (world.folder / "keys/revocations.pem").read_bytes())
    vault = Vault(db, Policy.load([POLICY]), await loaded_kek(world, db), Clock(), file=file)
    await revocations.catch_up(vault)
    # Nobody waits for entries that do not come.
    parts.enter_context(pytest.MonkeyPatch.context()).setattr(revocations_http, "LONGEST_POLL", 0.01)
    key = {"subject": str(ME), "data_class": "contact", "anchor": str(ME)}
    digest = "A" * 43
    revocation = {
        "request_id": str(uuid4()),
        "subject": str(uuid4()),
        "data_classes": ["contact"],
        "anchors": [str(ME)],
    }
    return Api(
        "vault",
        vault_api(settings, Clock(), Health("vault", "api", "0", Clock()), vault),
        {
            "/": world.identity("privacy").token,
            **{f"/v1/{each}": world.identity("account").token for each in ("keys/", "index-keys")},
        },
        {
            "POST /v1/keys/ensure": {
                "keys": [key | {"new": "anchor"}],
                "index": [{"kind": "email", "digest": digest, "key": 0}],
            },
            "POST /v1/keys/lease": {"purpose": "account", "keys": [key | {"key_id": str(uuid4())}]},
            "POST /v1/directory/find": {"kind": "email", "digest": digest},
            "POST /v1/revocations": {
                "revocations": [revocation | {"held": [{"data_class": "contact", "anchor": str(ME)}]}]
            },
            "POST /v1/revocations/destroy": {"request_ids": [str(uuid4())]},
        },
    )


def _app(kit: Kit, service: Service) -> Any:
    settings = kit.settings.model_copy(update={"limits_factor": UNLIMITED})
    kit = replace(kit, settings=settings)
    assert service.router is not None
    health = Health(kit.name, "api", "0", kit.clock)
    # Tokens live by the machine's clock.
    return make_app(settings, Clock(), health, [service.router(kit)], limits=kit.limits)


class _FakeVault(DirectoryVault):
    """Has one KEK epoch, and no next one."""

    async def call(self, method: str, path: str, kind: Any, body: Any = None) -> Any:
        now = Clock().now()
        epoch = {"epoch": 1, "state": "active", "keys": 0, "opened_at": now, "closed_at": None}
        epoch |= {"emptied_at": None, "destroyed_at": None}
        return msgspec.convert({"provider": "file", "horizon": now.date(), "strays": [], "epochs": [epoch]}, kind)


def _bounds(examples: int) -> hypothesis_settings:
    """The same ones in each run."""
    return hypothesis_settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


class Seen:
    """What was answered, and what may not be."""

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.wrong: dict[str, str] = {}

    def add(self, name: str, sent: object, answer: httpx.Response) -> None:
        if answer.status_code != 401 or not any(route in name for route in SECRETS_ASKED):
            self.statuses[answer.status_code] += 1
        if answer.status_code >= 500:
            self._note(f"{name} {answer.status_code} {answer.json()['detail']}", sent)
        elif answer.status_code >= 400:
            if CANARY in answer.text:
                self._note(f"{name} shows what was sent", sent)
            if answer.headers["content-type"] != MEDIA_TYPE:
                self._note(f"{name} {answer.headers['content-type']}", sent)
            for error in answer.json().get("errors", ()):
                if "expected" not in error or error["at"].startswith("body."):
                    self._note(f"{name} does not help: {error}", sent)

    def assert_reached(self) -> None:
        """The input is the reason of a refusal: no limit stops a request, and few callers are unknown."""
        assert self.statuses[429] == 0, self.statuses
        assert 20 * self.statuses[401] < self.statuses.total(), self.statuses

    def _note(self, what: str, sent: object) -> None:
        self.wrong.setdefault(what, repr(sent)[:700])

    def __repr__(self) -> str:
        return "\n".join(f"{what}: {sent}" for what, sent in self.wrong.items())


# `make test` sends a part of them, another one at each place.
SHARES = [pytest.param(13, id="some"), pytest.param(1, id="all", marks=pytest.mark.long)]
EXAMPLES = [pytest.param(3, id="some"), pytest.param(60, id="many", marks=pytest.mark.long)]


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.attack("odd values in every place of every request", expected="4xx, and nothing of them in the answer")
async def test_an_odd_value_anywhere_is_no_crash(apis: list[Api], share: int) -> None:
    seen = Seen()
    for api in apis:
        async with open_client(api.app) as http:
            for sent in islice(odd_requests(api), 0, None, share):
                seen.add(f"{api.name} {sent.method} {sent.path[:60]}", sent, await send(http, sent))
    assert not seen.wrong, seen
    seen.assert_reached()


@pytest.mark.parametrize("query", ["done=1" + "0" * 30, f"done={2**63}", "wait=nan", "wait=inf"])
async def test_a_service_reports_no_number_that_the_database_cannot_hold(apis: list[Api], query: str) -> None:
    api = apis[-1]
    name, token = api.who("/v1/revocations")
    async with open_client(api.app) as http:
        answer = await http.get(
            f"/v1/revocations?after=0&holder={uuid4()}&{query}", headers={name.decode(): token.decode()}
        )
    assert answer.status_code == 422, answer.text


@pytest.mark.attack("tokens that nobody signed, deep, long and odd", expected="401")
async def test_an_odd_token_is_refused(apis: list[Api], seen: Callable[[object], None]) -> None:
    statuses: Counter[int] = Counter()
    for api in apis:
        async with open_client(api.app) as http:
            for sent in odd_tokens(api):
                answer = await send(http, sent)
                assert answer.status_code == 401, (api.name, sent, answer.text)
                statuses[answer.status_code] += 1
    seen(*statuses)


@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.attack("what schemathesis makes of the OpenAPI documents", expected="4xx, and nothing of it in the answer")
async def test_what_the_documents_allow_and_forbid_is_no_crash(apis: list[Api], examples: int) -> None:
    seen = Seen()
    loop = asyncio.get_running_loop()
    for api in apis:
        schema = schemathesis.openapi.from_dict(_document(api))
        async with open_client(api.app) as http:
            for result in schema.get_all_operations():
                # The examples are made beside the loop in which the service answers.
                await asyncio.to_thread(_explore, loop, http, api, result.ok(), seen, examples)
    assert not seen.wrong, seen
    seen.assert_reached()


def _document(api: Api) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(json.dumps(api.app.openapi()))
    return document


def _explore(
    loop: asyncio.AbstractEventLoop, http: httpx.AsyncClient, api: Api, operation: Any, seen: Seen, examples: int
) -> None:
    who, token = api.who(operation.path)

    def run(case: schemathesis.Case) -> None:
        options = case.as_transport_kwargs(base_url="http://test")
        options["headers"] = {**options.get("headers", {}), who.decode(): token.decode()}
        request = requests.Request(**{name: options.get(name) for name in SENT}).prepare()
        asked = http.request(
            request.method or "",
            request.url or "",
            content=request.body or b"",
            headers=[(name.encode(), _header(value)) for name, value in request.headers.items()],
        )
        answer = asyncio.run_coroutine_threadsafe(asked, loop).result()
        seen.add(f"{api.name} {operation.label}", (request.url, request.headers, request.body), answer)

    for mode in schemathesis.GenerationMode:
        with suppress(Unsatisfiable):  # there may be nothing that the document forbids
            _once(run, operation.as_strategy(generation_mode=mode), examples)


def _once(run: Callable[[schemathesis.Case], None], cases: Any, examples: int) -> None:
    @_bounds(examples)
    @given(cases)
    def explore(case: schemathesis.Case) -> None:
        run(case)

    explore()


def _header(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("latin-1", "replace")


SENT = ("method", "url", "headers", "data", "json", "params", "cookies", "files")
