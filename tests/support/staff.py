"""Staff at work: rights requests opened by support and approved by a privacy officer, over HTTP, many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Self
from uuid import UUID, uuid4

import httpx

from deploy.local.http import open_http
from deploy.local.keys import staff_token
from deploy.local.shop import all_of
from deploy.local.stack import Stack

PATIENCE = 300.0
State = dict[str, Any]


class Staff:
    """Two people of two roles, who ask again while the service is away. All raise `httpx.HTTPStatusError` when it refuses,
    `TimeoutError` after PATIENCE."""

    def __init__(self, stack: Stack) -> None:
        # A server closes a connection after 5 idle seconds: one that is about to be closed is not used again.
        limits = httpx.Limits(keepalive_expiry=2)
        self._http = open_http(stack.url("privacy"), limits=limits, timeout=30)
        self._support, self._officer = (
            {"Authorization": f"Bearer {staff_token(stack.keys, role)}"} for role in ("support", "privacy_officer")
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._http.aclose()

    async def open(self, kind: str, subject: UUID, data_classes: Sequence[str] | None = None, **more: Any) -> UUID:
        """The id of a new request of a person whose identity was checked; `more` goes into its body.

        Somebody who registered a moment ago is known once the inventory has read the event.
        """
        body: dict[str, Any] = {"kind": kind, "subject_ids": [str(subject)], "identity_check": "callback", **more}
        if data_classes is not None:
            body["data_classes"] = list(data_classes)
        headers = {**self._support, "Idempotency-Key": str(uuid4())}
        async with asyncio.timeout(PATIENCE):
            while True:
                response = await self._answer("POST", "/v1/requests", headers, json=body)
                if response.status_code != httpx.codes.UNPROCESSABLE_ENTITY or "no_match" not in response.text:
                    response.raise_for_status()
                    return UUID(response.json()["request_id"])
                await asyncio.sleep(0.1)

    async def approve(self, request_id: UUID) -> None:
        """The request is approved, though the answer to an earlier try may have been lost: then this one is refused."""
        if (await self.show(request_id))["status"] == "awaiting_approval":
            try:
                await self._ask("POST", f"/v1/requests/{request_id}/approve", self._officer)
            except httpx.HTTPStatusError:
                if (await self.show(request_id))["status"] == "awaiting_approval":
                    raise

    async def cancel(self, request_id: UUID) -> None:
        await self._ask("POST", f"/v1/requests/{request_id}/cancel", self._support)

    async def show(self, request_id: UUID) -> State:
        state: State = await self._ask("GET", f"/v1/requests/{request_id}", self._support)
        return state

    async def previewed(self, request_id: UUID) -> State:
        """The preview, once every participant has answered."""
        async with asyncio.timeout(PATIENCE):
            while True:
                preview: State = await self._ask("GET", f"/v1/requests/{request_id}/preview", self._support)
                if preview["complete"]:
                    return preview
                await asyncio.sleep(0.1)

    async def certified(self, request_id: UUID) -> State:
        """The state, once the request is completed and its certificate can be read."""
        async with asyncio.timeout(PATIENCE):
            while (state := await self.show(request_id))["certificate"] != "ready" or state["status"] != "completed":
                await asyncio.sleep(0.3)
        return state

    async def completed(self, request_id: UUID) -> State:
        """The state, once the request is completed."""
        async with asyncio.timeout(PATIENCE):
            while (state := await self.show(request_id))["status"] != "completed":
                await asyncio.sleep(0.1)
        return state

    async def certificate(self, request_id: UUID) -> Any:
        """The latest; None while it is on its way to the witness."""
        response = await self._answer("GET", f"/v1/requests/{request_id}/certificate", self._officer)
        if response.status_code == httpx.codes.NOT_FOUND:
            return None
        response.raise_for_status()
        return response.json()

    async def erase(self, subjects: Sequence[UUID], data_classes: Sequence[str] | None = None) -> list[State]:
        """One request for each, all under way at once; their states when the last certificate is there."""
        requests = await all_of(lambda subject: self.open("erasure", subject, data_classes), subjects)
        await all_of(self.previewed, requests)
        await all_of(self.approve, requests)
        return await all_of(self.certified, requests)

    async def hold(self, subject: UUID, data_class: str, anchor: UUID) -> UUID:
        body = {"subject_id": str(subject), "data_class": data_class, "anchor": str(anchor), "basis": "dispute"}
        headers = {**self._officer, "Idempotency-Key": str(uuid4())}
        return UUID((await self._ask("POST", "/v1/holds", headers, json=body))["hold_id"])

    async def lift(self, hold_id: UUID) -> None:
        await self._ask("DELETE", f"/v1/holds/{hold_id}", self._officer)

    async def _ask(self, method: str, path: str, headers: dict[str, str], **content: Any) -> Any:
        response = await self._answer(method, path, headers, **content)
        response.raise_for_status()
        return response.json() if response.content else None

    async def _answer(self, method: str, path: str, headers: dict[str, str], **content: Any) -> httpx.Response:
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    response = await self._http.request(method, path, headers=headers, **content)
                except httpx.TransportError:
                    pass
                else:
                    if response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                        return response
                await asyncio.sleep(0.2)


def seconds_to_certificate(state: State, certificate: State) -> float:
    """From the approval to the certificate's issue, by the service's own clock."""
    approved = next(line["at"] for line in state["history"] if line["what"] == "approved")
    return (
        datetime.fromisoformat(certificate["certificate"]["issued_at"]) - datetime.fromisoformat(approved)
    ).total_seconds()
