"""Checkpoints: the examples of the C2SP specifications, and what is no checkpoint."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from evidence_log.checkpoint import (
    LOG,
    WITNESS,
    BadNote,
    Checkpoint,
    Signer,
    Verifier,
    parse_note,
    signed,
)

# The example of c2sp.org/signed-note and golang.org/x/mod/sumdb/note: a key, and a note that it signed.
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
# The example of c2sp.org/tlog-cosignature; its keys are not published.
EXAMPLE = (
    "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
    "— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
    "— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dl"
    "rDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
)
HEAD = Checkpoint("shop.example/evidence", 7, bytes(range(32)))


def signer(name: str, kind: int, seed: int = 1) -> Signer:
    return Signer(name, kind, Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32))


LOG_KEY, WITNESS_KEY = signer("shop.example/evidence", LOG), signer("witness.example/w1", WITNESS, 2)
NOTE = signed(HEAD, LOG_KEY.line(HEAD), WITNESS_KEY.line(HEAD, 1_679_315_147))


def test_the_specifications_example_is_read() -> None:
    note = parse_note(EXAMPLE)
    assert (note.checkpoint.origin, note.checkpoint.size) == ("example.com/behind-the-sofa", 20852163)
    assert [name for name, _, _ in note.signatures] == ["example.com/behind-the-sofa", "witness.example.com/w1"]
    witness = note.signatures[1][2]
    assert int.from_bytes(witness[:8]) == 1679315147
    assert len(witness) == 72
    assert note.checkpoint.text == EXAMPLE.partition("\n\n")[0] + "\n"


def test_a_published_key_has_its_published_id() -> None:
    assert Verifier.parse(PETER).vkey == PETER
    with pytest.raises(BadNote):
        Verifier.parse(PETER.replace("c74f20a3", "c74f20a4"))


def test_a_note_in_the_published_format_verifies() -> None:
    # golang.org/x/mod/sumdb/note: the signature over this text by PeterNeumann's key.
    text = b"If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
    signature = base64.b64decode(
        "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
    )
    peter = Verifier.parse(PETER)
    assert signature[:4] == peter.key_id
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    Ed25519PublicKey.from_public_bytes(peter.key).verify(signature[4:], text)


def test_what_is_signed_is_read_and_verified_again() -> None:
    note = parse_note(NOTE)
    assert note.checkpoint == HEAD
    assert note.time_of(LOG_KEY.verifier) == 0
    assert note.time_of(WITNESS_KEY.verifier) == 1_679_315_147
    assert Verifier.parse(WITNESS_KEY.verifier.vkey) == WITNESS_KEY.verifier


def test_signatures_by_unknown_keys_are_passed_over_and_a_forged_one_refuses_the_note() -> None:
    other = signer("other.example/w2", WITNESS, 3)
    assert parse_note(NOTE + other.line(HEAD, 1)).time_of(LOG_KEY.verifier) == 0
    with pytest.raises(BadNote):
        parse_note(NOTE).time_of(other.verifier)
    forged = Checkpoint(HEAD.origin, 8, HEAD.root)
    with pytest.raises(BadNote):
        parse_note(NOTE + LOG_KEY.line(forged)).time_of(LOG_KEY.verifier)


def test_a_log_key_does_not_pass_for_a_witness() -> None:
    same = signer("shop.example/evidence", WITNESS)
    with pytest.raises(BadNote):
        parse_note(signed(HEAD, LOG_KEY.line(HEAD))).time_of(same.verifier)


@pytest.mark.parametrize("size", [8, 6, 70])
def test_another_size_another_root_another_time_are_not_signed(size: int) -> None:
    changed = NOTE.replace("\n7\n", f"\n{size}\n")
    for key in (LOG_KEY, WITNESS_KEY):
        with pytest.raises(BadNote):
            parse_note(changed).time_of(key.verifier)


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "\n\n",
        HEAD.text,
        NOTE.rstrip("\n"),
        NOTE.replace("\n7\n", "\n07\n"),
        NOTE.replace("\n7\n", "\n+7\n"),
        NOTE.replace("\n7\n", "\n٧\n"),
        NOTE.replace("\n7\n", "\n7\nextension\n"),
        NOTE.replace("— ", "- "),
        NOTE.replace("8=\n\n", "9=\n\n"),  # the same bytes, spelled in another way
        NOTE.replace("AAEC", "A\rEC"),
        NOTE.replace("shop.example/evidence ", "shop.example/evidence  "),
        NOTE + "\n",
    ],
)
def test_what_is_no_checkpoint_is_refused(wrong: str) -> None:
    with pytest.raises(BadNote):
        parse_note(wrong)
