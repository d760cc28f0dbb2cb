"""JWE to and from carriers, opened and sealed by two other JOSE libraries; and what a carrier does with them."""

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from joserfc import jwe
from joserfc.jwk import ECKey, OKPKey
from jwcrypto.common import JWException

from event_contracts.carrier import ReplyKind
from logistics_gateway.carriers import Envelopes, ReplyKey, concat_kdf
from logistics_gateway.domain import erasure_message, recall_message, shipment_id_of, shipment_message
from servicekit.core.clock import FakeClock
from servicekit.core.errors import Misconfigured, Poison
from tests.support.carrier import Desk, seal_reply

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PAYLOAD = "Ἀλεξάνδρα, Lange Straße 12".encode()
REGISTRY = jwe.JWERegistry(algorithms=["ECDH-ES+A256KW", "A256GCM"])


def x25519(kid: str = "meridian-1") -> OKPKey:
    return OKPKey.generate_key("X25519", parameters={"kid": kid}, private=True)


def p256(kid: str = "pacifica-1") -> ECKey:
    return ECKey.generate_key("P-256", parameters={"kid": kid}, private=True)


def private_json(key: OKPKey | ECKey) -> str:
    return json.dumps(key.as_dict(private=True))


def envelopes(key: OKPKey | ECKey, clock: FakeClock | None = None, messages: int = 1000) -> Envelopes:
    return Envelopes(key.as_dict(private=False), (clock or FakeClock()).boottime, 60, messages)


def header_of(token: bytes) -> dict[str, Any]:
    head = token.split(b".")[0]
    header: dict[str, Any] = json.loads(base64.urlsafe_b64decode(head + b"=" * (-len(head) % 4)))
    return header


@pytest.mark.parametrize("make_key", [x25519, p256])
def test_two_other_libraries_open_every_message(make_key: Any) -> None:
    key = make_key()
    sealer = envelopes(key)
    for number in range(3):
        token = sealer.seal(PAYLOAD + bytes([number]))
        assert Desk(private_json(key)).open(token) == PAYLOAD + bytes([number])
        assert jwe.decrypt_compact(token, key, registry=REGISTRY).plaintext == PAYLOAD + bytes([number])


def test_the_header_names_the_key_and_nothing_personal() -> None:
    header = header_of(envelopes(x25519()).seal(PAYLOAD))
    assert header.pop("epk").keys() == {"kty", "crv", "x"}
    assert header == {"alg": "ECDH-ES+A256KW", "enc": "A256GCM", "kid": "meridian-1", "typ": "shipment+jwe"}


def test_within_a_window_only_the_agreement_is_shared() -> None:
    sealer = envelopes(x25519())
    first, second = (sealer.seal(PAYLOAD).split(b".") for _ in range(2))
    assert first[0] == second[0]
    assert all(first[part] != second[part] for part in (1, 2, 3, 4))


def test_a_new_window_has_a_new_agreement() -> None:
    clock = FakeClock()
    sealer = envelopes(x25519(), clock, messages=2)
    keys = [header_of(sealer.seal(PAYLOAD))["epk"]["x"] for _ in range(3)]
    assert keys[0] == keys[1] != keys[2]
    clock.tick(61)
    assert header_of(sealer.seal(PAYLOAD))["epk"]["x"] not in keys


