"""Asks the privacy service over HTTP; every failure has its exit code. Nothing here prints or keeps a search term."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, NoReturn
from uuid import UUID

import httpx

TIMEOUT: Final = 20.0
PAGE: Final = 100
PROBE_PAUSE: Final = 0.1


class Exit(IntEnum):
    """Exit codes of `privacyctl`."""

    FOUND = 0
    NOTHING_FOUND = 1
    WRONG_CALL = 2
    REFUSED = 3
    AWAY = 4
    INCOMPLETE = 5


class Failed(Exception):
    """What went wrong, why, and what to do; with the exit code."""

    def __init__(self, exit_code: Exit, message: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Client:
    """The service at `url`, asked with a staff member's `token`."""

    url: str
    token: str

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

    def find(self, by: str, term: str) -> list[dict[str, Any]]:
        """The people behind the term. Raises `Failed`."""
        items: list[dict[str, Any]] = self._ask("POST", "/v1/find", json={"by": by, "term": term})["items"]
        return items

    def inventory(self, subject_id: UUID) -> Iterator[dict[str, Any]]:
        """All rows of one person, page by page. Raises `Failed`."""
        asked: dict[str, Any] = {"limit": PAGE}
        while True:
            page = self._ask("GET", f"/v1/subjects/{subject_id}/inventory", params=asked)
            yield from page["items"]
            if not page["next"]:
                return
            asked["cursor"] = page["next"]

    def probe(self, subject_id: UUID, patience: float) -> list[dict[str, Any]]:
        """What each participant says itself; `row_count` is None for one that is silent after `patience` seconds.

        Raises `Failed`.
        """
        request_id = self._ask("POST", f"/v1/subjects/{subject_id}/probes")["request_id"]
        deadline = time.monotonic() + patience
        while True:
            state = self._ask("GET", f"/v1/probes/{request_id}")
            if state["complete"] or time.monotonic() > deadline:
                items: list[dict[str, Any]] = state["items"]
                return items
            time.sleep(PROBE_PAUSE)

    def _ask(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.token}"}
        try:
            # Straight to the service: no proxy of the environment sees a term, and no redirect takes the token along.
            with httpx.Client(timeout=TIMEOUT, trust_env=False, follow_redirects=False) as http:
                response = http.request(method, self.url + path, headers=headers, **content)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            _away(f"it does not answer ({type(error).__name__})")
        if response.status_code not in (httpx.codes.OK, httpx.codes.ACCEPTED):
            raise _refused(response)
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict) or not answer.keys() & {"items", "request_id"}:
            _away("it answers in a way that this version does not know")
        return answer


def _away(why: str) -> NoReturn:
    raise Failed(
        Exit.AWAY, f"The privacy service cannot be asked: {why}. Check PRIVACY_URL, or try again later."
    ) from None


def _refused(response: httpx.Response) -> Failed:
    match response.status_code:
        case 401:
            return Failed(Exit.REFUSED, "The token is not valid (any more). Get a new one and set PRIVACY_TOKEN.")
        case 403:
            return Failed(Exit.REFUSED, "Your staff role may not do this. Ask somebody whose role may.")
        case 429:
            seconds = response.headers.get("retry-after", "")
            wait = f" in {seconds} s" if seconds.isdecimal() else " later"
            return Failed(Exit.REFUSED, f"Too many searches in a short time. Try again{wait}.")
        case 400 | 413 | 422:
            return Failed(Exit.WRONG_CALL, "The service cannot work with this input. Check it and call again.")
    return Failed(
        Exit.AWAY,
        f"The privacy service failed (HTTP {response.status_code}). Check PRIVACY_URL, or try again later.",
    )
