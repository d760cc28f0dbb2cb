"""`privacyctl order`: what it asks of which service, what it shows, and how it ends. The services are played here."""

import json
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest
from typer.testing import CliRunner, Result

from privacyctl.client import Client
from privacyctl.commands import app

ORDER, NUMBER, SINCE = str(uuid4()), "7ZK3M-0Q9XA", "2026-11-23T14:46:48+00:00"
BLOCKED = {"order_id": ORDER, "state": "blocked", "reason": "no_lane", "blocked_since": SINCE, "progress": None}
SILENT = {"order_id": ORDER, "state": "sent", "reason": None, "blocked_since": None, "progress": "in_transit"}
STUCK = {"order_id": ORDER, "status": "confirmed", "status_at": SINCE, "placed_at": SINCE, "blocked": "no_lane"}
Call = Callable[..., Result]


class Services:
    """Answers one after the other with what a test has put down; keeps what was asked."""

    def __init__(self) -> None:
        self.answers: list[httpx.Response] = []
        self.asked: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        return self.answers.pop(0)


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> Services:
    played, real = Services(), Client.from_environment.__func__  # type: ignore[attr-defined]
    for name in ("PRIVACY", "ORDER", "GATEWAY"):
        monkeypatch.setenv(f"{name}_URL", f"http://{name.lower()}.test")
    monkeypatch.setenv("PRIVACY_TOKEN", "token")

    def from_environment(cls: type[Client], service: str = "privacy") -> Client:
        made: Client = real(cls, service)
        return Client(made.url, made.token, httpx.MockTransport(played), made.service)

    monkeypatch.setattr(Client, "from_environment", classmethod(from_environment))
    return played


def call(*arguments: str, typed: str = "") -> Result:
    return CliRunner().invoke(app, ["order", *arguments], input=typed)


@pytest.mark.parametrize(
    ("option", "state", "item", "said"),
    [((), "blocked", BLOCKED, "no_lane"), (("--silent",), "silent", SILENT | {"progress_at": SINCE}, "in_transit")],
)
def test_stuck_shipments_are_listed_from_the_gateway_on_all_pages(
    services: Services, option: tuple[str, ...], state: str, item: dict[str, Any], said: str
) -> None:
    services.answers = [httpx.Response(200, json={"items": [item], "next": cursor}) for cursor in ("page2", None)]
    shown = call("stuck", *option)
    assert shown.exit_code == 0, shown.output
    assert [request.url.host for request in services.asked] == ["gateway.test"] * 2
    assert [request.url.params["state"] for request in services.asked] == [state] * 2
    assert services.asked[1].url.params["cursor"] == "page2"
    assert [shown.stdout.count(part) for part in (ORDER, said, "2026-11-23 14:46")] == [2, 2, 2]


def test_nothing_stuck_is_exit_code_1(services: Services) -> None:
    services.answers = [httpx.Response(200, json={"items": [], "next": None})]
    shown = call("stuck", "--json")
    assert (shown.exit_code, json.loads(shown.stdout)) == (1, {"items": []})


def test_an_order_is_found_by_the_number_that_is_piped_in(services: Services) -> None:
    services.answers = [httpx.Response(200, json=[STUCK]), httpx.Response(200, json=[])]
    found = call("find", "--json", typed=f"{NUMBER}\n")
    assert (found.exit_code, json.loads(found.stdout)) == (0, {"items": [STUCK]})
    (asked,) = services.asked
    assert (str(asked.url), json.loads(asked.content)) == (
        "http://order.test/v1/orders/find",
        {"order_number": NUMBER},
    )
    assert call("find", typed=NUMBER).exit_code == 1
    assert call("find", NUMBER).exit_code == 2
    assert len(services.asked) == 2


def test_an_order_is_closed_with_what_became_of_it(services: Services) -> None:
    refusal = {"detail": "The order has ended otherwise.", "status": 409}
    services.answers = [
        httpx.Response(200, json=STUCK | {"status": "lost"}),
        httpx.Response(409, json=refusal),
        httpx.Response(404, json={}),
    ]
    closed = call("close", ORDER, "lost")
    assert (closed.exit_code, "lost" in closed.stdout) == (0, True)
    (asked,) = services.asked
    assert (asked.method, asked.url.path) == ("POST", f"/v1/orders/{ORDER}/close")
    assert json.loads(asked.content) == {"reason": "lost"}
    again = call("close", ORDER, "delivered")
    assert (again.exit_code, again.stderr.strip()) == (6, "The order has ended otherwise.")
    assert call("close", ORDER, "lost").exit_code == 1
    assert call("close", ORDER, "because jane@example.org said so").exit_code == 2
    assert len(services.asked) == 3


def test_the_variable_that_lacks_is_named(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GATEWAY_URL")
    unset = call("stuck")
    assert (unset.exit_code, "GATEWAY_URL" in unset.stderr) == (2, True)
