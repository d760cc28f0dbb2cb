"""Rights requests over HTTP: opened, decided, followed to their end, fetched. Nothing here knows a personal value but
the corrections of a rectification, which pass through.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from privacyctl.client import Client, Exit, Failed

FOLLOW_PAUSE: Final = 0.3
ENDED: Final = ("completed", "denied", "cancelled")
NO_REQUEST: Final = "There is no such request. Check its id."
_EXPORTS: Final = "/v1/exports/"


@dataclass(frozen=True)
class Requests:
    """The routes of rights requests. All raise `Failed`."""

    client: Client

    def open(self, key: UUID, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Opens one request under this key, however often it is called; `asked` is the body. The answer has its id."""
        headers = {"Idempotency-Key": str(key)}
        return self.client.ask("POST", "/v1/requests", "request_id", json=asked, headers=headers)

    def show(self, request_id: UUID) -> dict[str, Any]:
        """The request's state: status, steps, who is waited for, holds, history."""
        return self.client.ask("GET", _path(request_id), "status", "steps", missing=NO_REQUEST)

    def list(self, status: str | None) -> Iterator[dict[str, Any]]:
        """All requests, or those of one status, page by page."""
        asked = {"status": status} if status else {}
        while True:
            page = self.client.ask("GET", "/v1/requests", "items", params=asked)
            yield from page["items"]
            if not page.get("next"):
                return
            asked["cursor"] = page["next"]

    def preview(self, request_id: UUID) -> dict[str, Any]:
        """What would go, what stays, why and until when."""
        return self.client.ask("GET", f"{_path(request_id)}/preview", "goes", "stays", missing=NO_REQUEST)

    def decide(self, request_id: UUID, decision: str, **content: str) -> None:
        """`identity`, `approve`, `deny`, `extend` or `cancel`."""
        body = {"json": content} if content else {}
        self.client.ask("POST", f"{_path(request_id)}/{decision}", missing=NO_REQUEST, **body)

    def follow(self, request_id: UUID, patience: float) -> Iterator[dict[str, Any]]:
        """The state each time that it changed, until the request is over or `patience` seconds are."""
        deadline = time.monotonic() + patience
        last: dict[str, Any] | None = None
        while True:
            state = self.show(request_id)
            if state != last:
                yield state
                last = state
            if is_over(state) or time.monotonic() > deadline:
                return
            time.sleep(FOLLOW_PAUSE)

    def download(self, request_id: UUID, file: Path) -> int:
        """Fetches the package through a link that works once, into a new file for this user alone. Returns its size."""
        part = file.with_name(f"{file.name}.part")
        try:
            # Before the link is used up: a file that cannot be written must not cost the package.
            descriptor = -1 if file.exists() else os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError:
            descriptor = -1
        if descriptor < 0:
            raise Failed(Exit.WRONG_CALL, "The file is there already, or cannot be made: name another one.")
        size = 0
        try:
            with os.fdopen(descriptor, "wb") as output:
                link = self._link(request_id)
                with self.client.open("GET", link, missing="The link does not work any more: ask again.") as response:
                    for chunk in response.iter_bytes():
                        size += output.write(chunk)
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)
        return size

    def certificate(self, request_id: UUID, amendment: int | None, patience: float) -> bytes:
        """The signed document as it is served; one that is still on its way to the witness is waited for."""
        asked = {} if amendment is None else {"amendment": str(amendment)}
        missing = "There is no such certificate yet. `show` says how far the request is."
        deadline = time.monotonic() + patience
        while True:
            try:
                with self.client.open(
                    "GET", f"{_path(request_id)}/certificate", missing=missing, params=asked
                ) as response:
                    return response.read()
            except Failed as failed:
                on_its_way = failed.exit_code is Exit.NOTHING_FOUND and time.monotonic() < deadline
                if not on_its_way or self.show(request_id).get("certificate") != "pending":
                    raise
            time.sleep(FOLLOW_PAUSE)

    def _link(self, request_id: UUID) -> str:
        missing = "There is no package to fetch. `show` says how far the request is."
        path = str(self.client.ask("POST", f"{_path(request_id)}/link", "url_path", missing=missing)["url_path"])
        if not path.startswith(_EXPORTS):  # the token goes to the service and nowhere else
            raise Failed(Exit.AWAY, "The privacy service gave a link that leads elsewhere. Tell its operator.")
        return path


def is_over(state: Mapping[str, Any]) -> bool:
    """The request has ended, or its package can be fetched."""
    return state["status"] in ENDED or is_ready(state)


def is_ready(state: Mapping[str, Any]) -> bool:
    """A package waits to be fetched."""
    steps = [each["step"] for each in state["steps"]]
    return bool(steps) and all(step == "ready" for step in steps)


def waiting_for(state: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Who has not answered: each system once, with its step, since when, and when it is asked next."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for step in state["steps"]:
        for each in step.get("waiting_for") or ():
            kept = found.setdefault((each["system"], step["step"]), {**each, "step": step["step"]})
            kept["since"] = min(kept["since"], each["since"])
    return list(found.values())


def scope_of(kind: str, subjects: Sequence[UUID], classes: Sequence[str], **more: Any) -> dict[str, Any]:
    """The body of a new request, without what was not said."""
    body: dict[str, Any] = {"kind": kind, "subject_ids": [str(subject) for subject in subjects]}
    said = {name: value for name, value in more.items() if value is not None}
    return body | ({"data_classes": list(classes)} if classes else {}) | said


def _path(request_id: UUID) -> str:
    return f"/v1/requests/{request_id}"
