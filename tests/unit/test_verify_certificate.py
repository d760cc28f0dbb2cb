"""docs/proofs.md, 13: a thousand random changes of certificates and exported logs, each found and located by a verifier of its own.

The verifier is loaded from its file, and for a sample run as `python -I`, which sees nothing of the shop.
"""

import importlib.util
import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from evidence_log import certificate as certificates
from evidence_log.certificate import CertificateFacts, HoldFact, ParticipantFact, ProbeFact, RecipientFact
from evidence_log.checkpoint import LOG, WITNESS, Checkpoint, Signer, signed
from evidence_log.handlers import log_line
from evidence_log.leaves import Decision, KeyFact, canonical, encode
from evidence_log.merkle import (
    Node,
    combine,
    consistency_spans,
    grow,
    inclusion_spans,
    leaf_hash,
    nodes_of,
    proof,
)

VERIFIER = Path(__file__).resolve().parents[2] / "deploy" / "verify" / "verify_certificate.py"
_spec = importlib.util.spec_from_file_location("verify_certificate", VERIFIER)
assert _spec is not None
assert _spec.loader is not None
verifier = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(verifier)

AT = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
CHANGES = 1000
Problems = list[tuple[str, str]]


def signer(name: str, kind: int, seed: int) -> Signer:
    return Signer(name, kind, Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32))


LOG_KEY, WITNESS_KEY = signer("shop.example/evidence", LOG, 1), signer("witness.example/w", WITNESS, 2)
PINNED_KEYS = verifier.Key(LOG_KEY.verifier.vkey, 1), verifier.Key(WITNESS_KEY.verifier.vkey, 4)


def uuid(number: int) -> UUID:
    return UUID(int=number, version=4)


@dataclass
class Grown:
    """A log whose owner has the log's key, with a checkpoint behind every batch."""

    bodies: list[bytes]
    heads: list[int]
    nodes: dict[Node, bytes]

    @classmethod
    def of(cls, bodies: list[bytes], heads: list[int]) -> "Grown":
        made, _ = grow(0, [], map(leaf_hash, bodies))
        return cls(bodies, heads, dict(made))

    def note(self, size: int, witness: Signer = WITNESS_KEY) -> str:
        root = combine([self.nodes[node] for node in nodes_of((0, size))])
        head = Checkpoint(LOG_KEY.name, size, root)
        return signed(head, LOG_KEY.line(head), witness.line(head, 1_777_000_000))

    def lines(self, witness: Signer = WITNESS_KEY) -> Iterator[bytes]:
        for index, body in enumerate(self.bodies):
            yield log_line(index, self.nodes[0, index], body)
            if index + 1 in self.heads:
                yield canonical({"checkpoint": self.note(index + 1, witness)}) + b"\n"

    def consistency(self, old: int, new: int) -> list[bytes]:
        return proof(consistency_spans(old, new), self.nodes.__getitem__)


def facts() -> CertificateFacts:
    return CertificateFacts(
        request_id=uuid(1),
        kind="erasure",
        subject_ids=[uuid(2)],
        data_classes=None,
        policy_version="2026-01-01",
        issued_at=AT,
        participants=[ParticipantFact("account", uuid(2), 7, 0), ParticipantFact("order", uuid(2), 3, 0)],
        keys=[KeyFact(uuid(3), uuid(2), "contact", uuid(4), "ab" * 32)],
        holds=[HoldFact(uuid(2), "order_record", uuid(5), "legal_obligation", AT, 1)],
        recipients=[RecipientFact(uuid(2), "meridian", 2, 2, 1, AT)],
        probes=[ProbeFact("account", uuid(2), 0, AT)],
        horizon=date(2026, 8, 1),
    )


def decision(number: int) -> bytes:
    return encode(Decision(request_id=uuid(number), what="approved", by="system", at=AT, leaf_id=uuid(1000 + number)))


CERTIFICATE = certificates.build(facts(), uuid(9), 0, None)
LEAF = encode(certificates.leaf_of(CERTIFICATE, facts()))
PLACE = 20
HEADS = [5, 12, 13, 21, 30, 37]
OWN = Grown.of([LEAF if n == PLACE else decision(n) for n in range(37)], HEADS)
LINES = list(OWN.lines())


