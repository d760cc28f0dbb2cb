"""Asks the privacy service over HTTP; every failure has its exit code. Nothing here prints or keeps a search term."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, NoReturn
from uuid import UUID

import httpx

from servicekit.tls import tls_of

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
    """The service at `url`, asked with a staff member's `token`; `transport` replaces the network in tests."""

    url: str
    token: str
    transport: httpx.BaseTransport | None = None

    @classmethod
    def from_environment(cls) -> "Client":
        """From PRIVACY_URL and PRIVACY_TOKEN, or SUPPORT_TOKEN as in the local stack's `stack.env`. Raises `Failed`."""
        url = os.environ.get("PRIVACY_URL", "")
        token = os.environ.get("PRIVACY_TOKEN") or os.environ.get("SUPPORT_TOKEN", "")
        if not url.startswith(("http://", "https://")):
            raise Failed(Exit.WRONG_CALL, "PRIVACY_URL is not set to an http address: set it to the privacy service's.")
        if not token.isascii() or not token.strip():
            raise Failed(Exit.WRONG_CALL, "PRIVACY_TOKEN is not set: set it to your staff access token.")
        return cls(url.rstrip("/"), token.strip())

    def find(self, by: str, term: str, country: str | None = None) -> list[dict[str, Any]]:
        """The people behind the term; `country` is that of a phone. Raises `Failed`."""
        asked = {"by": by, "term": term, "country": country}
        items: list[dict[str, Any]] = self.ask("POST", "/v1/find", "items", json=asked)["items"]
        return items

    def inventory(self, subject_id: UUID) -> Iterator[dict[str, Any]]:
        """All rows of one person, page by page. Raises `Failed`."""
        asked: dict[str, Any] = {"limit": PAGE}
        while True:
            page = self.ask("GET", f"/v1/subjects/{subject_id}/inventory", "items", "next", params=asked)
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
        with self.open(method, path, missing=missing, **content) as response:
            try:
                answer = response.json() if response.read() else {}
            except ValueError:
                answer = None
        if not isinstance(answer, dict) or not answer.keys() >= set(fields):
            _away("it answers in a way that this version does not know")
        return answer

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
                    raise _refused(response, missing)
                yield response
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            _away(f"it does not answer ({type(error).__name__})")


def _away(why: str) -> NoReturn:
    raise Failed(
        Exit.AWAY, f"The privacy service cannot be asked: {why}. Check PRIVACY_URL, or try again later."
    ) from None


def _refused(response: httpx.Response, missing: str) -> Failed:
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
    return Failed(
        Exit.AWAY,
        f"The privacy service failed (HTTP {response.status_code}). Check PRIVACY_URL, or try again later.",
    )


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