@pytest.mark.attack("a carrier message is changed on its way", expected="refused")
@pytest.mark.parametrize("part", range(5))
@pytest.mark.parametrize("make_key", [x25519, p256])
def test_a_changed_message_is_refused_wherever_it_was_changed(make_key: Any, part: int) -> None:
    key = make_key()
    parts = envelopes(key).seal(PAYLOAD).split(b".")
    raw = bytearray(base64.urlsafe_b64decode(parts[part] + b"=" * (-len(parts[part]) % 4)))
    raw[len(raw) // 2] ^= 1
    parts[part] = base64.urlsafe_b64encode(bytes(raw)).rstrip(b"=")
    with pytest.raises((JWException, ValueError)):
        Desk(private_json(key)).open(b".".join(parts))


@pytest.mark.attack("a carrier's key opens another carrier's message", expected="refused")
def test_another_carrier_cannot_open_it() -> None:
    with pytest.raises(JWException):
        Desk(private_json(x25519())).open(envelopes(x25519()).seal(PAYLOAD))


def test_concat_kdf_gives_the_octets_of_an_independent_implementation() -> None:
    """Checked with cryptography's own ConcatKDF, whose `otherinfo` is put together here by hand from RFC 7518 §4.6.2."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash

    otherinfo = b"\0\0\0\x0eECDH-ES+A256KW" + b"\0\0\0\0" + b"\0\0\0\0" + b"\0\0\x01\0"
    assert concat_kdf(b"z" * 32) == ConcatKDFHash(SHA256(), 32, otherinfo).derive(b"z" * 32)


@pytest.mark.parametrize(
    "jwk",
    [
        {},
        {"kty": "OKP", "crv": "X25519", "x": "AAAA", "kid": "k"},
        {"kty": "OKP", "crv": "Ed25519", "x": "A" * 43, "kid": "k"},
        {"kty": "EC", "crv": "P-256", "x": "A" * 43, "y": "A" * 43, "kid": "off-curve"},
        {"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "k"},
        x25519().as_dict(private=True),
    ],
)
def test_an_unusable_carrier_key_is_refused(jwk: dict[str, Any]) -> None:
    with pytest.raises(Misconfigured, match="public JWK"):
        Envelopes(jwk, FakeClock().boottime, 60, 10)


# --- replies


@pytest.fixture(params=[x25519, p256])
def reply_key(request: pytest.FixtureRequest) -> OKPKey | ECKey:
    key: OKPKey | ECKey = request.param("gateway-1")
    return key


def public_json(key: OKPKey | ECKey) -> str:
    return json.dumps(key.as_dict(private=False))


@pytest.mark.fault(15, "a tracking event with a name in it")
def test_a_reply_is_opened_and_what_else_it_says_is_dropped(reply_key: OKPKey | ECKey) -> None:
    shipment = uuid4()
    sealed = seal_reply(public_json(reply_key), "meridian", shipment, "handed_over", NOW, signed_by="Jane Canary")
    reply = ReplyKey(reply_key.as_dict(private=True)).open_reply(sealed)
    assert (reply.kind, reply.shipment_id, reply.at) == (ReplyKind.HANDED_OVER, shipment, NOW)
    assert "Canary" not in repr(reply)


@pytest.mark.attack("a reply that is not sealed to the gateway", expected="poison, not an effect")
@pytest.mark.parametrize(
    "value", [None, b"", b"{}", b"a.b.c.d.e", b"\xff\xfe", b"x" * 20_000, b"eyJhbGciOiJkaXIifQ...."]
)
def test_anything_that_is_not_sealed_to_the_gateway_is_poison(reply_key: OKPKey | ECKey, value: bytes | None) -> None:
    with pytest.raises(Poison) as poison:
        ReplyKey(reply_key.as_dict(private=True)).open_reply(value)
    assert poison.value.reason in ("reply_size", "reply_not_sealed_to_us")


def test_a_reply_under_another_algorithm_is_poison() -> None:
    key = x25519()
    registry = jwe.JWERegistry(algorithms=["ECDH-ES", "A128GCM"])
    token = jwe.encrypt_compact({"alg": "ECDH-ES", "enc": "A128GCM"}, b"{}", key, registry=registry)
    with pytest.raises(Poison):
        ReplyKey(key.as_dict(private=True)).open_reply(token.encode())


@pytest.mark.fault(9, "a sealed reply that is none")
@pytest.mark.parametrize("content", [b"[]", b"{}", b"not json", b'{"kind": "lost"}'])
def test_a_sealed_text_that_is_no_reply_is_poison(content: bytes) -> None:
    key = x25519()
    token = envelopes(key).seal(content)
    with pytest.raises(Poison) as poison:
        ReplyKey(key.as_dict(private=True)).open_reply(token)
    assert poison.value.reason == "reply_breaks_contract"


@pytest.mark.fault(29, "a carrier's time without a zone, before all time, or after it")
@pytest.mark.attack(
    "a carrier states a time at an end of the calendar", expected="the reply is poison: implausible_time"
)
@pytest.mark.parametrize(
    "at",
    [
        NOW.replace(tzinfo=None),
        datetime.max.replace(tzinfo=UTC),
        datetime.min.replace(tzinfo=UTC),
        datetime(1999, 12, 31, 23, 59, tzinfo=UTC),
        datetime(2200, 1, 1, tzinfo=UTC),
    ],
)
def test_a_time_out_of_bounds_is_poison(at: datetime) -> None:
    key = x25519()
    sealed = seal_reply(public_json(key), "meridian", uuid4(), "delivered", at)
    with pytest.raises(Poison) as poison:
        ReplyKey(key.as_dict(private=True)).open_reply(sealed)
    assert poison.value.reason == "implausible_time"


@pytest.mark.attack("two carriers compare record keys and digests", expected="nothing matches")
def test_record_keys_and_digests_belong_to_one_carrier_and_one_gateway() -> None:
    key, consignee = ReplyKey(x25519().as_dict(private=True)), uuid4()
    meridian, pacifica = key.record_keys("meridian"), key.record_keys("pacifica")
    assert meridian(consignee) == key.record_keys("meridian")(consignee)
    assert len({meridian(consignee), pacifica(consignee), meridian(uuid4()), consignee.hex.encode()}) == 4
    assert len(bytes.fromhex(meridian(consignee).decode())) == 16
    other = ReplyKey(x25519().as_dict(private=True))
    assert len({key.digest(consignee, b"m"), key.digest(uuid4(), b"m"), other.digest(consignee, b"m")}) == 3
    # Without the gateway's key a guess of the consignee cannot be tested against a record key (law L2).
    assert meridian(consignee) != other.record_keys("meridian")(consignee)


def test_a_private_key_is_needed_for_replies() -> None:
    with pytest.raises(Misconfigured):
        ReplyKey(x25519().as_dict(private=False))


# --- the simulated carrier's manners


def test_a_carrier_answers_once_and_counts_the_duplicate() -> None:
    key, shipment = x25519(), shipment_id_of(UUID(int=1))
    desk, sealer = Desk(private_json(key), now=lambda: NOW), envelopes(key)
    message = shipment_message(shipment, NOW + timedelta(hours=1), {"service": "x"})
    assert [kind for _, kind in desk.receive(sealer.seal(message))] == ["acknowledged", "handed_over", "delivered"]
    assert desk.receive(sealer.seal(message)) == []
    assert (desk.raw, desk.duplicates, desk.shipments) == (2, 1, {shipment: {"service": "x"}})


@pytest.mark.fault(7, "a late send reaches the carrier's desk")
def test_a_carrier_refuses_what_is_late_or_recalled() -> None:
    key, late, recalled = x25519(), shipment_id_of(UUID(int=1)), shipment_id_of(UUID(int=2))
    desk, sealer = Desk(private_json(key), now=lambda: NOW), envelopes(key)
    assert desk.receive(sealer.seal(shipment_message(late, NOW, {}))) == [(late, "refused")]
    assert desk.receive(sealer.seal(recall_message(recalled, NOW + timedelta(hours=1)))) == []
    assert desk.receive(sealer.seal(shipment_message(recalled, NOW + timedelta(hours=1), {}))) == [
        (recalled, "refused")
    ]
    assert desk.shipments == {}


def test_a_carrier_keeps_the_version_with_the_highest_number() -> None:
    key, shipment, later = x25519(), shipment_id_of(UUID(int=1)), NOW + timedelta(hours=1)
    desk, sealer = Desk(private_json(key), ["acknowledged"], now=lambda: NOW), envelopes(key)
    second = sealer.seal(shipment_message(shipment, later, {"service": "second"}, 2))
    assert desk.receive(second) == [(shipment, "acknowledged")]
    assert desk.receive(sealer.seal(shipment_message(shipment, later, {"service": "first"}))) == []
    assert desk.receive(sealer.seal(shipment_message(shipment, later, {"service": "third"}, 3))) == []
    assert desk.shipments == {shipment: {"service": "third"}}


def test_a_carrier_deletes_what_was_erased_and_says_so_unless_it_is_silent() -> None:
    key, shipment, later = x25519(), shipment_id_of(UUID(int=1)), NOW + timedelta(hours=1)
    desk, sealer = Desk(private_json(key), ["acknowledged"], now=lambda: NOW), envelopes(key)
    desk.receive(sealer.seal(shipment_message(shipment, later, {"service": "x"})))
    assert desk.receive(sealer.seal(erasure_message(shipment, later))) == [(shipment, "erased")]
    assert desk.receive(sealer.seal(shipment_message(shipment, later, {"service": "y"}, 2))) == [(shipment, "refused")]
    assert desk.shipments == {}
    assert not any(message.shipment for message in desk.opened if message.kind == "shipment")
    desk.is_silent = True
    assert desk.receive(sealer.seal(erasure_message(shipment_id_of(UUID(int=2)), later))) == []
