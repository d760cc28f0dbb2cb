"""The process in the background that holds the stack: it brings it up, waits for SIGTERM, and takes it down.

Started by `up` with the folder for the state and third parties' `MODULE:NAME`, and a pipe as its stdout on which it
tells the progress.
"""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import psutil

from deploy.local.processes import StackError
from deploy.local.services import load_specification
from deploy.local.stack import Stack
from deploy.local.state import State, children_of, remove_state, write_env, write_state


def main(local: Path, extra: Sequence[str], split: bool) -> int:
    """Returns the exit code: 0 after SIGTERM, 1 when the stack could not be brought up."""
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    state = State(os.getpid(), psutil.Process().create_time())
    write_state(local, state)
    try:
        specifications = [load_specification(text) for text in extra]
        stack = Stack(extra=specifications, split=split, progress=lambda line: print(line, flush=True))
        # Written down before anything starts: `down` can clean up whatever happens to us.
        state.folders = [str(stack.folder), *([str(stack.postgres.data_dir.parent)] if stack.postgres.data_dir else [])]
        write_state(local, state)
        with stack:
            state.children, state.ready = children_of(stack), True
            write_env(local, stack)
            write_state(local, state)
            _detach()
            while True:
                signal.pause()
    except StackError as error:
        print(error, flush=True)
        return 1
    finally:
        remove_state(local)


def _end(number: int, frame: FrameType | None) -> None:
    # Once: a second signal while the stack is being taken down must not interrupt that.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(0)


def _detach() -> None:
    """Close the pipe to `up`, which ends at that; nothing is printed from here on."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)


if __name__ == "__main__":
    given = [argument for argument in sys.argv[2:] if argument != "--split"]
    sys.exit(main(Path(sys.argv[1]), given, split="--split" in sys.argv))