def document(log: Grown = OWN, size: int = 21, body: dict[str, Any] = CERTIFICATE, note: str | None = None) -> bytes:
    path = proof(inclusion_spans(PLACE, size), log.nodes.__getitem__)
    leaf = log.bodies[PLACE]
    return certificates.document(LOG_KEY, canonical(body), leaf, PLACE, path, note or log.note(size))


GOOD = document()


def check(raw: bytes, *pinned: Any) -> Problems:
    return list(verifier.check_certificate(raw, *PINNED_KEYS, *pinned))


def check_log(lines: list[bytes], *pinned: Any) -> Problems:
    return list(verifier.check_log(lines, *PINNED_KEYS, *pinned))


def head(log: Grown, size: int) -> tuple[int, bytes]:
    return size, combine([log.nodes[node] for node in nodes_of((0, size))])


def spots(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of all values below."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        yield (*path, name)
        yield from spots(item, (*path, name))


def change_value(chance: random.Random, value: Any, spot: tuple[Any, ...]) -> None:
    """Another meaning at this place of the JSON value."""
    for name in spot[:-1]:
        value = value[name]
    old, last = value[spot[-1]], spot[-1]
    if chance.random() < 0.2:
        del value[last]
    elif chance.random() < 0.2:
        value[last] = chance.choice([None, 7, "x", [], {}])
    elif isinstance(old, str):
        at = chance.randrange(len(old) + 1)
        value[last] = old[:at] + chance.choice("abz019-") + old[at + chance.randrange(2) :]
    elif isinstance(old, int) and not isinstance(old, bool):
        value[last] = old + chance.choice([-1, 1, 5])
    elif isinstance(old, list) and old:
        value[last] = [*old, chance.choice(old)]
    else:
        value[last] = 1


def change_bytes(chance: random.Random, raw: bytes) -> bytes:
    at = chance.randrange(len(raw))
    return chance.choice(
        [
            raw[:at] + bytes([raw[at] ^ (1 << chance.randrange(8))]) + raw[at + 1 :],
            raw[:at] + raw[at + 1 :],
            raw[:at] + bytes([chance.randrange(256)]) + raw[at:],
            raw[:at],
        ]
    )


def place_of(spot: tuple[Any, ...]) -> str:
    """Where the verifier is to find a change at this place: the member of certificate or evidence, or seal or format."""
    return ".".join(map(str, spot[: 2 if spot[0] in ("certificate", "evidence") else 1]))


def test_a_certificate_and_a_log_that_nobody_changed_are_verified() -> None:
    assert check(GOOD) == []
    assert check_log(LINES) == []
    for size in range(1, 38):
        pin = head(OWN, size)
        assert check_log(LINES, pin) == []
        assert check(GOOD, pin, OWN.consistency(*sorted((size, 21)))) == []


@pytest.mark.attack("a certificate is changed", expected="found and located")
@pytest.mark.fault(24, "a certificate edited")
@pytest.mark.parametrize("start", range(0, CHANGES // 2, 125))
def test_every_change_of_a_certificate_is_found_and_located(start: int) -> None:
    for seed in range(start, start + 125):
        chance = random.Random(seed)
        if seed % 2:
            changed = change_bytes(chance, GOOD)
            expected = ""
        else:
            value = json.loads(GOOD)
            spot = chance.choice([spot for spot in spots(value) if len(spot) > 1 or spot[0] == "format"])
            change_value(chance, value, spot)
            changed, expected = canonical(value), place_of(spot)
        if changed == GOOD:
            continue
        problems = check(changed)
        assert problems, f"seed {seed}: {expected}"
        assert not expected or expected in {where for where, _ in problems}, f"seed {seed}: {expected}: {problems}"


def covers(where: str, index: int) -> bool:
    numbers = [int(word) for word in where.split() if word.isdecimal()]
    return where.startswith("index ") and numbers[0] <= index <= numbers[-1]


def edit_leaf(chance: random.Random, lines: list[bytes], at: int) -> None:
    entry = json.loads(lines[at])
    change_value(chance, entry["leaf"], chance.choice(list(spots(entry["leaf"]))))
    lines[at] = canonical(entry) + b"\n"


def edit_leaf_and_hash(chance: random.Random, lines: list[bytes], at: int) -> None:
    edit_leaf(chance, lines, at)
    entry = json.loads(lines[at])
    lines[at] = log_line(entry["index"], leaf_hash(canonical(entry["leaf"])), canonical(entry["leaf"]))


def cut(chance: random.Random, lines: list[bytes], at: int) -> None:
    del lines[at]


def move(chance: random.Random, lines: list[bytes], at: int) -> None:
    lines.insert(at, lines.pop(chance.choice([n for n in range(at + 1, len(lines)) if b"checkpoint" not in lines[n]])))


def repeat(chance: random.Random, lines: list[bytes], at: int) -> None:
    lines.insert(at, lines[at])


def spoil(chance: random.Random, lines: list[bytes], at: int) -> None:
    lines[at] = change_bytes(chance, lines[at][:-1]) + b"\n"


HOW: list[Callable[[random.Random, list[bytes], int], None]] = [edit_leaf, edit_leaf_and_hash, cut, move, repeat, spoil]


@pytest.mark.attack("the evidence log is changed", expected="found with its index")
@pytest.mark.fault(24, "a log edited, cut, reordered")
@pytest.mark.parametrize("start", range(CHANGES // 2, CHANGES, 125))
def test_every_change_of_a_log_is_found_with_its_index(start: int) -> None:
    for seed in range(start, start + 125):
        chance, lines = random.Random(seed), list(LINES)
        leaves = [n for n, line in enumerate(lines) if b'"checkpoint"' not in line]
        at = chance.choice(leaves[:-1])
        index = json.loads(lines[at])["index"]
        how = HOW[seed % len(HOW)]
        how(chance, lines, at)
        if lines == LINES:
            continue
        problems = check_log(lines)
        # What is repeated stands in the place of the leaf behind it.
        assert any(covers(w, index) or covers(w, index + 1) for w, _ in problems), (
            f"seed {seed} {how.__name__}: {problems}"
        )


def forked() -> Grown:
    """The same log with one other leaf, as the holder of the log's key can make and sign it."""
    bodies = list(OWN.bodies)
    bodies[3] = decision(99)
    return Grown.of(bodies, HEADS)


@pytest.mark.attack("the log's own key signs another history", expected="the witness is missing")
@pytest.mark.fault(24, "a log signed anew")
def test_a_log_signed_anew_by_the_holder_of_its_key_lacks_the_witness() -> None:
    mallory = signer(WITNESS_KEY.name, WITNESS, 66)
    problems = check_log(list(forked().lines(mallory)))
    assert "witness.example/w" in problems[0][1]
    assert covers(problems[0][0], 4) or covers(problems[0][0], 5)
    note = forked().note(21, mallory)
    assert ("evidence.checkpoint", "the signature of witness.example/w is missing or wrong") in check(
        document(forked(), note=note)
    )


@pytest.mark.attack("log and witness sign a fork", expected="not the pinned log")
@pytest.mark.fault(24, "a fork that the witness signed")
def test_a_fork_that_even_the_witness_signed_is_not_the_pinned_log() -> None:
    assert check_log(list(forked().lines())) == []
    assert covers(check_log(list(forked().lines()), head(OWN, 37))[0][0], 36)
    wheres = [where for where, _ in check(document(forked()), head(OWN, 13), forked().consistency(13, 21))]
    assert wheres == ["pinned checkpoint"]


@pytest.mark.attack("the evidence log is rolled back", expected="found by the pinned checkpoint")
@pytest.mark.fault(24, "a log rolled back")
@pytest.mark.parametrize("size", [5, 12, 30])
def test_a_log_that_was_rolled_back_is_found_by_a_pinned_checkpoint(size: int) -> None:
    shorter = list(Grown.of(OWN.bodies[:size], HEADS).lines())
    assert check_log(shorter) == []
    ((where, what),) = check_log(shorter, head(OWN, 37))
    assert (where, what.partition(":")[0]) == (f"index {size}", "rolled back or forked")


@pytest.mark.attack("a certificate is changed and sealed anew", expected="not what the log recorded")
@pytest.mark.fault(24, "a certificate changed and sealed anew")
def test_a_certificate_changed_and_sealed_anew_is_not_what_the_log_recorded() -> None:
    changed = {**CERTIFICATE, "holds": []}
    real = certificates.digest
    value = json.loads(GOOD)
    value["certificate"] = changed
    value["seal"] = certificates._seal(LOG_KEY, {**value["seal"]["digests"], "certificate": real(changed)})
    assert check(canonical(value)) == [("certificate.holds", "it is not what the log recorded")]
    with pytest.raises(ValueError, match="not the one that the log records"):
        document(body=changed)


def test_the_verifier_is_short_and_imports_nothing_of_the_project() -> None:
    text = VERIFIER.read_text()
    assert text.count("\n") < 240
    assert "privacy_service" not in text
    assert "servicekit" not in text


def run(folder: Path, raw: bytes, *more: str) -> "subprocess.CompletedProcess[str]":
    (folder / "log.vkey").write_text(LOG_KEY.verifier.vkey + "\n")
    (folder / "witness.vkey").write_text(WITNESS_KEY.verifier.vkey + "\n")
    (folder / "file").write_bytes(raw)
    keys = ["--log-key", "log.vkey", "--witness-key", "witness.vkey"]
    command = [sys.executable, "-I", str(VERIFIER), "file", *keys, *more]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False, env={})


def test_the_command_says_what_it_found(tmp_path: Path) -> None:
    (tmp_path / "pin").write_text(OWN.note(30))
    (tmp_path / "chain.json").write_text(json.dumps({"proof": [h.hex() for h in OWN.consistency(21, 30)]}))
    done = run(tmp_path, GOOD, "--pinned", "pin", "--consistency", "chain.json")
    assert (done.returncode, done.stdout) == (0, "verified\n"), done.stderr
    assert run(tmp_path, b"".join(LINES), "--log", "--pinned", "pin").returncode == 0
    for seed in range(6):
        chance, value = random.Random(seed), json.loads(GOOD)
        spot = chance.choice([spot for spot in spots(value) if len(spot) > 1])
        change_value(chance, value, spot)
        done = run(tmp_path, canonical(value))
        assert (done.returncode, place_of(spot) in done.stdout) == (1, True), (spot, done.stdout)


def test_a_pinned_checkpoint_of_another_size_asks_for_the_proof_of_consistency(tmp_path: Path) -> None:
    (tmp_path / "pin").write_text(OWN.note(30))
    done = run(tmp_path, GOOD, "--pinned", "pin")
    assert done.returncode == 2
    assert "pin: it is a checkpoint of 30 leaves and the certificate has one of 21." in done.stderr
    assert "/v1/evidence/consistency?from=21&to=30" in done.stderr
    (tmp_path / "same").write_text(OWN.note(21))
    assert run(tmp_path, GOOD, "--pinned", "same").stdout == "verified\n"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("nothing", None, "nothing: the file cannot be read (No such file or directory)"),
        ("bad", b"\xff", "bad: it is not a checkpoint"),
        ("bad", b"no checkpoint", "bad: it is not a checkpoint"),
        ("bad", OWN.note(30).replace("30", "thirty").encode(), "bad: it is not a checkpoint (the signature of"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_and_never_in_pythons_words(
    tmp_path: Path, name: str, content: bytes | None, says: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    done = run(tmp_path, GOOD, "--pinned", name)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(says)


@pytest.mark.parametrize("member", ["inclusion", "checkpoint"])
def test_what_cannot_be_read_in_a_certificate_is_said_in_our_words(member: str) -> None:
    value = json.loads(GOOD)
    value["evidence"][member] = ["zz"] if member == "inclusion" else "one line"
    assert (f"evidence.{member}", "it is not of the form, or not signed, as it should be") in check(canonical(value))
