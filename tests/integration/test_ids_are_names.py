"""An id is a name and never a capability: what somebody reads in an event, the evidence log or a certificate gives nothing.

Each route of each service stands in `ROUTES` with what it asks for instead of an id. A new route fails the first test until
somebody says so, and the second one then tries ids of all kinds on it.
"""

import asyncio
import json
import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final
from uuid import UUID, uuid4

import httpx
import pytest
from fastapi import APIRouter, FastAPI

from account_service.app import SERVICE as ACCOUNT
from account_service.settings import AccountSettings
from deploy.local import keys
from evidence_log.witness import make_router as witness_router
from logistics_gateway.app import SERVICE as GATEWAY
from order_service.app import SERVICE as ORDER
from privacy_service.app import SERVICE as PRIVACY
from servicekit.core.clock import Clock
from servicekit.core.health import Health
from servicekit.core.policy import Policy
from servicekit.core.settings import Settings
from servicekit.http.app import make_app
from tests.support.accounts import PASSWORD, dsns, settings
from tests.support.accounts import Shop as AccountShop
from tests.support.accounts import shop as account_shop
from tests.support.asgi import AsgiClient
from tests.support.infra import postgres_server
from tests.support.orders import Shop as OrderShop
from tests.support.orders import a_purchase, order_dsns, order_keys
from tests.support.orders import shop as order_shop
from tests.support.rights import Shop as RightsShop
from tests.support.rights import approve, open_erasure
from tests.support.rights import shop as rights_shop
from vault_service.callers import Callers
from vault_service.epochs.http import make_router as epochs_router
from vault_service.http import make_router as vault_router
from vault_service.key_expiry_http import make_router as aging_router
from vault_service.revocations.http import make_router as revocations_router
from vault_service.settings import VaultSettings

__all__ = [
    "account_shop", "dsns", "order_dsns", "order_keys", "order_shop", "postgres_server", "rights_shop", "settings",
]  # fmt: skip
POLICY: Final = Path(__file__).parents[2] / "shared" / "policy" / "policy.yaml"


class Asks(Enum):
    """What a route asks for."""

    NOTHING = "takes no id, and says or does the same for everybody"
    KEY = "makes something new: its id is the server's own, whatever Idempotency-Key comes"
    PERSON = "a person's token, and acts for that person alone"
    STAFF = "the token of a member of staff with the role"
    SECRET = "a random secret, of which only a hash is kept"
    SERVICE = "a service's signature, and a grant of the policy"


