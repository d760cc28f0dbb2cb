"""Ids of new resources: who sees one can make nothing with it, and the same caller finds the same resource again."""

from pathlib import Path
from typing import Annotated, Any
from uuid import UUID, uuid1, uuid4, uuid5

import pytest
from fastapi import APIRouter, Depends

from deploy.local import keys
from servicekit.core.clock import Clock
from servicekit.core.errors import Misconfigured
from servicekit.core.health import Health
from servicekit.core.settings import Settings
from servicekit.http.app import make_app
from servicekit.http.auth import customer, staff
from servicekit.http.ids import Ids, caller_of, new_id
from tests.support.asgi import AsgiClient

ME, OTHER = uuid4(), uuid4()
KEY = str(uuid4())


def make_router() -> APIRouter:
    router = APIRouter(prefix="/v1")
    buyer, desk = customer(), staff("support")

    @router.post("/things")
    async def thing(new: Annotated[UUID, Depends(new_id(buyer))]) -> UUID:
        return new

    @router.post("/others")
    async def other(new: Annotated[UUID, Depends(new_id(buyer))]) -> UUID:
        return new

    @router.post("/desk")
    async def at_desk(new: Annotated[UUID, Depends(new_id(desk))]) -> UUID:
        return new

    @router.post("/open")
    async def at_door(new: Annotated[UUID, Depends(new_id())]) -> UUID:
        return new

    @router.post("/open/{place}")
    async def at_place(place: str, new: Annotated[UUID, Depends(new_id())]) -> UUID:
        return new

    return router


class Services:
    """Two services with keys of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        keys.write_keys(folder, ["order", "account"], [])

    def client(self, service: str, **changes: Any) -> AsgiClient:
        given: dict[str, Any] = {
            "customer_public_key_file": self.folder / "customer.pub.pem",
            "staff_public_key_file": self.folder / "staff.pub.pem",
            "id_key_file": keys.id_key_file(self.folder, service),
        }
        clock = Clock()
        settings = Settings(**{**given, **changes})
        return AsgiClient(make_app(settings, clock, Health(service, "api", "1", clock), [make_router()]))

    def customer(self, subject: UUID = ME, scope: str = "customer") -> dict[str, str]:
        return {"Authorization": f"Bearer {keys.customer_token(self.folder, subject, scope)}"}

    def staff(self, subject: UUID = ME) -> dict[str, str]:
        return {"Authorization": f"Bearer {keys.staff_token(self.folder, 'support', subject)}"}


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Services:
    return Services(tmp_path_factory.mktemp("ids") / "keys")


def made(client: AsgiClient, path: str, key: str | None = KEY, **headers: str) -> UUID:
    chosen = {} if key is None else {"Idempotency-Key": key}
    answer = client.post(path, headers=chosen | headers)
    assert answer.status_code == 200, answer.text
    return UUID(answer.json())


def test_a_retry_finds_the_same_id_and_nobody_else_does(services: Services) -> None:
    order, account = services.client("order"), services.client("account")
    mine = made(order, "/v1/things", **services.customer())
    assert mine == made(services.client("order"), "/v1/things", KEY.upper(), **services.customer())
    others = [
        made(order, "/v1/things", **services.customer(OTHER)),
        made(order, "/v1/others", **services.customer()),
        made(account, "/v1/things", **services.customer()),
        made(order, "/v1/desk", **services.staff()),
        made(order, "/v1/open"),
        made(order, "/v1/things", str(uuid4()), **services.customer()),
    ]
    assert len({mine, *others}) == 7


@pytest.mark.attack("send somebody's id as Idempotency-Key", expected="422, or another id: the server makes every id")
def test_no_caller_chooses_an_id(services: Services) -> None:
    client = services.client("order")
    victim = made(client, "/v1/open")
    assert client.post("/v1/open", headers={"Idempotency-Key": str(victim)}).status_code == 422
    older = uuid4()  # an id as callers chose them before
    assert made(client, "/v1/open", str(older)) != older


def test_a_key_must_be_random_and_without_one_each_id_is_fresh(services: Services) -> None:
    client = services.client("order")
    for refused in (str(uuid1()), str(uuid5(ME, "jane")), str(UUID(int=0)), "jane.canary@example.org"):
        answer = client.post("/v1/open", headers={"Idempotency-Key": refused})
        assert (answer.status_code, refused in answer.text) == (422, False)
    assert made(client, "/v1/open", None) != made(client, "/v1/open", None)


def test_the_route_counts_by_its_template(services: Services) -> None:
    client = services.client("order")
    assert made(client, "/v1/open/a") == made(client, "/v1/open/b") != made(client, "/v1/open")


def test_a_caller_signs_in_before_the_key_is_read(services: Services) -> None:
    assert services.client("order").post("/v1/things", headers={"Idempotency-Key": "x"}).status_code == 401


def test_a_guest_and_a_customer_of_one_subject_are_one_caller(services: Services) -> None:
    client = services.client("order")
    guest = made(client, "/v1/things", **services.customer(scope="guest"))
    assert guest == made(client, "/v1/things", **services.customer())


def test_without_a_key_no_id_is_made(services: Services, tmp_path: Path) -> None:
    assert services.client("order", id_key_file=None).post("/v1/open").status_code == 503
    short = tmp_path / "short.key"
    for content in ("ab" * 31, "not hex", ""):
        short.write_text(content)
        with pytest.raises(Misconfigured):
            Ids.of("order", Settings(id_key_file=short))


def test_ids_have_the_form_of_a_uuid_of_version_8() -> None:
    for number in range(100):
        made = Ids("order", b"k" * 32).make("/v1/things", caller_of(None), UUID(int=number))
        assert (str(made)[14], str(made)[19] in "89ab") == ("8", True)
