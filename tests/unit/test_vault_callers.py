"""Services' tokens: the signature of one is checked once, its life each time."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from privacy_service.vault.callers import Callers
from servicekit.clock import FakeClock
from servicekit.errors import Unauthenticated
from servicekit.vault_client import ServiceIdentity


def test_a_token_that_was_verified_is_refused_once_its_life_is_over(tmp_path: Path) -> None:
    clock, key = FakeClock(), Ed25519PrivateKey.generate()
    (tmp_path / "order.pem").write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    token = ServiceIdentity("order", pem, clock).token()
    callers = Callers(tmp_path, clock)
    assert [callers.verify(token), callers.verify(token)] == ["order", "order"]
    clock.tick(61)
    with pytest.raises(Unauthenticated):
        callers.verify(token)
