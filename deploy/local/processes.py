"""Child processes that end with us, and TCP ports that stay ours.

Every server of the local stack is started through `spawn`. Three things are settled here once: a child has a session
of its own (a Ctrl-C in the terminal reaches us, and we stop our children in order), it is told to end when we die,
and all it prints goes to one log file.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import psutil

HOST = "127.0.0.1"


class StackError(RuntimeError):
    """A part of the local stack could not be brought up or used; the message says what to do."""


class Port:
    """A TCP port of the loopback address, ours until `release`, whether or not a server listens on it.

    The socket stays bound without listening. Without SO_REUSEADDR at the time of the bind nobody else gets the port,
    and the kernel does not hand it to outgoing connections; with SO_REUSEADDR set afterwards our own server may bind
    it too. So two stacks never collide, and a killed server finds its port free when it comes back.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.bind((HOST, 0))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.number: int = self._socket.getsockname()[1]

    def release(self) -> None:
        """Give the port back; harmless when repeated."""
        self._socket.close()

    def is_open(self) -> bool:
        """True when a server accepts connections."""
        try:
            socket.create_connection((HOST, self.number), timeout=1).close()
        except OSError:
            return False
        return True


class Process:
    """One child process; its signals."""

    def __init__(self, name: str, popen: "subprocess.Popen[bytes]", log: Path, stop_signal: signal.Signals) -> None:
        self.name = name
        self.log = log
        self._popen = popen
        self._stop_signal = stop_signal

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; minus the signal's number when a signal ended it."""
        return self._popen.poll()

    @property
    def is_running(self) -> bool:
        return self._popen.poll() is None

    def stop(self, timeout: float = 10) -> None:
        """Ask it to end, wait `timeout` seconds, then kill it. Harmless when it has ended."""
        if not self.is_running:
            return
        self.resume()
        self._popen.send_signal(self._stop_signal)
        try:
            self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL it and all its descendants, as a crash would, and wait until they are gone."""
        if not self.is_running:
            return  # its pid may be another one's by now
        family = [(child.pid, child.create_time()) for child in _descendants(self.pid)]
        self._popen.kill()
        self._popen.wait()
        _signal_all(family, signal.SIGKILL)
        wait_gone(family, timeout=10)

    def pause(self) -> None:
        """SIGSTOP: it keeps its connections and does nothing."""
        self._popen.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._popen.send_signal(signal.SIGCONT)

    def log_tail(self, lines: int = 15) -> str:
        """The last lines that it printed."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def spawn(
    name: str,
    command: Sequence[str | Path],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    user: str | None = None,
    stop_signal: signal.Signals = signal.SIGTERM,
) -> Process:
    """Start `command`; its stdout and stderr are appended to `log`. `user` is whom to run it as (needs root)."""

    def start() -> "subprocess.Popen[bytes]":
        with log.open("ab") as output:
            return subprocess.Popen(
                [*_ends_with_parent(stop_signal), *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(env) if env is not None else None,
                start_new_session=True,
                **as_user(user),
            )

    return Process(name, _spawner().submit(start).result(), log, stop_signal)


def as_user(user: str | None) -> dict[str, Any]:
    """The arguments of `subprocess` that run a command as `user`, with that user's group and no others; {} for None."""
    if user is None:
        return {}
    account = pwd.getpwnam(user)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": [], "cwd": "/"}


def _ends_with_parent(stop_signal: signal.Signals) -> list[str]:
    # `setpriv` (util-linux) sets PR_SET_PDEATHSIG after it has taken the new user, and then becomes the command itself.
    # Elsewhere than on Linux there is no such thing, and a killed parent leaves its children to `down`.
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", stop_signal.name.removeprefix("SIG"), "--"] if setpriv else []


@cache
def _spawner() -> ThreadPoolExecutor:
    # The kernel sends the parent-death signal when the *thread* that forked ends. This one ends with the interpreter.
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")


def end_all(pids: Sequence[tuple[int, float]], timeout: float = 10) -> None:
    """SIGTERM, then SIGKILL after `timeout` seconds, to the processes of these (pid, create time)."""
    _signal_all(pids, signal.SIGTERM)
    if not wait_gone(pids, timeout):
        _signal_all(pids, signal.SIGKILL)
        wait_gone(pids, timeout=5)


def wait_gone(pids: Sequence[tuple[int, float]], timeout: float) -> bool:
    """True as soon as all have ended, False after `timeout` seconds. One that nobody has reaped yet has ended."""
    deadline = time.monotonic() + timeout
    while any(find(pid, created) for pid, created in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def find(pid: int, created: float) -> psutil.Process | None:
    """The process with this pid, unless it has ended or the pid has been given to another one since."""
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - created) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return None
    return process if same else None


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _signal_all(pids: Sequence[tuple[int, float]], number: signal.Signals) -> None:
    for pid, created in pids:
        if (process := find(pid, created)) is not None:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)


def unprivileged_user() -> str | None:
    """Whom a server runs as that refuses root: `postgres` if it exists, else `nobody`; None if we are not root."""
    if os.geteuid() != 0:
        return None
    names = {account.pw_name for account in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in names)
