"""The jobs of the log: give leaves their indices, sign a checkpoint, have the witness sign it."""

import asyncio
from base64 import b64encode
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

import httpx
import msgspec

from evidence_log import store
from evidence_log.checkpoint import BadNote, Checkpoint, Verifier, parse_line, parse_note, signed
from evidence_log.handlers import SEQUENCE, WITNESS, EvidenceChanged, log_signer, prove_consistency
from evidence_log.journal import Journal, JournalRefused
from evidence_log.leaves import problem_of
from evidence_log.merkle import combine, grow, leaf_hash, nodes_of
from evidence_log.settings import settings_of
from evidence_log.store import Cursor
from servicekit import Job, Kit, Record, Tx, get_log
from servicekit.core.errors import KitError, Misconfigured, Unavailable
from servicekit.core.faults import declare, faultpoint
from servicekit.core.logs import code
from servicekit.core.metrics import EVIDENCE_ASIDE, EVIDENCE_SET_ASIDE
from servicekit.http.tls import tls_of

log = get_log("evidence")
BATCH: Final = 5000
ASIDE_AT_ONCE: Final = 100
ASIDE_RETRY: Final = timedelta(hours=1)
_WITNESS_SECONDS: Final = 10

declare("evidence.sequencing", "evidence.journalled", "evidence.witnessed")


class WitnessRefused(KitError):
    """The witness has seen another log than this one: the log was rolled back or forked. Find out who changed it."""

    code = "witness_refused"
    status = 503


class DumpLoaded(Misconfigured):
    """The evidence was loaded from a dump into another database, whose transactions are counted anew. Restore a base backup."""

    code = "evidence_dump_loaded"


async def sequence_leaves(kit: Kit) -> None:
    """Takes up all leaves that wait, a batch in each transaction. Several processes may run it: one of them works."""
    while await kit.run_tx("sequence_leaves", lambda tx: sequence_batch(kit, tx)) == BATCH:
        continue
    EVIDENCE_ASIDE.set(await store.count_aside(kit.db))


async def sequence_batch(kit: Kit, tx: Tx) -> int:
    """One batch within a transaction: first what the journal has and the database lacks, then what is new. Returns how many."""
    if not await store.lock_sequencer(tx):
        return 0
    size, cursor = await store.read_end(tx)
    path = settings_of(kit).evidence_file
    journal = Journal(path) if path is not None else None
    if journal is not None and (kept := await asyncio.to_thread(journal.size)) != size:
        if kept < size:
            raise JournalRefused
        return await _take_up(kit, tx, journal, size, cursor)
    if await store.is_ahead_of_database(tx, cursor):
        raise DumpLoaded
    pending = await store.read_pending(tx, cursor, await store.read_horizon(tx), BATCH)
    again = await store.read_aside(tx, kit.clock.now(), ASIDE_AT_ONCE)
    rows = await _without_malformed(kit, tx, pending, again, cursor)
    if not rows:
        return len(pending)
    hashes = [leaf_hash(row.body) for row in rows]
    faultpoint("evidence.sequencing")
    if journal is not None:
        pairs = list(zip(hashes, (row.body for row in rows), strict=True))
        await asyncio.to_thread(journal.append, size, pairs)
        faultpoint("evidence.journalled")
    await _index(kit, tx, size, [row.entry_id for row in rows], [row.cursor for row in rows], hashes)
    return len(pending)


class _Row(NamedTuple):
    """A leaf to be taken up, and how far the leaves are taken up with it."""

    entry_id: int
    body: bytes
    cursor: Cursor


async def _without_malformed(
    kit: Kit, tx: Tx, pending: Sequence[Record], again: Sequence[Record], cursor: Cursor
) -> list[_Row]:
    """What can be taken up; the rest is set aside with its reason, so that nothing waits behind it, and tried again.

    A leaf that was set aside and is one by now comes first: it moves nothing.
    """
    found, bad = [_Row(row["entry_id"], row["body"], cursor) for row in again], []
    found += [_Row(row["entry_id"], row["body"], Cursor(row["xact"], row["entry_id"])) for row in pending]
    for row in (*again, *pending):
        problem = problem_of(row["leaf_id"], row["kind"], row["body"])
        if problem is not None:
            bad.append((row["entry_id"], problem))
            log.error("leaf_set_aside", entry=row["entry_id"], reason=code(problem))
    if bad:
        now = kit.clock.now()
        await store.set_aside(tx, bad, now, now + ASIDE_RETRY)
        EVIDENCE_SET_ASIDE.inc(len(bad))
    names = {entry for entry, _ in bad}
    back = [row["entry_id"] for row in again if row["entry_id"] not in names]
    if back:
        await store.take_back(tx, back)
    return [row for row in found if row.entry_id not in names]


