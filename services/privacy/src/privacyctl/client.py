"""Asks a service over HTTP; every failure has its exit code. Nothing here prints or keeps a search term."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final
from uuid import UUID

import httpx

from servicekit.http.tls import tls_of

TIMEOUT: Final = 20.0
PAGE: Final = 100
PROBE_PAUSE: Final = 0.1
_GOOD: Final = (httpx.codes.OK, httpx.codes.CREATED, httpx.codes.ACCEPTED, httpx.codes.NO_CONTENT)


class Exit(IntEnum):
    """Exit codes of `privacyctl`."""

    FOUND = 0
    NOTHING_FOUND = 1
    WRONG_CALL = 2
    REFUSED = 3
    AWAY = 4
    INCOMPLETE = 5
    CONFLICT = 6
    NOT_PROVEN = 7


class Failed(Exception):
    """What went wrong, why, and what to do; with the exit code."""

    def __init__(self, exit_code: Exit, message: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Client:
    """The service at `url`, asked with a staff member's `token`; `transport` replaces the network in tests.

    `service` is its name to people, and in capitals that of the variable with its address: `ORDER_URL`.
    """

    url: str
    token: str
    transport: httpx.BaseTransport | None = None
    service: str = "privacy"

    @classmethod
    def from_environment(cls, service: str = "privacy") -> "Client":
        """From PRIVACY_URL (ORDER_URL, GATEWAY_URL) and PRIVACY_TOKEN, or SUPPORT_TOKEN as in the local stack's `stack.env`.

        Raises `Failed`.
        """
        variable = f"{service.upper()}_URL"
        url = os.environ.get(variable, "")
        token = os.environ.get("PRIVACY_TOKEN") or os.environ.get("SUPPORT_TOKEN", "")
        if not url.startswith(("http://", "https://")):
            said = f"{variable} is not set to an http address: set it to that of the {service} service."
            raise Failed(Exit.WRONG_CALL, said)
        if not token.isascii() or not token.strip():
            raise Failed(Exit.WRONG_CALL, "PRIVACY_TOKEN is not set: set it to your staff access token.")
        return cls(url.rstrip("/"), token.strip(), service=service)

    def find(self, by: str, term: str, country: str | None = None) -> list[dict[str, Any]]:
        """The people behind the term; `country` is that of a phone. Raises `Failed`."""
        asked = {"by": by, "term": term, "country": country}
        items: list[dict[str, Any]] = self.ask("POST", "/v1/find", "items", json=asked)["items"]
        return items

    def inventory(self, subject_id: UUID) -> Iterator[dict[str, Any]]:
        """All rows of one person. Raises `Failed`."""
        return self.items(f"/v1/subjects/{subject_id}/inventory")

    def items(self, path: str, **asked: Any) -> Iterator[dict[str, Any]]:
        """All items, page by page; `asked` goes into the query. Raises `Failed`."""
        asked["limit"] = PAGE
        while True:
            page = self.ask("GET", path, "items", "next", params=asked)
            yield from page["items"]
            if not page["next"]:
                return
            asked["cursor"] = page["next"]

    def probe(self, subject_id: UUID, patience: float) -> list[dict[str, Any]]:
        """What each participant says itself; `row_count` is None for one that is silent after `patience` seconds.

        Raises `Failed`.
        """
        request_id = self.ask("POST", f"/v1/subjects/{subject_id}/probes", "request_id")["request_id"]
        deadline = time.monotonic() + patience
        while True:
            state = self.ask("GET", f"/v1/probes/{request_id}", "complete", "items")
            if state["complete"] or time.monotonic() > deadline:
                items: list[dict[str, Any]] = state["items"]
                return items
            time.sleep(PROBE_PAUSE)

    def ask(self, method: str, path: str, *fields: str, missing: str = "", **content: Any) -> dict[str, Any]:
        """The JSON object that is answered, which must have these fields; `missing` says what a 404 means.

        Raises `Failed`.
        """
        answer = self._json(method, path, missing=missing, **content)
        if not isinstance(answer, dict) or not answer.keys() >= set(fields):
            raise _unknown(self.service)
        return answer

    def ask_list(self, method: str, path: str, **content: Any) -> list[dict[str, Any]]:
        """The JSON array that is answered. Raises `Failed`."""
        answer = self._json(method, path, **content)
        if not isinstance(answer, list):
            raise _unknown(self.service)
        return answer

    def _json(self, method: str, path: str, **content: Any) -> Any:
        with self.open(method, path, **content) as response:
            try:
                return response.json() if response.read() else {}
            except ValueError:
                return None

    @contextmanager
    def open(self, method: str, path: str, *, missing: str = "", **content: Any) -> Iterator[httpx.Response]:
        """A good answer whose body is not read yet. Raises `Failed`, also for what goes wrong while it is read."""
        headers = {"Authorization": f"Bearer {self.token}", **content.pop("headers", {})}
        try:
            # Straight to the service: no proxy of the environment sees a term, and no redirect takes the token along.
            with (
                httpx.Client(
                    timeout=TIMEOUT,
                    trust_env=False,
                    follow_redirects=False,
                    transport=self.transport,
                    verify=tls_of(self.url),
                ) as http,
                http.stream(method, self.url + path, headers=headers, **content) as response,
            ):
                if response.status_code not in _GOOD:
                    response.read()
                    raise _refused(self.service, response, missing)
                yield response
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _away(self.service, f"cannot be asked: it does not answer ({type(error).__name__})") from None


def _unknown(service: str) -> Failed:
    return _away(service, "cannot be asked: it answers in a way that this version does not know")


def _away(service: str, why: str) -> Failed:
    return Failed(Exit.AWAY, f"The {service} service {why}. Check {service.upper()}_URL, or try again later.")


def _refused(service: str, response: httpx.Response, missing: str) -> Failed:
    match response.status_code:
        case 401:
            return Failed(Exit.REFUSED, "The token is not valid (any more). Get a new one and set PRIVACY_TOKEN.")
        case 403:
            said = _problem(response).get("detail") or "Your staff role may not do this. Ask somebody whose role may."
            return Failed(Exit.REFUSED, str(said))
        case 404 | 410 if missing:
            return Failed(Exit.NOTHING_FOUND, missing)
        case 409 | 410:
            said = _problem(response).get("detail") or "What is asked for contradicts what is stored. Look again."
            return Failed(Exit.CONFLICT, str(said))
        case 429:
            seconds = response.headers.get("retry-after", "")
            wait = f" in {seconds} s" if seconds.isdecimal() else " later"
            return Failed(Exit.REFUSED, f"Too many searches in a short time. Try again{wait}.")
        case 400 | 413 | 422:
            problem = _problem(response)
            wrong = "".join(map(_field, problem.get("errors") or ()))
            said = f"The service cannot work with this input.{wrong} Check it and call again."
            return Failed(Exit.WRONG_CALL, said if wrong else str(problem.get("detail") or said))
    return _away(service, f"failed (HTTP {response.status_code})")


def _field(error: dict[str, Any]) -> str:
    """What is wrong with one field: what it may hold, or else the code."""
    return f" {error.get('at')}: {error.get('expected') or str(error.get('code')) + '.'}"


def _problem(response: httpx.Response) -> dict[str, Any]:
    """The problem details (RFC 9457); the service puts nothing into them that came with a request."""
    try:
        problem = response.json()
    except ValueError:
        return {}
    return problem if isinstance(problem, dict) else {}
