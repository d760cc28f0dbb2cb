"""What the evidence does: records leaves within the caller's transaction, issues certificates, and shows the log."""

import json
from collections.abc import Sequence
from typing import Final
from uuid import UUID, uuid4

from evidence_log import certificate, store
from evidence_log.certificate import CertificateFacts
from evidence_log.checkpoint import LOG, Signer
from evidence_log.leaves import Leaf, canonical, encode
from evidence_log.merkle import Span, consistency_spans, inclusion_spans, nodes_of, proof
from evidence_log.settings import settings_of
from evidence_log.store import Issued
from servicekit import Kit, Tx
from servicekit.core.errors import Invalid, KitError, Misconfigured, NotFound
from servicekit.db.postgres import Database

# The names of the log's jobs, for whoever has work for them.
SEQUENCE: Final = "sequence_leaves"
WITNESS: Final = "witness_checkpoint"


class EvidenceChanged(KitError):
    """Stored evidence is not what was recorded: somebody changed the database. Compare it with the last checkpoint."""

    code = "evidence_changed"


async def append(tx: Tx, leaves: Sequence[Leaf]) -> None:
    """Records the leaves with the transaction: one statement. A leaf whose id was recorded before is not recorded again."""
    if leaves:
        await store.insert_leaves(tx, [(leaf.leaf_id, leaf.kind, encode(leaf)) for leaf in leaves])


async def issue(kit: Kit, tx: Tx, wanted: Sequence[CertificateFacts]) -> list[UUID]:
    """Writes the certificates, or the next amendments of the requests', with their leaves. Returns their ids, in this order.

    The same facts as the latest amendment has (whatever the time) give that one's id again. Lock the requests' rows before.
    """
    latest = await store.read_latest(tx, [facts.request_id for facts in wanted])
    ids: list[UUID] = []
    issued: list[Issued] = []
    leaves: list[Leaf] = []
    for facts in wanted:
        last = latest.get(facts.request_id)
        amendment, previous = (last["amendment"] + 1, last["body"]) if last else (0, None)
        certificate_id = uuid4()
        built = certificate.build(facts, certificate_id, amendment, previous)
        if last is not None and certificate.says_the_same(built, last["body"]):
            ids.append(last["certificate_id"])
            continue
        leaf = certificate.leaf_of(built, facts)
        leaves.append(leaf)
        issued.append(
            Issued(certificate_id, facts.request_id, amendment, facts.issued_at, leaf.leaf_id, canonical(built))
        )
        ids.append(certificate_id)
    await append(tx, leaves)
    await store.insert_certificates(tx, issued)
    tx.wake(kit.wakes[SEQUENCE])
    return ids


async def read_certificate(kit: Kit, request_id: UUID, amendment: int | None = None) -> bytes:
    """The signed document, the latest amendment unless one is named (0 is the first): the same bytes each time.

    Raises `NotFound` when there is none, or its leaf is not yet in a checkpoint that the witness has signed.
    """
    row = await store.read_certificate(kit.db, request_id, amendment)
    if row is None:
        raise NotFound
    leaf = await store.read_leaf(kit.db, row["leaf_id"])
    seen = None if leaf is None else await store.read_cosigned(kit.db, leaf["leaf_index"])
    if leaf is None or seen is None:
        raise NotFound("The certificate is issued, and waits for the witness of the log. Ask again in a moment.")
    path = await _prove(kit.db, inclusion_spans(leaf["leaf_index"], seen["size"]))
    try:
        return certificate.document(
            log_signer(kit), row["body"], leaf["body"], leaf["leaf_index"], path, seen["note"] + seen["line"]
        )
    except ValueError:
        raise EvidenceChanged from None


async def is_ready(db: Database | Tx, request_id: UUID) -> bool | None:
    """Whether the latest certificate of the request can be read yet; None when none was issued."""
    row = await store.read_certificate(db, request_id, None)
    if row is None:
        return None
    leaf = await store.read_leaf(db, row["leaf_id"])
    return leaf is not None and await store.read_cosigned(db, leaf["leaf_index"]) is not None


async def read_checkpoint(kit: Kit) -> str:
    """The newest checkpoint that the witness has signed. Raises `NotFound` while there is none."""
    row = await store.read_newest_cosigned(kit.db)
    if row is None:
        raise NotFound("The log has no checkpoint that its witness has signed. Ask again in a moment.")
    return f"{row['note']}{row['line']}"


async def read_log(kit: Kit, start: int, end: int) -> bytes:
    """The leaves `start` up to `end`, and each witnessed checkpoint behind the leaves that it covers, as lines of JSON."""
    leaves = await store.read_leaves(kit.db, start, end)
    notes = {row["size"]: row["note"] + row["line"] for row in await store.read_cosigned_between(kit.db, start, end)}
    lines = []
    for row in leaves:
        lines.append(log_line(row["leaf_index"], row["hash"], row["body"]))
        if (note := notes.get(row["leaf_index"] + 1)) is not None:
            lines.append(canonical({"checkpoint": note}) + b"\n")
    return b"".join(lines)


def log_line(index: int, hash_: bytes, body: bytes) -> bytes:
    """One leaf as a line of an exported log."""
    return canonical({"hash": hash_.hex(), "index": index, "leaf": json.loads(body)}) + b"\n"


async def prove_consistency(kit: Kit, old: int, new: int) -> list[bytes]:
    """The proof that the log of `new` leaves begins with that of `old`. Raises `Invalid`, `NotFound`."""
    try:
        spans = consistency_spans(old, new)
    except ValueError:
        raise Invalid("`from` is the smaller size and `to` the larger one. Turn them round.") from None
    size, _ = await store.read_end(kit.db)
    if new > size:
        raise NotFound("The log is not that long yet.")
    return await _prove(kit.db, spans)


async def _prove(db: Database, spans: Sequence[Span]) -> list[bytes]:
    found = await store.read_nodes(db, [node for span in spans for node in nodes_of(span)])
    try:
        return proof(spans, found.__getitem__)
    except KeyError:
        raise EvidenceChanged from None


def log_signer(kit: Kit) -> Signer:
    """The log's key. Raises `Misconfigured`."""
    settings = settings_of(kit)
    try:
        return Signer.load(settings.evidence_origin, LOG, settings.read("evidence_key_file"))
    except ValueError:
        raise Misconfigured("EVIDENCE_KEY_FILE is no Ed25519 key, or EVIDENCE_ORIGIN no name of a log.") from None