class _Named(msgspec.Struct):
    leaf_id: UUID
    kind: str


async def _take_up(kit: Kit, tx: Tx, journal: Journal, size: int, cursor: Cursor) -> int:
    """Leaves that the journal has behind the database's end: a crash before the commit, or a restored database."""
    bodies = await asyncio.to_thread(journal.read, size, BATCH)
    named = [msgspec.json.decode(body, type=_Named) for body in bodies]
    await store.insert_leaves(tx, [(name.leaf_id, name.kind, body) for name, body in zip(named, bodies, strict=True)])
    entries = await store.read_entries(tx, [name.leaf_id for name in named])
    hashes = [leaf_hash(body) for body in bodies]
    await _index(kit, tx, size, [entries[name.leaf_id] for name in named], [cursor] * len(named), hashes)
    log.warning("taken_up_from_journal", leaves=len(named))
    return BATCH  # there may be more


async def _index(
    kit: Kit, tx: Tx, size: int, entries: Sequence[int], cursors: Sequence[Cursor], hashes: Sequence[bytes]
) -> None:
    """Indices, nodes and a checkpoint for the leaves; of the tree before only its right edge is read."""
    edge = nodes_of((0, size))
    known = await store.read_nodes(tx, edge)
    if len(known) != len(edge):
        raise EvidenceChanged
    made, grown = grow(size, [known[node] for node in edge], hashes)
    await store.insert_sequence(tx, size, entries, cursors)
    await store.insert_nodes(tx, made)
    signer = log_signer(kit)
    head = Checkpoint(signer.name, size + len(hashes), combine(grown))
    await store.insert_checkpoint(tx, head.size, signed(head, signer.line(head)))
    tx.wake(kit.wakes[WITNESS])


async def witness_checkpoint(kit: Kit) -> None:
    """Asks the witness for its signature under the newest checkpoint, if that lacks it.

    Raises `Unavailable` when it does not answer, and `WitnessRefused` when it has seen another log.
    """
    newest = await store.read_newest_checkpoint(kit.db)
    if newest is None or newest["size"] == newest["cosigned"]:
        return
    settings = settings_of(kit)
    settings.require("witness_url")
    try:
        witness = Verifier.parse(settings.read("witness_public_key_file").decode())
    except ValueError:
        raise Misconfigured("WITNESS_PUBLIC_KEY_FILE holds no public key in the form <name>+<id>+<key>.") from None
    async with httpx.AsyncClient(
        base_url=settings.witness_url, timeout=_WITNESS_SECONDS, trust_env=False, verify=tls_of(settings.witness_url)
    ) as http:
        answer = await _ask(kit, http, newest["cosigned"], newest["size"], newest["note"])
        if answer.status_code == httpx.codes.CONFLICT:
            # It has signed a later checkpoint than we know of, because its answer was lost.
            seen = int(answer.text) if answer.text.strip().isdecimal() else newest["size"] + 1
            if seen > newest["size"]:
                raise WitnessRefused
            answer = await _ask(kit, http, seen, newest["size"], newest["note"])
    line, at = _signature(newest["note"], witness, answer)
    faultpoint("evidence.witnessed")
    await kit.run_tx("insert_cosignature", lambda tx: store.insert_cosignature(tx, newest["size"], line, at))


async def _ask(kit: Kit, http: httpx.AsyncClient, old: int, new: int, note: str) -> httpx.Response:
    """`add-checkpoint` of C2SP's tlog-witness."""
    lines = [b64encode(hash_).decode() for hash_ in await prove_consistency(kit, old, new)]
    body = "\n".join((f"old {old}", *lines, "", note))
    try:
        return await http.post("/add-checkpoint", content=body.encode(), headers={"Content-Type": "text/plain"})
    except httpx.HTTPError:
        raise Unavailable("The witness does not answer. Certificates wait; the operator looks after it.") from None


def _signature(note: str, witness: Verifier, answer: httpx.Response) -> tuple[str, datetime]:
    """The witness's line for the note, and the time that it states."""
    if answer.status_code in (httpx.codes.CONFLICT, httpx.codes.UNPROCESSABLE_ENTITY):
        raise WitnessRefused
    if answer.status_code != httpx.codes.OK:
        raise Unavailable("The witness does not sign: its configuration and the log's do not fit together.")
    for line in answer.text.splitlines(keepends=True):
        try:
            if parse_line(line.rstrip("\n"))[:2] == (witness.name, witness.key_id):
                return line, datetime.fromtimestamp(parse_note(note + line).time_of(witness), UTC)
        except BadNote:
            continue
    raise Unavailable("The witness answers with a key that is not the pinned one.")


JOBS: Final = (
    Job(SEQUENCE, timedelta(milliseconds=200), sequence_leaves),
    Job(WITNESS, timedelta(milliseconds=200), witness_checkpoint),
)
