"""The witness: a process of its own, under another account, that signs a log's checkpoints and never a fork of it.

`python -m evidence_log.witness all`. It speaks C2SP's tlog-witness: `POST /add-checkpoint`. It knows one log by
its public key, and keeps what it signed in an append-only file.
"""

import base64
import fcntl
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request
from fastapi.responses import PlainTextResponse, Response

from evidence_log.checkpoint import (
    MAX_NOTE,
    WITNESS,
    BadNote,
    Checkpoint,
    Signer,
    Verifier,
    parse_note,
    signed,
)
from evidence_log.merkle import verify_consistency
from servicekit import Settings, get_log
from servicekit.app.probes import STARTING, serving_probes
from servicekit.app.process import run_process, stop_signal
from servicekit.core.clock import Clock
from servicekit.core.errors import Misconfigured
from servicekit.core.health import Health
from servicekit.http.app import make_app
from servicekit.http.serving import serving

log = get_log("witness")
MAX_PROOF: Final = 63
_OF_SIZE: Final = "text/x.tlog.size"


class WitnessSettings(Settings):
    witness_name: str = "witness.example/shop"
    witness_key_file: Path | None = None
    witness_file: Path | None = None
    witness_log_key_file: Path | None = None


class Refused(Exception):
    """Not signed: the status says why, as tlog-witness has it."""

    def __init__(self, status: int, text: str = "", media_type: str = "text/plain") -> None:
        super().__init__(status)
        self.status, self.text, self.media_type = status, text, media_type


class Witness:
    """What it knows of the log: the last checkpoint that it signed."""

    def __init__(self, signer: Signer, of_log: Verifier, path: Path, clock: Clock) -> None:
        """Raises `Misconfigured` when the file cannot be used, or another witness uses it."""
        self._signer, self._log, self._clock = signer, of_log, clock
        try:
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Misconfigured(f"WITNESS_FILE cannot be used ({type(error).__name__}): another one has it?") from None
        self._seen = self._read_last()

    def add(self, old: int, path: Sequence[bytes], note: str) -> str:
        """Signs the checkpoint if the log has only grown: its line is returned when the file holds it. Raises `Refused`."""
        try:
            found = parse_note(note)
        except BadNote:
            raise Refused(400) from None
        head = found.checkpoint
        if head.origin != self._log.name:
            raise Refused(404)
        try:
            found.time_of(self._log)
        except BadNote:
            raise Refused(403) from None
        self._check_growth(old, path, head)
        line = self._signer.line(head, int(self._clock.now().timestamp()))
        if head != self._seen:
            self._keep(head, signed(head, line))
        return line

    def _check_growth(self, old: int, path: Sequence[bytes], head: Checkpoint) -> None:
        seen = self._seen
        if old > head.size:
            raise Refused(400)
        if old != (seen.size if seen else 0):
            raise Refused(409, f"{seen.size if seen else 0}\n", _OF_SIZE)
        if seen is not None and seen.size == head.size and seen.root != head.root:
            log.error("fork_refused", size=head.size)
            raise Refused(409, f"{seen.size}\n", _OF_SIZE)
        if seen is None and not path:
            return
        if seen is None or not verify_consistency(old, head.size, path, seen.root, head.root):
            log.error("fork_refused", size=head.size)
            raise Refused(422)

    def _keep(self, head: Checkpoint, note: str) -> None:
        # One line of base64 per checkpoint: written in one piece, on the disk before anybody sees the signature.
        os.write(self._file, base64.b64encode(note.encode()) + b"\n")
        os.fsync(self._file)
        self._seen = head

    def _read_last(self) -> Checkpoint | None:
        end = os.lseek(self._file, 0, os.SEEK_END)
        start = max(0, end - 4 * MAX_NOTE)
        tail = os.pread(self._file, end - start, start)
        whole = tail.rfind(b"\n") + 1
        if whole < len(tail):
            os.ftruncate(self._file, start + whole)  # a crash cut it off, so nobody has seen that signature
        lines = tail[:whole].splitlines()
        if not lines:
            return None
        try:
            note = parse_note(base64.b64decode(lines[-1], validate=True).decode())
            note.time_of(self._signer.verifier)
        except ValueError:
            raise Misconfigured("WITNESS_FILE was changed: put back the one that this witness wrote.") from None
        return note.checkpoint


def parse_request(body: str) -> tuple[int, list[bytes], str]:
    """`old <size>`, lines of the consistency proof, an empty line, the checkpoint. Raises `Refused`."""
    top, gap, note = body.partition("\n\n")
    first, *lines = top.split("\n")
    word, _, size = first.partition(" ")
    if not gap or word != "old" or not size.isdecimal() or len(size) > 19 or len(lines) > MAX_PROOF:
        raise Refused(400)
    try:
        return int(size), [base64.b64decode(line, validate=True) for line in lines], note
    except ValueError:
        raise Refused(400) from None


async def _text(request: Request) -> str:
    return (await request.body()).decode(errors="replace")


def make_router(witness: Witness) -> APIRouter:
    """The one route. It needs no token: only the log can make what is signed here."""
    router = APIRouter()

    @router.post("/add-checkpoint", response_class=PlainTextResponse)
    async def add_checkpoint(body: Annotated[str, Depends(_text)]) -> Response:
        """Sign a checkpoint of the log, given that it begins with what was signed before."""
        try:
            # No await in between: requests are checked and kept one after the other.
            return PlainTextResponse(witness.add(*parse_request(body)))
        except Refused as refused:
            return Response(refused.text, refused.status, media_type=refused.media_type)

    return router


def open_witness(settings: WitnessSettings, clock: Clock) -> Witness:
    """Raises `Misconfigured`."""
    settings.require("witness_key_file", "witness_file", "witness_log_key_file")
    assert settings.witness_file is not None
    try:
        signer = Signer.load(settings.witness_name, WITNESS, settings.read("witness_key_file"))
        of_log = Verifier.parse(settings.read("witness_log_key_file").decode())
    except ValueError:
        raise Misconfigured(
            "WITNESS_KEY_FILE or WITNESS_LOG_KEY_FILE holds no key of the form that is needed."
        ) from None
    return Witness(signer, of_log, settings.witness_file, clock)


async def run(settings: WitnessSettings) -> None:
    """Serves until SIGTERM or SIGINT. Raises `Misconfigured`."""
    stop, clock = stop_signal(), Clock()
    witness = open_witness(settings, clock)
    health = Health("witness", "all", "1", clock)
    app = make_app(settings, clock, health, [make_router(witness)], refuse_cards=False)
    async with serving_probes(health, settings), serving(app, settings):
        health.accept(STARTING)
        log.info("started")
        await stop.wait()


def main(arguments: Sequence[str]) -> int:
    """Returns the exit code."""
    if list(arguments) != ["all"]:
        print("usage: python -m evidence_log.witness all", file=sys.stderr)
        return 2
    settings = WitnessSettings()
    return run_process("witness", "all", settings.log_level, partial(run, settings))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
