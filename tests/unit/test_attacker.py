"""The attacker of docs/proofs.md, 8 must be able to open what can be opened, or its "nothing" would prove nothing."""

import json
import secrets
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from joserfc import jwe
from joserfc.jwk import OKPKey

from event_contracts import Sealed
from event_contracts.carrier import shipments_topic
from event_contracts.topics import CARRIERS
from tests.support.attacker import Loot
from tests.support.forced_opening import CarrierKey, KeyRing, StolenKey, counter_mode, open_token, tokens_in, unwrap

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "contract" / "vectors" / "tokens.json").read_text()
)["tokens"]


def stolen(vector: dict[str, Any]) -> StolenKey:
    key_id, subject, anchor = (UUID(vector[name]) for name in ("key_id", "subject", "anchor"))
    return StolenKey(bytes.fromhex(vector["key"]), key_id, subject, vector["data_class"], anchor)


RING = KeyRing(map(stolen, VECTORS))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["model"]))
def test_every_vector_opens_without_its_associated_data(vector: dict[str, Any]) -> None:
    token = bytes.fromhex(vector["token"])
    key = RING.of(token)
    assert key == stolen(vector)
    assert open_token(token, key.key) == vector["plaintext"].encode()


@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 5000])
def test_counter_mode_undoes_the_cipher_for_any_length(length: int) -> None:
    key, nonce, content = secrets.token_bytes(32), secrets.token_bytes(12), secrets.token_bytes(length)
    assert counter_mode(key, nonce, AESGCMSIV(key).encrypt(nonce, content, b"unknown to the attacker")) == content
    assert unwrap(nonce + AESGCMSIV(key).encrypt(nonce, content, b"bound"), key) == content


def test_tokens_are_found_in_rows_in_json_and_in_what_another_token_held() -> None:
    token = bytes.fromhex(VECTORS[1]["token"])
    text = Sealed[Any](token).to_text()
    body = json.dumps({"contact": text, "order_id": str(uuid4())}).encode()
    assert list(tokens_in(token)) == [token]
    assert list(tokens_in(body)) == [token]
    assert list(tokens_in(b"nothing of the kind")) == []


def test_the_loot_has_the_values_inside_and_names_places_apart() -> None:
    loot = Loot(RING, [])
    token = bytes.fromhex(VECTORS[1]["token"])
    loot.search("rows", token)
    loot.search("kafka", json.dumps({"contact": Sealed[Any](token).to_text()}).encode())
    assert loot.values == {"jane@example.org", "+4915112345678"}
    assert (loot.tokens, loot.opened.total()) == (1, 1)
    assert loot.of(UUID(VECTORS[1]["subject"])) == {("contact", UUID(VECTORS[1]["anchor"]))}
    assert not loot.in_carrier_topics


def test_a_message_opens_with_its_carriers_key_alone_and_counts_apart_in_the_carriers_own_topic() -> None:
    keys = {name: OKPKey.generate_key("X25519", parameters={"kid": f"{name}-1"}, private=True) for name in CARRIERS}
    ring = [CarrierKey(json.dumps(key.as_dict(private=True))) for key in keys.values()]
    content = json.dumps({"shipment": {"recipient": {"person_name": "Ann Canary"}}}).encode()
    header = {"alg": "ECDH-ES+A256KW", "enc": "A256GCM", "kid": "meridian-1"}
    message = jwe.encrypt_compact(header, content, keys["meridian"], algorithms=["ECDH-ES+A256KW", "A256GCM"])
    assert [key.open(message.encode()) for key in ring] == [content, None]
    loot = Loot(KeyRing([]), ring)
    loot.search(shipments_topic("meridian"), message.encode())
    assert (loot.envelopes, loot.values, loot.in_carrier_topics) == (1, set(), {"Ann Canary"})
    loot.search("order.events", message.encode())
    assert loot.values == {"Ann Canary"}


def test_a_token_whose_key_is_gone_is_counted_and_stays_closed() -> None:
    loot = Loot(KeyRing([]), [])
    loot.search("rows", bytes.fromhex(VECTORS[1]["token"]))
    assert (loot.tokens, loot.values, loot.opened.total()) == (1, set(), 0)
