"""Sealed tokens against vectors that other code made (tests/contract/vectors), and that code against RFC 8452's own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

from servicekit.vault.token import SealingKey, TokenRefused, open_token, seal
from tests.contract.vectors import gcm_siv
from tests.contract.vectors.generate_tokens import make_vectors

VECTORS = json.loads((Path(__file__).parent / "vectors" / "tokens.json").read_text("utf-8"))
ROOT = Path(__file__).resolve().parents[2]

_ONE = "01" + "00" * 31
_THREE = "03" + "00" * 11
# RFC 8452, appendices C.2 (AEAD_AES_256_GCM_SIV) and C.3 (counter wrap): key, nonce, associated data, plaintext, result
RFC_8452 = [
    (_ONE, _THREE, "", "", "07f5f4169bbf55a8400cd47ea6fd400f"),
    (_ONE, _THREE, "", "0100000000000000", "c2ef328e5c71c83b843122130f7364b761e0b97427e3df28"),
    (_ONE, _THREE, "01", "0200000000000000", "1de22967237a813291213f267e3b452f02d01ae33e4ec854"),
    (
        _ONE,
        _THREE,
        "01",
        "020000000000000000000000000000000300000000000000000000000000000004000000000000000000000000000000",
        (
            "c67a1f0f567a5198aa1fcc8e3f21314336f7f51ca8b1af61feac35a86416fa47"
            "fbca3b5f749cdf564527f2314f42fe2503332742b228c647173616cfd44c54eb"
        ),
    ),
    (
        "3c535de192eaed3822a2fbbe2ca9dfc88255e14a661b8aa82cc54236093bbc23",
        "688089e55540db1872504e1c",
        "734320ccc9d9bbbb19cb81b2af4ecbc3e72834321f7aa0f70b7282b4f33df23f167541",
        "ced532ce4159b035277d4dfbb7db62968b13cd4eec",
        "626660c26ea6612fb17ad91e8e767639edd6c9faee9d6c7029675b89eaf4ba1ded1a286594",
    ),
    (
        "00" * 32,
        "00" * 12,
        "",
        "000000000000000000000000000000004db923dc793ee6497c76dcc03a98e108",
        "f3f80f2cf0cb2dd9c5984fcda908456cc537703b5ba70324a6793a7bf218d3eaffffffff000000000000000000000000",
    ),
]


@pytest.mark.parametrize(("key", "nonce", "aad", "plaintext", "result"), RFC_8452)
def test_the_generators_cipher_is_that_of_rfc_8452(key: str, nonce: str, aad: str, plaintext: str, result: str) -> None:
    made = gcm_siv.encrypt(*(bytes.fromhex(part) for part in (key, nonce, plaintext, aad)))
    assert made.hex() == result
    assert gcm_siv.decrypt(*(bytes.fromhex(part) for part in (key, nonce, result, aad))).hex() == plaintext


def test_the_generators_polyval_is_that_of_rfc_8452_appendix_a() -> None:
    key, data = "25629347589242761d31f826ba4b757b", "4f4f95668c83dfb6401762bb2d01a262d1a24ddd2721d006bbe45f20d3c9f362"
    assert gcm_siv.polyval(bytes.fromhex(key), bytes.fromhex(data)).hex() == "f7a3b47b846119fae5b7866cf5e5b77e"


def test_the_generators_hkdf_is_that_of_rfc_5869_case_3() -> None:
    expected = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    assert gcm_siv.hkdf_sha256(bytes([0x0B] * 22), b"", 42).hex() == expected


def test_the_committed_vectors_are_what_the_generator_makes() -> None:
    assert make_vectors() == VECTORS


def test_the_generator_imports_neither_our_kit_nor_cryptography() -> None:
    check = (
        "import sys; import tests.contract.vectors.generate_tokens;"
        "sys.exit(any(name.split('.')[0] in ('servicekit', 'event_contracts', 'cryptography') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize("case", VECTORS["tokens"], ids=lambda case: case["model"])
def test_a_token_that_other_code_sealed_opens(case: dict[str, Any]) -> None:
    assert open_token(bytes.fromhex(case["token"]), _key(case), **_bound(case)).decode() == case["plaintext"]


@pytest.mark.parametrize("case", VECTORS["tokens"], ids=lambda case: case["model"])
def test_sealing_with_the_same_nonce_gives_the_same_bytes(case: dict[str, Any]) -> None:
    token = seal(_key(case), case["plaintext"].encode(), nonce=bytes.fromhex(case["nonce"]), **_bound(case))
    assert token.hex() == case["token"]


def test_a_ciphertext_that_opens_under_two_keys_is_refused() -> None:
    """docs/proofs.md, 5: without the commitment it opens under both; our token refuses all keys but the one it commits to."""
    case = VECTORS["two_keys"]
    nonce, ciphertext, aad = (bytes.fromhex(case[name]) for name in ("nonce", "ciphertext", "aad"))
    opened = {AESGCMSIV(bytes.fromhex(key)).decrypt(nonce, ciphertext, aad) for key in case["encryption_keys"]}
    assert len(opened) == 2

    first, second = (SealingKey.derive(UUID(case["key_id"]), bytes.fromhex(key)) for key in case["keys"])
    token = b"\x01" + first.key_id.bytes + nonce + first.commitment + ciphertext
    assert open_token(token, first, **_bound(case)) in opened
    with pytest.raises(TokenRefused):
        open_token(token, second, **_bound(case))
    # The very same bytes open under the second key once the check is out of the way: it is the check that refuses.
    without_check = SealingKey(second.key_id, first.commitment, second.aead, second.expand)
    assert open_token(token, without_check, **_bound(case)) in opened


def _key(case: dict[str, Any]) -> SealingKey:
    return SealingKey.derive(UUID(case["key_id"]), bytes.fromhex(case["key"]))


def _bound(case: dict[str, Any]) -> dict[str, Any]:
    return {
        "data_class": case["data_class"],
        "model_name": case["model"],
        "subject": UUID(case["subject"]),
        "anchor": UUID(case["anchor"]),
    }


def test_the_worked_example_of_the_document_is_the_first_vector() -> None:
    page = (ROOT / "docs" / "token.md").read_text("utf-8")
    joined = "".join(page.split("## A worked example")[1].split())
    case = VECTORS["tokens"][0]
    for name in (
        "key",
        "key_id",
        "subject",
        "anchor",
        "nonce",
        "plaintext",
        "encryption_key",
        "commitment",
        "aad",
        "token",
    ):
        assert case[name] in joined, name
