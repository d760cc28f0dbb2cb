"""`privacyctl` and rights requests: what it asks the service, what it shows, and how it ends. The service is played here."""

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from typer.testing import CliRunner, Result

from privacyctl import requests as cli_requests
from privacyctl.client import Client
from privacyctl.commands import app

REQUEST, SUBJECT, ANCHOR = uuid4(), uuid4(), uuid4()
KEY = uuid4()
SINCE, NEXT = "2026-11-23T14:46:48+00:00", "2026-11-23T14:46:58+00:00"
Call = Callable[..., Result]


def problem(status: int, detail: str = "", **more: Any) -> httpx.Response:
    return httpx.Response(status, json={"type": "/problems/x", "status": status, "detail": detail, **more})


def state(status: str, step: str = "erase", **more: Any) -> dict[str, Any]:
    steps = [{"subject_id": str(SUBJECT), "step": step, "since": SINCE, "waiting_for": more.pop("silent", [])}]
    base = {"request_id": str(REQUEST), "kind": "erasure", "status": status, "reason": None, "due_at": SINCE}
    return {
        **base,
        "subject_ids": [str(SUBJECT)],
        "steps": steps,
        "holds": [],
        "outstanding": [],
        "history": [],
        **more,
    }


class Service:
    """Answers with what a test has put down for a route, one after the other, the last one for ever; keeps what was asked."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], list[httpx.Response]] = {}
        self.asked: list[httpx.Request] = []

    def on(self, route: str, *answers: httpx.Response | dict[str, Any]) -> None:
        method, _, path = route.partition(" ")
        made = [each if isinstance(each, httpx.Response) else httpx.Response(200, json=each) for each in answers]
        self.answers[method, path] = made

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        left = self.answers.get((request.method, request.url.path))
        if not left:
            return problem(404, "There is no such resource for you. Check its id.")
        given = left.pop(0) if len(left) > 1 else left[0]
        return httpx.Response(given.status_code, headers=given.headers, content=given.content)

    def body(self, place: int = -1) -> Any:
        return json.loads(self.asked[place].content)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    played = Service()
    client = Client("http://privacy.test", "token", httpx.MockTransport(played))
    monkeypatch.setattr(Client, "from_environment", classmethod(lambda cls: client))
    monkeypatch.setattr(cli_requests, "FOLLOW_PAUSE", 0)
    return played


@pytest.fixture
def call() -> Call:
    def run(*arguments: object, typed: str = "") -> Result:
        return CliRunner().invoke(app, list(map(str, arguments)), input=typed)

    return run


def test_an_erasure_of_two_classes_is_opened_under_one_id_however_often(service: Service, call: Call) -> None:
    service.on("POST /v1/requests", httpx.Response(201, json=state("awaiting_approval")))
    arguments = ("open", "erasure", SUBJECT, "--class", "contact", "--class", "behaviour", "--check", "callback")
    opened = call(*arguments, "--key", KEY)
    assert (opened.exit_code, opened.stdout.strip()) == (0, str(REQUEST))
    assert service.asked[0].headers["idempotency-key"] == str(KEY)
    assert service.asked[0].headers["authorization"] == "Bearer token"
    assert service.body() == {
        "kind": "erasure",
        "subject_ids": [str(SUBJECT)],
        "data_classes": ["contact", "behaviour"],
        "identity_check": "callback",
    }
    call(*arguments)
    assert UUID(service.asked[1].headers["idempotency-key"]) != KEY


def test_corrections_come_from_the_pipe_and_never_from_arguments(service: Service, call: Call) -> None:
    service.on("POST /v1/requests", httpx.Response(201, json=state("running")))
    corrections = {"identity": {"name": "Ann Canary"}}
    opened = call("open", "rectification", SUBJECT, typed=json.dumps(corrections))
    assert opened.exit_code == 0, opened.output
    assert service.body()["rectification"] == corrections
    assert "Ann" not in opened.output
    for nothing in ("", "not json: Ann Canary", "[]", "{}"):
        refused = call("open", "rectification", SUBJECT, typed=nothing)
        assert refused.exit_code == 2
        assert "Canary" not in refused.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("open", "deletion", SUBJECT),
        ("open", "erasure", "jane@example.org"),
        ("deny", REQUEST, "because jane@example.org said so"),
        ("identity", REQUEST, "jane@example.org"),
        ("hold", "add", SUBJECT, "contact", "--basis", "litigation", "--until", "jane@example.org"),
        ("show", "jane@example.org"),
    ],
)
def test_a_wrong_word_is_refused_and_not_repeated(service: Service, call: Call, arguments: tuple[object, ...]) -> None:
    refused = call(*arguments)
    assert refused.exit_code == 2
    assert "jane" not in refused.output
    assert not service.asked


def test_a_preview_shows_what_goes_and_what_stays_and_says_when_it_is_not_all(service: Service, call: Call) -> None:
    goes = [{"system": "account", "data_class": "contact", "anchor_count": 2, "row_count": 3}]
    stays = [
        {
            "system": "order", "data_class": "order_record", "anchor": str(ANCHOR), "row_count": 1,
            "why": "legal_obligation", "until": "2036-11-23T00:00:00+00:00",
        },
    ]  # fmt: skip
    waiting = [{"system": "reviews", "since": SINCE, "next_try_at": NEXT}]
    path = f"GET /v1/requests/{REQUEST}/preview"
    service.on(
        path,
        {"complete": False, "waiting_for": waiting, "goes": goes, "stays": stays},
        {"complete": True, "waiting_for": [], "goes": goes, "stays": stays},
    )
    first = call("preview", REQUEST)
    assert first.exit_code == 5
    assert "reviews" in first.stderr
    whole = call("preview", REQUEST)
    assert whole.exit_code == 0
    for text in ("account", "contact", "legal obligation", "2036-11-23", str(ANCHOR)):
        assert text in whole.stdout
    assert json.loads(call("preview", REQUEST, "--json").stdout)["stays"] == stays


def test_decisions_are_posted_and_their_refusals_have_exit_codes(service: Service, call: Call) -> None:
    for decision in ("approve", "cancel"):
        service.on(f"POST /v1/requests/{REQUEST}/{decision}", state("waiting"))
        assert call(decision, REQUEST).exit_code == 0
        assert service.asked[-1].content == b""
    service.on(f"POST /v1/requests/{REQUEST}/deny", state("denied"))
    assert call("deny", REQUEST, "no_match").exit_code == 0
    assert service.body() == {"reason": "no_match"}
    service.on(f"POST /v1/requests/{REQUEST}/extend", state("running"))
    assert call("extend", REQUEST, "complexity").exit_code == 0
    assert service.body() == {"reason": "complexity"}
    assert call("extend", REQUEST, "complexity", "--until", "2027-01-31").exit_code == 0
    assert service.body() == {"reason": "complexity", "until": "2027-01-31T00:00:00+00:00"}
    service.on(f"POST /v1/requests/{REQUEST}/identity", state("awaiting_approval"))
    assert call("identity", REQUEST, "document").exit_code == 0
    assert service.body() == {"check": "document"}

    approve = f"POST /v1/requests/{REQUEST}/approve"
    for answer, exit_code, said in (
        (problem(403, "Approved by another person."), 3, "another person"),
        (problem(404), 1, "no such request"),
        (problem(409, "The request is waiting."), 6, "is waiting"),
        (problem(422, errors=[{"at": "body", "code": "missing"}]), 2, " body: missing."),
        (problem(422, errors=[{"at": "until", "code": "x", "expected": "Send a date."}]), 2, " until: Send a date."),
        (problem(422, "Name a class of the policy."), 2, "a class of the policy"),
        (problem(503), 4, "503"),
        (httpx.Response(200, text="<html>"), 4, "does not know"),
    ):
        service.on(approve, answer)
        refused = call("approve", REQUEST)
        assert (refused.exit_code, said in refused.stderr) == (exit_code, True), (answer, refused.output)


def test_following_says_each_step_once_names_the_silent_and_ends_with_the_request(service: Service, call: Call) -> None:
    silent = [{"system": "reviews", "since": SINCE, "next_try_at": NEXT}]
    service.on(
        f"GET /v1/requests/{REQUEST}",
        state("awaiting_approval", "approve"),
        state("running", "erase", silent=silent),
        state("running", "erase", silent=silent),
        state("running", "drain"),
        state("completed", "done"),
    )
    followed = call("follow", REQUEST)
    assert followed.exit_code == 0, followed.output
    lines = followed.stdout.splitlines()
    assert lines == [
        "awaiting approval",
        "  approve",
        "running",
        "  erase",
        "    waiting for reviews since 14:46:48, asked again at 14:46:58",
        "  drain",
        "completed",
        "  done",
    ]


def test_following_gives_up_with_the_names_of_the_silent(service: Service, call: Call) -> None:
    silent = [{"system": "reviews", "since": SINCE, "next_try_at": NEXT}]
    path = f"GET /v1/requests/{REQUEST}"
    service.on(path, state("running", "erase", silent=silent))
    given_up = call("follow", REQUEST, "--patience", "0", "--json")
    assert given_up.exit_code == 5
    assert "reviews" in given_up.stderr
    assert json.loads(given_up.stdout)["status"] == "running"
    service.on(path, state("cancelled", "wait", reason="cancelled"))
    assert call("follow", REQUEST).exit_code == 6
    service.on(path, state("running", "ready"))
    ready = call("follow", REQUEST)
    assert (ready.exit_code, "download" in ready.stderr) == (0, True)


def test_a_correction_that_does_not_fit_is_shown_with_what_to_send(service: Service, call: Call) -> None:
    refused = {"at": SINCE, "what": "refused", "by_role": "system", "subject_id": None}
    reasons = ("does_not_fit", "too_long.consignee.lines", "missing.consignee.email")
    history = [refused | {"reason": reason} for reason in reasons]
    service.on(f"GET /v1/requests/{REQUEST}", state("denied", "done", history=history))
    shown = call("show", REQUEST)
    assert shown.exit_code == 0, shown.output
    assert "too_long.consignee.lines: send a shorter spelling" in shown.stdout
    assert "missing.consignee.email: send this field too" in shown.stdout
    assert "refused does_not_fit " in shown.stdout


def test_a_state_is_shown_with_holds_and_history(service: Service, call: Call) -> None:
    holds = [
        {"subject_id": str(SUBJECT), "data_class": "order_record", "anchor": str(ANCHOR), "basis": "legal_obligation",
         "until": None, "rows": 1},
    ]  # fmt: skip
    history = [{"at": SINCE, "what": "opened", "by_role": "support", "subject_id": None, "reason": None}]
    service.on(f"GET /v1/requests/{REQUEST}", state("completed", "held", holds=holds, history=history))
    shown = call("show", REQUEST)
    assert shown.exit_code == 0, shown.output
    for text in ("erasure: completed", str(ANCHOR), "legal obligation", "opened", "support"):
        assert text in shown.stdout


def test_requests_are_listed_page_by_page(service: Service, call: Call) -> None:
    item = {"request_id": str(REQUEST), "kind": "erasure", "status": "running", "due_at": SINCE}
    service.on("GET /v1/requests", {"items": [item], "next": "more"}, {"items": [item], "next": None})
    listed = call("list", "--status", "running", "--json")
    assert json.loads(listed.stdout)["items"] == [item, item]
    assert [dict(asked.url.params) for asked in service.asked] == [
        {"status": "running"},
        {"status": "running", "cursor": "more"},
    ]
    service.on("GET /v1/requests", {"items": [], "next": None})
    assert call("list").exit_code == 1


def test_a_download_goes_through_a_link_into_a_new_private_file(service: Service, call: Call, tmp_path: Path) -> None:
    file = tmp_path / "package.zip"
    service.on(
        f"POST /v1/requests/{REQUEST}/link",
        httpx.Response(201, json={"url_path": "/v1/exports/once", "expires_at": NEXT}),
    )
    service.on("GET /v1/exports/once", httpx.Response(200, content=b"PK" * 1000))
    assert call("download", REQUEST, file).exit_code == 0
    assert file.read_bytes() == b"PK" * 1000
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    asked = len(service.asked)
    assert call("download", REQUEST, file).exit_code == 2
    assert len(service.asked) == asked, "a file that cannot be written must not use the link up"
    service.on("GET /v1/exports/once", problem(404))
    assert call("download", REQUEST, tmp_path / "again.zip").exit_code == 1
    assert [path.name for path in tmp_path.iterdir()] == ["package.zip"]


def test_a_link_that_leads_elsewhere_is_not_followed(service: Service, call: Call, tmp_path: Path) -> None:
    for path in ("//elsewhere.example/v1/exports/x", "@elsewhere.example/", "https://elsewhere.example/"):
        service.on(f"POST /v1/requests/{REQUEST}/link", {"url_path": path, "expires_at": NEXT})
        assert call("download", REQUEST, tmp_path / "x.zip").exit_code == 4
    assert {asked.method for asked in service.asked} == {"POST"}


def test_a_certificate_on_its_way_is_waited_for_and_written_as_served(
    service: Service, call: Call, tmp_path: Path
) -> None:
    file = tmp_path / "certificate.json"
    document = b'{"any":"spelling",  "stays": 1}'
    path = f"GET /v1/requests/{REQUEST}/certificate"
    service.on(path, problem(404), httpx.Response(200, content=document))
    service.on(f"GET /v1/requests/{REQUEST}", state("completed", "done", certificate="pending"))
    assert call("certificate", REQUEST, "--out", file, "--amendment", "0").exit_code == 0
    assert file.read_bytes() == document
    assert service.asked[-1].url.params["amendment"] == "0"
    service.on(path, problem(404))
    service.on(f"GET /v1/requests/{REQUEST}", state("running", certificate=None))
    assert call("certificate", REQUEST).exit_code == 1


def test_holds_retention_and_keks(service: Service, call: Call) -> None:
    hold = uuid4()
    service.on("POST /v1/holds", httpx.Response(201, json={"hold_id": str(hold)}))
    added = call("hold", "add", SUBJECT, "contact", "--basis", "litigation", "--until", "2027-03-31", "--key", KEY)
    assert (added.exit_code, added.stdout.strip()) == (0, str(hold)), added.output
    assert service.asked[0].headers["idempotency-key"] == str(KEY)
    assert service.body() == {
        "subject_id": str(SUBJECT),
        "data_class": "contact",
        "anchor": None,
        "basis": "litigation",
        "until": "2027-03-31T00:00:00+00:00",
    }
    service.on(f"DELETE /v1/holds/{hold}", httpx.Response(204))
    assert call("hold", "lift", hold).exit_code == 0
    assert call("hold", "lift", uuid4()).exit_code == 1

    run = {"run_id": str(uuid4()), "items": [{"data_class": "payment", "found": 3}]}
    service.on("POST /v1/retention/runs", httpx.Response(202, json=run))
    service.on(f"GET /v1/retention/runs/{run['run_id']}", run)
    assert call("retention", "run", "--dry-run").stdout.strip() == run["run_id"]
    assert service.body() == {"dry_run": True}
    assert "payment" in call("retention", "show", run["run_id"]).stdout

    epoch = {"epoch": 2, "state": "active", "keys": 7, "opened_at": SINCE, "destroyed_at": None}
    epochs = {"provider": "file", "horizon": "2026-12-30", "strays": [], "epochs": [epoch]}
    service.on("GET /v1/kek", epochs)
    service.on("POST /v1/kek/rotations", epochs)
    assert "2026-12-30" in call("kek").stdout
    assert json.loads(call("rotate-kek", "--after", "1", "--json").stdout) == epochs
    assert dict(service.asked[-1].url.params) == {"after": "1"}


def test_verify_needs_pinned_keys_and_speaks_with_the_verifiers_exit_codes(call: Call, tmp_path: Path) -> None:
    program = tmp_path / "verifier.py"
    program.write_text("import sys; sys.exit({'changed': 1, 'broken': 2}.get(sys.argv[1], 0))")
    environment = {"PRIVACY_VERIFIER": str(program), "EVIDENCE_LOG_KEY_FILE": "log", "EVIDENCE_WITNESS_KEY_FILE": "w"}
    for certificate, exit_code in (("good", 0), ("changed", 7), ("broken", 2)):
        assert CliRunner().invoke(app, ["verify", certificate], env=environment).exit_code == exit_code
    unset = CliRunner().invoke(app, ["verify", "good"], env={**environment, "EVIDENCE_LOG_KEY_FILE": ""})
    assert (unset.exit_code, "--log-key" in unset.stderr) == (2, True)