ROUTES: Final[dict[str, dict[str, Asks]]] = {
    "account": {
        "POST /v1/accounts": Asks.KEY,
        "POST /v1/accounts/{registration_id}/confirmation": Asks.SECRET,
        "POST /v1/sign-in": Asks.NOTHING,
        "POST /v1/guests": Asks.KEY,
        "GET /v1/accounts/me": Asks.PERSON,
        "PATCH /v1/accounts/me": Asks.PERSON,
        "GET /v1/accounts/me/notices": Asks.PERSON,
        "POST /v1/accounts/me/addresses": Asks.PERSON,
        "GET /v1/accounts/me/addresses": Asks.PERSON,
        "GET /v1/accounts/me/addresses/{address_id}": Asks.PERSON,
        "PUT /v1/accounts/me/addresses/{address_id}": Asks.PERSON,
        "DELETE /v1/accounts/me/addresses/{address_id}": Asks.PERSON,
        "POST /v1/accounts/me/favourites": Asks.PERSON,
        "GET /v1/accounts/me/favourites": Asks.PERSON,
        "DELETE /v1/accounts/me/favourites/{favourite_id}": Asks.PERSON,
        "POST /v1/browsing-events": Asks.PERSON,
        "GET /v1/accounts/me/browsing": Asks.PERSON,
    },
    "order": {
        "POST /v1/orders": Asks.PERSON,
        "POST /v1/quotes": Asks.PERSON,
        "GET /v1/orders": Asks.PERSON,
        "GET /v1/orders/{order_id}": Asks.PERSON,
        "GET /v1/orders/{order_id}/confirmation": Asks.PERSON,
        "POST /v1/orders/{order_id}/cancel": Asks.PERSON,
        "PUT /v1/orders/{order_id}/consignee": Asks.PERSON,
        "GET /v1/orders/{order_id}/tracking": Asks.PERSON,
        "GET /v1/tax-records/{order_id}": Asks.STAFF,
        "POST /v1/orders/find": Asks.STAFF,
        "POST /v1/orders/{order_id}/close": Asks.STAFF,
    },
    "logistics-gateway": {"GET /v1/shipments": Asks.STAFF, "GET /v1/shipments/{shipment_id}": Asks.STAFF},
    "privacy": {
        "POST /v1/find": Asks.STAFF,
        "GET /v1/subjects/{subject_id}/inventory": Asks.STAFF,
        "GET /v1/policy": Asks.NOTHING,
        "GET /policy": Asks.NOTHING,
        "POST /v1/subjects/{subject_id}/probes": Asks.STAFF,
        "GET /v1/probes/{request_id}": Asks.STAFF,
        "GET /v1/requests/{request_id}/certificate": Asks.STAFF,
        "GET /v1/evidence/checkpoint": Asks.NOTHING,
        "GET /v1/evidence/consistency": Asks.NOTHING,
        "GET /v1/evidence/leaves": Asks.STAFF,
        "POST /v1/requests": Asks.STAFF,
        "GET /v1/requests": Asks.STAFF,
        "GET /v1/requests/{request_id}": Asks.STAFF,
        "GET /v1/requests/{request_id}/preview": Asks.STAFF,
        "POST /v1/requests/{request_id}/identity": Asks.STAFF,
        "POST /v1/requests/{request_id}/approve": Asks.STAFF,
        "POST /v1/requests/{request_id}/deny": Asks.STAFF,
        "POST /v1/requests/{request_id}/extend": Asks.STAFF,
        "POST /v1/requests/{request_id}/cancel": Asks.STAFF,
        "POST /v1/me/requests": Asks.PERSON,
        "GET /v1/me/requests": Asks.PERSON,
        "GET /v1/me/requests/{request_id}": Asks.PERSON,
        "GET /v1/me/requests/{request_id}/preview": Asks.PERSON,
        "GET /v1/me/requests/{request_id}/certificate": Asks.PERSON,
        "POST /v1/me/requests/{request_id}/cancel": Asks.PERSON,
        "POST /v1/holds": Asks.STAFF,
        "DELETE /v1/holds/{hold_id}": Asks.STAFF,
        "POST /v1/requests/{request_id}/link": Asks.STAFF,
        "POST /v1/me/requests/{request_id}/link": Asks.PERSON,
        "GET /v1/exports/{token}": Asks.SECRET,
        "POST /v1/retention/runs": Asks.STAFF,
        "GET /v1/retention/runs/{run_id}": Asks.STAFF,
        "GET /v1/kek": Asks.STAFF,
        "POST /v1/kek/rotations": Asks.STAFF,
    },
    "vault": {
        "POST /v1/keys/ensure": Asks.SERVICE,
        "POST /v1/keys/lease": Asks.SERVICE,
        "GET /v1/index-keys": Asks.SERVICE,
        "POST /v1/directory/find": Asks.SERVICE,
        "GET /v1/kek": Asks.SERVICE,
        "POST /v1/kek/rotations": Asks.SERVICE,
        "GET /v1/keys": Asks.SERVICE,
        "POST /v1/revocations": Asks.SERVICE,
        "POST /v1/revocations/destroy": Asks.SERVICE,
        "GET /v1/revocations": Asks.SERVICE,
        "DELETE /v1/holders/{holder}": Asks.SERVICE,
        "GET /v1/drained": Asks.SERVICE,
    },
    "witness": {"POST /add-checkpoint": Asks.NOTHING},
}
# Good bodies, so that an id is what a route refuses, and not a body.
_ADDRESS = {"name": "Eve", "lines": ["1 Lane"], "city": "York", "postal_code": "YO1 7HH", "country": "GB"}
BODIES: Final[dict[str, Any]] = {
    "POST /v1/accounts/{registration_id}/confirmation": {"code": "0000-0000", "password": PASSWORD},
    "PUT /v1/accounts/me/addresses/{address_id}": _ADDRESS,
    "PUT /v1/orders/{order_id}/consignee": {**_ADDRESS, "phone": "+441904123456"},
    "POST /v1/requests/{request_id}/identity": {"check": "document"},
    "POST /v1/requests/{request_id}/deny": {"reason": "other"},
    "POST /v1/requests/{request_id}/extend": {"reason": "complexity"},
    "POST /v1/find": {"by": "email", "term": "eve@example.org"},
}
# What makes something, and where the answer says which id it got.
MAKES: Final[dict[str, tuple[Any, str]]] = {
    "POST /v1/accounts/me/addresses": (_ADDRESS, "address_id"),
    "POST /v1/accounts/me/favourites": ({"sku": "LAMP-7"}, "favourite_id"),
    "POST /v1/orders": (a_purchase(), "order_id"),
    "POST /v1/me/requests": ({"kind": "access"}, "request_id"),
}


def routes_of(*routers: APIRouter) -> set[str]:
    app = FastAPI(openapi_url=None)
    for router in routers:
        app.include_router(router)
    document = FastAPI.openapi(app)
    return {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}


