"""Services' tokens: the signature of one is checked once, its life each time."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from fastapi import Request
from starlette.types import Message

from event_contracts.vault_api import FindBody
from servicekit.core.clock import FakeClock
from servicekit.core.errors import Unauthenticated, UnsupportedMedia
from servicekit.vault.client import ServiceIdentity
from vault_service.callers import Callers
from vault_service.payloads import read_body


def introduced(folder: Path, clock: FakeClock) -> tuple[ServiceIdentity, Callers]:
    """A service that the vault knows."""
    key = Ed25519PrivateKey.generate()
    (folder / "order.pem").write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return ServiceIdentity("order", pem, clock), Callers(folder, clock)


def test_a_token_that_was_verified_is_refused_once_its_life_is_over(tmp_path: Path) -> None:
    clock = FakeClock()
    identity, callers = introduced(tmp_path, clock)
    token = identity.token()
    assert [callers.verify(token), callers.verify(token)] == ["order", "order"]
    clock.tick(61)
    with pytest.raises(Unauthenticated):
        callers.verify(token)


@pytest.mark.fault(21, "the clock is set back by a day while a service has a token")
def test_a_service_makes_a_new_token_when_the_clock_was_set_back(tmp_path: Path) -> None:
    clock = FakeClock()
    identity, callers = introduced(tmp_path, clock)
    before = identity.token()
    clock.tick(-86_400)
    with pytest.raises(Unauthenticated):
        callers.verify(before)
    assert callers.verify(identity.token()) == "order"


@pytest.mark.parametrize("declared", ["text/plain", ""])
async def test_a_body_that_is_not_declared_as_json_is_refused(declared: str) -> None:
    """The edge refuses a name that stands twice in JSON only."""

    async def receive() -> Message:
        return {"type": "http.request", "body": b'{"kind":"email","kind":"phone","digest":""}'}

    request = Request({"type": "http", "headers": [(b"content-type", declared.encode())]}, receive)
    with pytest.raises(UnsupportedMedia):
        await read_body(request, FindBody)
