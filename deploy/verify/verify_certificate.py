"""Checks an erasure certificate, or with --log a whole exported evidence log, offline: `python -I verify_certificate.py …`.

Needs Python 3.11 and `cryptography`, nothing of the shop; docs/evidence.md describes formats and public keys. Exit code: 0 all
is well, 1 something was changed (printed: where, what), 2 a file or the call is wrong.
"""

import argparse
import base64
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

spell = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode  # the one spelling of a value
FORMAT = "privacy-certificate/1"
UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError)


class Wrong(ValueError):
    """What is wrong, in our own words; the words of Python's own errors are shown to nobody."""


Head = tuple[int, bytes]  # size and root of a log
Proof = Sequence[bytes]
Problems = Iterator[tuple[str, str]]  # where, what


# A public key `<name>+<id>+<key>`: kind 1 signs as the log, kind 4 as a witness, who states the time.
class Key:
    def __init__(self, text: str, kind: int) -> None:
        self.kind, (self.name, key_id, rest) = kind, text.strip().split("+", 2)
        material = unbase64(rest)
        self.id = sha256(self.name.encode() + b"\n" + material).digest()[:4]
        if material[0] != kind or self.id.hex() != key_id:
            raise Wrong("it is no public key of that kind")
        self.key = Ed25519PublicKey.from_public_bytes(material[1:])

    def verify(self, text: str, line: str) -> None:
        """Raises `Wrong` unless the line is this key's signature under the text of a checkpoint."""
        signature = unbase64(line.removeprefix(f"— {self.name} ")) if line.startswith("— ") else b""
        message, signed = text, signature[4:]
        if self.kind == 4:
            message, signed = f"cosignature/v1\ntime {int.from_bytes(signed[:8])}\n{text}", signed[8:]
        try:
            self.key.verify(signed if signature[:4] == self.id else b"", message.encode())
        except InvalidSignature:
            raise Wrong(f"the signature of {self.name} is missing or wrong") from None


def unbase64(text: str) -> bytes:
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data).decode() != text:
        raise Wrong("base64 that is spelled in another way")
    return data


def load(raw: bytes) -> Any:
    value = json.loads(raw)
    if (spelled := spell(value).encode()) != raw:
        same = next((n for n, pair in enumerate(zip(spelled, raw, strict=False)) if pair[0] != pair[1]), len(spelled))
        raise Wrong(f"it is not spelled as it was issued, from byte {same} on")
    return value


def read_note(note: str, log: Key, witness: Key) -> Head:
    """Of a checkpoint that carries exactly the signatures of both. Raises `Wrong`, or what is in `UNREADABLE`."""
    text, _, signatures = note.rpartition("\n\n")
    (origin, size, root), (by_log, by_witness, end) = text.split("\n"), signatures.split("\n")
    log.verify(f"{text}\n", by_log)
    witness.verify(f"{text}\n", by_witness)
    if origin != log.name or end:
        raise Wrong("it is no checkpoint of this log")
    return int(size), unbase64(root)