class Apart:
    """The routers of all services, without anything behind them."""

    def __init__(self, folder: Path) -> None:
        keys.write_keys(folder, ["account", "vault"], [])
        self.keys, self.clock = folder, Clock()
        own = AccountSettings(customer_key_file=folder / "customer.pem")
        policy = Policy.load([POLICY])
        kit: Any = SimpleNamespace(
            settings=own, clock=self.clock, policy=policy, db=None, vault=None, limits=None, name=""
        )
        nobody: Any = SimpleNamespace(policy=policy, db=None, clock=self.clock, listed=asyncio.Event())
        self.routers = {
            service.name: [service.router(kit)] for service in (ACCOUNT, ORDER, GATEWAY, PRIVACY) if service.router
        }
        self.routers["vault"] = [
            vault_router(nobody),
            revocations_router(nobody, VaultSettings()),
            epochs_router(nobody, VaultSettings()),
            aging_router(nobody),
        ]
        self.routers["witness"] = [witness_router(nobody)]

    def client(self, service: str) -> AsgiClient:
        settings = Settings(
            customer_public_key_file=self.keys / "customer.pub.pem", staff_public_key_file=self.keys / "staff.pub.pem"
        )
        app = make_app(settings, self.clock, Health(service, "api", "0", self.clock), self.routers[service])
        app.state.callers = Callers(self.keys / "service_keys", self.clock)
        return AsgiClient(app)


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Apart:
    return Apart(tmp_path_factory.mktemp("apart") / "keys")


def test_it_is_known_of_every_route_what_it_asks_for(apart: Apart) -> None:
    found = {service: routes_of(*routers) for service, routers in apart.routers.items()}
    assert found == {service: set(routes) for service, routes in ROUTES.items()}
    named = [
        route for routes in ROUTES.values() for route, asks in routes.items() if "{" in route and asks is Asks.NOTHING
    ]
    assert named == []


@pytest.mark.attack("ask gateway and vault with an id and a customer's token", expected="401")
@pytest.mark.parametrize("service", ["logistics-gateway", "vault"])
def test_gateway_and_vault_ask_who_it_is_before_they_look(apart: Apart, service: str) -> None:
    client = apart.client(service)
    stranger = {"Authorization": f"Bearer {keys.customer_token(apart.keys, uuid4())}"}
    for route in ROUTES[service]:
        method, template = route.split(" ")
        path = re.sub(r"\{\w+\}", str(uuid4()), template)
        answers = [client.request(method, path, headers=headers, json={}) for headers in ({}, stranger)]
        assert [answer.status_code for answer in answers] == [401, 401], route


UUIDS: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


async def told(db: Any, *queries: str) -> set[str]:
    """All ids that stand in what these queries give."""
    rows = [row for query in queries for row in await db.fetch(query)]
    return {found for row in rows for value in row.values() for found in UUIDS.findall(str(value))}


EVENTS: Final = "SELECT headers::text, convert_from(body, 'UTF8'), key FROM kit.outbox"


@pytest.fixture
async def ids(account_shop: AccountShop, order_shop: OrderShop, rights_shop: RightsShop) -> set[str]:
    """What can be read of a customer, a gift's consignee and an erased person in events, the evidence log and a certificate."""
    victim, headers = await account_shop.member()
    for path, (body, _) in list(MAKES.items())[:2]:
        assert (await account_shop.http.post(path.partition(" ")[2], headers=headers, json=body)).status_code == 201
    await order_shop.buyer().placed(gift=True)
    subject = uuid4()
    rights_shop.holds(subject, "account", "contact", subject)
    async with rights_shop.client() as client:
        request_id = await open_erasure(rights_shop, client, subject, victim)
        await rights_shop.settle()
        await approve(rights_shop, client, request_id)
        await rights_shop.settle()
    found = await told(account_shop.kit.db, EVENTS) | await told(order_shop.kit.db, EVENTS)
    log = ("SELECT body FROM evidence_leaves", "SELECT convert_from(body, 'UTF8') FROM certificates")
    found |= await told(rights_shop.kit.db, EVENTS, *log)
    assert {str(victim), str(subject), request_id} <= found
    return found


def calls(service: str, ids: set[str]) -> Iterator[tuple[str, str, str, Any]]:
    """Route, method, path and body, with each id in each place of a path."""
    for route, asks in ROUTES[service].items():
        if asks not in (Asks.PERSON, Asks.STAFF, Asks.SECRET) or route in MAKES:
            continue
        method, template = route.split(" ")
        paths = {re.sub(r"\{\w+\}", each, template) for each in ids} if "{" in template else {template}
        for path in paths:
            yield route, method, path, BODIES.get(route)


