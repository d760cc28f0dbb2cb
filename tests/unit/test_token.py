"""What a sealed token refuses: every change, every move, every other key."""

import traceback
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit.vault.token import MAX_PLAINTEXT_BYTES, SealingKey, TokenRefused, open_token, seal

KEY_ID, SUBJECT, ANCHOR = (UUID(int=number, version=4) for number in (1, 2, 3))
KEY = SealingKey.derive(KEY_ID, bytes(range(32)))
BOUND: dict[str, Any] = {"data_class": "identity", "model_name": "Reviewer", "subject": SUBJECT, "anchor": ANCHOR}
CANARY = b"Jane Canary 7Q2K9"
TOKEN = seal(KEY, CANARY, nonce=bytes(12), **BOUND)


@given(plaintext=st.binary(max_size=300), data_class=st.text(max_size=30), model_name=st.text(max_size=30))
def test_what_was_sealed_opens_again(plaintext: bytes, data_class: str, model_name: str) -> None:
    bound = {**BOUND, "data_class": data_class, "model_name": model_name}
    assert open_token(seal(KEY, plaintext, **bound), KEY, **bound) == plaintext


@pytest.mark.attack("a sealed value is changed", expected="refused")
def test_every_flipped_bit_is_refused() -> None:
    assert open_token(TOKEN, KEY, **BOUND) == CANARY
    for bit in range(8 * len(TOKEN)):
        changed = bytearray(TOKEN)
        changed[bit // 8] ^= 1 << (bit % 8)
        with pytest.raises(TokenRefused):
            open_token(bytes(changed), KEY, **BOUND)


@pytest.mark.attack("a sealed value is cut or made longer", expected="refused")
def test_every_shortened_and_lengthened_token_is_refused() -> None:
    for size in range(len(TOKEN)):
        with pytest.raises(TokenRefused):
            open_token(TOKEN[:size], KEY, **BOUND)
    with pytest.raises(TokenRefused):
        open_token(TOKEN + b"\0", KEY, **BOUND)


@pytest.mark.attack("a sealed value is moved to another person, order or field", expected="refused")
@pytest.mark.parametrize(
    "moved",
    [
        {"subject": uuid4()},
        {"anchor": uuid4()},
        {"data_class": "contact"},
        {"model_name": "Identity"},
        {"subject": ANCHOR, "anchor": SUBJECT},
        {"data_class": "identityR", "model_name": "eviewer"},
    ],
    ids=lambda moved: "+".join(moved),
)
def test_a_moved_token_is_refused(moved: dict[str, Any]) -> None:
    with pytest.raises(TokenRefused):
        open_token(TOKEN, KEY, **{**BOUND, **moved})


@pytest.mark.attack("a sealed value is opened under another key", expected="refused")
def test_a_token_under_another_key_is_refused() -> None:
    for other in (SealingKey.derive(KEY_ID, bytes(32)), SealingKey.derive(uuid4(), bytes(range(32)))):
        with pytest.raises(TokenRefused):
            open_token(TOKEN, other, **BOUND)


@pytest.mark.attack("the key id of a sealed value is replaced", expected="refused")
def test_a_key_id_cannot_be_rewritten_to_that_of_the_opener() -> None:
    other = SealingKey.derive(uuid4(), bytes(range(32)))
    with pytest.raises(TokenRefused):
        open_token(TOKEN[:1] + other.key_id.bytes + TOKEN[17:], other, **BOUND)


def test_the_commitment_is_checked_before_anything_is_decrypted() -> None:
    class NoCipher:
        def decrypt(self, *_: object) -> bytes:
            raise AssertionError("decrypted under a key that the token is not committed to")

    key = SealingKey(KEY_ID, bytes(32), NoCipher(), KEY.expand)  # type: ignore[arg-type]
    with pytest.raises(TokenRefused):
        open_token(TOKEN, key, **BOUND)


def test_two_tokens_of_the_same_value_differ() -> None:
    assert seal(KEY, CANARY, **BOUND) != seal(KEY, CANARY, **BOUND)


def test_no_error_and_no_repr_shows_content_or_key() -> None:
    with pytest.raises(TokenRefused) as refused:
        open_token(TOKEN[:-1] + b"\0", KEY, **BOUND)
    assert "Canary" not in "".join(traceback.format_exception(refused.value))
    assert repr(KEY) == f"SealingKey({KEY_ID})"


def test_a_value_that_is_too_long_is_refused() -> None:
    assert open_token(seal(KEY, bytes(MAX_PLAINTEXT_BYTES), **BOUND), KEY, **BOUND)
    with pytest.raises(ValueError, match="too long"):
        seal(KEY, bytes(MAX_PLAINTEXT_BYTES + 1), **BOUND)


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        SealingKey.derive(KEY_ID, bytes(16))