def parent(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def climb(place: int, last: int, path: Proof, newer: bytes, older: bytes) -> tuple[bytes, bytes] | None:
    """RFC 9162, 2.1.3.2 and 2.1.4.2: the roots of the newer and the older tree that the path leads to."""
    for sibling in path:
        if last == 0:
            return None
        if place & 1 or place == last:
            newer, older = parent(sibling, newer), parent(sibling, older)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            newer = parent(newer, sibling)
        place, last = place >> 1, last >> 1
    return (newer, older) if last == 0 else None


def is_consistent(old: Head, new: Head, path: Proof) -> bool:
    hashes = list(path) if old[0] & (old[0] - 1) else [old[1], *path]
    level = (old[0] & -old[0]).bit_length() - 1  # of the last subtree that both trees have
    place, last = (old[0] - 1) >> level, (new[0] - 1) >> level
    return old == new or climb(place, last, hashes[1:], hashes[0], hashes[0]) == (new[1], old[1])


def check_certificate(raw: bytes, log: Key, witness: Key, pin: Head | None = None, path: Proof = ()) -> Problems:
    """All that is wrong with a certificate; `path` proves that its checkpoint and the pinned one are of one log."""
    at = "document"
    try:
        document = load(raw)
        certificate, evidence, seal = document["certificate"], document["evidence"], document["seal"]
        if document.keys() != {"format", "certificate", "evidence", "seal"} or document["format"] != FORMAT:
            yield "format", f"it is not {FORMAT}"
        at = "evidence.leaf"
        members, start = evidence["leaf"]["members"], sha256(b"\x00" + spell(evidence["leaf"]).encode()).digest()
        for name in sorted(members.keys() | certificate.keys()):
            if name not in certificate or members.get(name) != sha256(spell(certificate[name]).encode()).hexdigest():
                yield f"certificate.{name}", "it is not what the log recorded"
        at = "evidence.checkpoint"
        size, root = head = read_note(evidence["checkpoint"], log, witness)
        at = "evidence.inclusion"
        hashes = [bytes.fromhex(item) for item in evidence["inclusion"]]
        at, index = "evidence.leaf_index", evidence.get("leaf_index")
        if not 0 <= index < size or (climb(index, size - 1, hashes, start, b"") or hashes)[:1] != (root,):
            yield "evidence.inclusion", "it does not lead from the leaf at `leaf_index` to the root of the checkpoint"
        at = "pinned checkpoint"
        if pin is not None and not is_consistent(min(pin, head), max(pin, head), path):
            yield at, "the log was rolled back or forked, or the proof of consistency is missing"
        at = "seal"
        parts = {"certificate": certificate, **{f"evidence.{name}": part for name, part in evidence.items()}}
        digests = {name: sha256(spell(part).encode()).hexdigest() for name, part in parts.items()}
        log.key.verify(unbase64(seal["signature"]), f"{FORMAT}\n{spell(seal['digests'])}".encode())
        for name in sorted(digests.keys() | seal["digests"].keys() | seal.keys() - {"digests", "signature"}):
            if digests.get(name) != seal["digests"].get(name) or name in seal:
                yield "seal" if name in seal else name, "it is not what was sealed"
    except (InvalidSignature, *UNREADABLE) as error:
        yield at, str(error) if isinstance(error, Wrong) else "it is not of the form, or not signed, as it should be"


def check_log(lines: Iterable[bytes], log: Key, witness: Key, pin: Head | None = None) -> Problems:  # noqa: C901
    """All that is wrong with an exported log, by the index of the leaf, or the interval where no single one can be told."""
    edge: list[bytes] = []  # the roots of the perfect subtrees, largest first
    size, covered, root, pinned = 0, 0, b"", b""
    for line in lines:
        hash_ = b""
        try:
            entry = load(line.removesuffix(b"\n"))
            if "checkpoint" in entry:
                head, since, covered = read_note(entry["checkpoint"], log, witness), covered, size
                if head != (size, root):
                    yield f"index {since} to {max(size, head[0]) - 1}", "not the leaves of the checkpoint behind them"
                continue
            if entry["index"] != size:
                yield f"index {size}", f"here stands {entry['index']}: cut, repeated or moved"
            size, hash_ = abs(int(entry["index"])), bytes.fromhex(entry["hash"])
            if sha256(b"\x00" + spell(entry["leaf"]).encode()).digest() != hash_ or entry.keys() != {
                "hash",
                "index",
                "leaf",
            }:
                yield f"index {size}", "the leaf is not the one of its hash"
        except UNREADABLE as error:
            yield f"index {size}", str(error) if isinstance(error, Wrong) else "this line cannot be read"
            if b"checkpoint" in line:
                continue
        edge.append(hash_)
        for _ in range((~size & (size + 1)).bit_length() - 1):
            edge[-2:] = [parent(edge[-2], edge[-1])] if len(edge) > 1 else edge
        size, root = size + 1, edge[-1]
        for left in reversed(edge[:-1]):
            root = parent(left, root)
        pinned = root if pin and pin[0] == size else pinned
    if covered != size:
        yield f"index {covered} to {size - 1}", "no checkpoint covers these leaves"
    if pin and pinned != pin[1]:
        yield f"index {min(size, pin[0] - 1)}", "rolled back or forked: not the log of the pinned checkpoint"


def use(file: Path, what: str, read: Callable[[bytes], Any]) -> Any:
    """What a file holds. Raises `Wrong`, which names the file."""
    try:
        return read(file.read_bytes())
    except OSError as error:
        raise Wrong(f"{file}: the file cannot be read ({error.strerror})") from None
    except UNREADABLE as error:
        raise Wrong(f"{file}: it is not {what}{f' ({error})' if isinstance(error, Wrong) else ''}") from None


def read_path(raw: bytes) -> list[bytes]:
    return [bytes.fromhex(item) for item in json.loads(raw)["proof"]]


def size_of(raw: bytes) -> int | None:
    """How many leaves the checkpoint of a certificate has; None where that cannot be read."""
    try:
        return int(json.loads(raw)["evidence"]["checkpoint"].split("\n")[1])
    except UNREADABLE:
        return None


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file", type=Path, help="a certificate, or with --log an exported log")
    parser.add_argument("--log", action="store_true")
    for name in ("--log-key", "--witness-key", "--pinned", "--consistency"):
        parser.add_argument(name, type=Path, required="key" in name)
    given = parser.parse_args(arguments)
    try:
        log = use(given.log_key, "the log's public key", lambda raw: Key(raw.decode(), 1))
        witness = use(given.witness_key, "the witness' public key", lambda raw: Key(raw.decode(), 4))
        pin = given.pinned and use(given.pinned, "a checkpoint", lambda raw: read_note(raw.decode(), log, witness))
        path = given.consistency and use(given.consistency, "a proof of consistency", read_path)
        raw = use(given.file, "a certificate or a log", bytes)
        if pin and not given.log and path is None and (size := size_of(raw)) not in (None, pin[0]):
            old, new = sorted((pin[0], size))
            raise Wrong(
                f"{given.pinned}: it is a checkpoint of {pin[0]} leaves and the certificate has one of {size}. "
                f"Add --consistency with the answer of /v1/evidence/consistency?from={old}&to={new}"
            )
    except Wrong as error:
        print(error, file=sys.stderr)
        return 2
    if given.log:
        found = check_log(raw.splitlines(keepends=True), log, witness, pin)
    else:
        found = check_certificate(raw, log, witness, pin, path or ())
    problems = [f"{where}: {what}" for where, what in found]
    print("\n".join(problems or ["verified"]))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