@pytest.mark.attack(
    "try ids from events, the evidence log and a certificate on every route", expected="401, 403 or 404"
)
@pytest.mark.fault(39, "ids from another service's events, the evidence log and a certificate, on every route")
async def test_ids_that_are_read_somewhere_give_nothing(
    ids: set[str], account_shop: AccountShop, order_shop: OrderShop, rights_shop: RightsShop
) -> None:
    _, eve = await account_shop.member()
    guest = order_shop.buyer().headers
    before = await told(account_shop.kit.db, EVENTS)
    async with rights_shop.client() as privacy:
        apps: list[tuple[str, httpx.AsyncClient, dict[str, str]]] = [
            ("account", account_shop.http, eve),
            ("order", order_shop.http, guest),
            ("privacy", privacy, rights_shop.customer(uuid4())),
        ]
        for service, http, stranger in apps:
            for route, method, path, body in calls(service, ids):
                asks = ROUTES[service][route]
                without = await http.request(method, path, json=body)
                assert without.status_code in ((401, 404, 422) if asks is Asks.SECRET else (401,)), route
                if "{" in route or asks is Asks.STAFF:
                    # A person's token is no token of staff; and another person's things are not there.
                    answer = await http.request(method, path, json=body, headers=stranger)
                    assert answer.status_code in (401, 403, 404, 422), (route, answer.status_code)
                    assert answer.status_code != 422 or asks is Asks.SECRET, (route, answer.text)
    assert await told(account_shop.kit.db, EVENTS) == before


@pytest.mark.attack("send ids from events, the log and a certificate as Idempotency-Key", expected="422, or another id")
@pytest.mark.fault(39, "ids from events, the evidence log and a certificate as Idempotency-Key")
async def test_no_id_becomes_the_name_of_something_new(
    ids: set[str], account_shop: AccountShop, order_shop: OrderShop, rights_shop: RightsShop
) -> None:
    eve, me = await account_shop.member()
    buyer, stranger = order_shop.buyer(), uuid4()
    async with rights_shop.client() as privacy:
        clients = {"account": (account_shop.http, me), "order": (order_shop.http, buyer.headers)}
        clients["privacy"] = (privacy, rights_shop.customer(stranger))
        for route, (body, field) in MAKES.items():
            service = next(name for name, routes in ROUTES.items() if route in routes)
            http, headers = clients[service]
            for each in sorted(ids):
                known = {**headers, "Idempotency-Key": each}
                answer = await http.post(route.partition(" ")[2], json=body, headers=known)
                if UUID(each).version not in (4, 7):
                    assert answer.status_code == 422, route
                else:
                    assert answer.status_code in (201, 409, 429), (route, answer.text)
                    assert answer.status_code != 201 or answer.json()[field] not in ids, route
        for each in sorted(ids):
            email = f"eve.{uuid4().hex[:12]}@example.org"
            answer = await account_shop.http.post(
                "/v1/guests", json={"email": email}, headers={"Idempotency-Key": each}
            )
            assert answer.status_code in (201, 422)
            assert answer.status_code == 422 or answer.json()["subject_id"] not in ids
    events = await account_shop.kit.db.fetch(EVENTS)
    new = [json.loads(row[1]) for row in events if str(eve) in row[1]]
    assert all(event["subject_id"] == str(eve) for event in new)


@pytest.mark.attack("staff ask about an id from an event that is nobody's", expected="422 no_match, and no request")
@pytest.mark.fault(39, "an order's id or any other UUID as the subject of a request or a hold")
async def test_nothing_is_opened_about_an_id_that_no_event_names_as_a_person(rights_shop: RightsShop) -> None:
    known, order = uuid4(), uuid4()
    await rights_shop.knows(known)
    async with rights_shop.client() as client:
        for kind in ("access", "portability", "erasure", "rectification"):
            for subjects in ([order], [known, order]):
                body: dict[str, Any] = {"kind": kind, "subject_ids": [str(each) for each in subjects]}
                if kind == "rectification":
                    body |= {"subject_ids": [str(order)], "rectification": {"identity": {"name": "Eve"}}}
                refused = await client.post("/v1/requests", json=body, headers=rights_shop.staff())
                assert refused.status_code == 422
                assert refused.json()["type"] == "/problems/no_match"
        hold = {"subject_id": str(order), "data_class": "contact", "basis": "dispute"}
        assert (await client.post("/v1/holds", json=hold, headers=rights_shop.staff())).status_code == 422
        # Our own command about somebody makes nobody known.
        await rights_shop.sql("UPDATE inventory SET system = 'privacy'")
        body = {"kind": "access", "subject_ids": [str(known)]}
        assert (await client.post("/v1/requests", json=body, headers=rights_shop.staff())).status_code == 422
        # A person is known to themselves.
        own = await client.post("/v1/me/requests", json={"kind": "access"}, headers=rights_shop.customer(known))
        assert (own.status_code, own.json()["subject_ids"]) == (201, [str(known)])
    assert await rights_shop.kit.db.fetchval("SELECT count(*) FROM rights_requests") == 1
    vault: Any = rights_shop.kit.vault
    assert vault.keys == {}
