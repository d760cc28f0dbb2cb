"""Logs that cannot print personal data: JSON lines on stderr with codes, ids, numbers and times, and never a text.

`log = get_log("order")`, then `log.info("order_placed", order_id=order_id, lines=3)`. A value of any other type prints
as the name of its type, an exception as its type and where it came from. What third-party libraries log is cut down to
where and how severe: their messages hold record values, rows and arguments.
"""

import json
import logging
import re
import sys
import sysconfig
import threading
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO
from uuid import UUID

_CODE = re.compile(r"[A-Za-z0-9_.:/-]{1,64}")
_SQLSTATE = re.compile(r"[0-9A-Z]{5}")
_FIELDS = "_safe_fields"
_FRAMES = 3
_CAUSES = 3
_FOREIGN = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib"))


class code:  # noqa: N801 - reads as a function where it is used: topic=code(topic)
    """A word that is safe to print because it is ours: a topic, a reason, a route.

    Prints as `<not a code>` if it cannot be one.
    """

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text if _CODE.fullmatch(text) else "<not a code>"


class Log:
    """Writes events of one part of a service. `event` is a literal in the code:
    lower-case words joined by underscores.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def debug(self, event: str, **values: object) -> None:
        self._write(logging.DEBUG, event, values)

    def info(self, event: str, **values: object) -> None:
        self._write(logging.INFO, event, values)

    def warning(self, event: str, **values: object) -> None:
        self._write(logging.WARNING, event, values)

    def error(self, event: str, **values: object) -> None:
        self._write(logging.ERROR, event, values)

    def _write(self, level: int, event: str, values: dict[str, object]) -> None:
        if self._logger.isEnabledFor(level):
            fields = {"event": code(event).text, **{name: safe(value) for name, value in values.items()}}
            self._logger.log(level, "event", extra={_FIELDS: fields})


def get_log(name: str) -> Log:
    return Log(logging.getLogger(f"shop.{name}"))


def configure_logs(service: str, role: str, level: str = "INFO", stream: TextIO | None = None) -> None:
    """Make this the only way to stderr (or `stream`):
    libraries, warnings and uncaught exceptions go through it as well.
    """
    root = logging.getLogger()
    root.handlers[:] = [_Handler(service, role, stream or sys.stderr)]
    root.setLevel(logging.WARNING)
    logging.getLogger("shop").setLevel(level.upper())
    logging.captureWarnings(True)
    # Otherwise a failing handler prints the record that it failed on.
    logging.raiseExceptions = False
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda hook: _log_uncaught(hook.exc_type, hook.exc_value, hook.exc_traceback)
    sys.unraisablehook = lambda hook: _log_uncaught(hook.exc_type, hook.exc_value, hook.exc_traceback)


def _log_uncaught(kind: type[BaseException], error: BaseException | None, where: TracebackType | None) -> None:
    get_log("process").error("uncaught_exception", error=error or kind())


def safe(value: object) -> Any:
    """What of `value` may be printed, as JSON: see the module's first lines."""
    match value:
        case None | bool() | float():
            return value
        case Enum():
            return safe_code(value.value) if isinstance(value.value, str) else value.name
        case int():
            return int(value)
        case code():
            return value.text
        case UUID():
            return str(value)
        case datetime():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case BaseException():
            return safe_error(value)
        case _:
            return f"<{type(value).__name__}>"


def safe_code(text: str) -> str:
    return code(text).text


def safe_error(error: BaseException) -> dict[str, Any]:
    """Type, causes' types, SQLSTATE, our code and innermost own frames of an exception;
    never its message or arguments.
    """
    found: dict[str, Any] = {"type": _type_name(error), "at": _own_frames(error.__traceback__)}
    causes = [_type_name(cause) for cause in _causes(error)]
    if causes:
        found["causes"] = causes
    # `code` of a KitError, `sqlstate` of an asyncpg error: both are closed vocabularies.
    for name, pattern in (("code", _CODE), ("reason", _CODE), ("sqlstate", _SQLSTATE)):
        word = getattr(error, name, None)
        if isinstance(word, str) and pattern.fullmatch(word) and (name == "sqlstate" or _is_ours(error)):
            found[name] = word
    return found


def _is_ours(error: BaseException) -> bool:
    return any(base.__module__ == "servicekit.core.errors" for base in type(error).__mro__)


def _type_name(error: BaseException) -> str:
    return f"{type(error).__module__}.{type(error).__qualname__}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    for _ in range(_CAUSES):
        cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if cause is None:
            return
        yield cause
        error = cause


def _own_frames(where: TracebackType | None) -> list[str]:
    frames = [(Path(frame.f_code.co_filename), frame.f_code.co_name, line) for frame, line in traceback.walk_tb(where)]
    own = [frame for frame in frames if not str(frame[0]).startswith(_FOREIGN)]
    # Installed as a wheel our own code lies among the foreign: then the innermost frames of all.
    return [f"{'/'.join(path.parts[-2:])}:{name}:{line}" for path, name, line in (own or frames)[-_FRAMES:]]


class _Handler(logging.Handler):
    def __init__(self, service: str, role: str, stream: TextIO) -> None:
        super().__init__()
        self._process = {"service": service, "role": role}
        self._stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = json.dumps(self._line(record), separators=(",", ":"))
            self._stream.write(line + "\n")
            self._stream.flush()
        except Exception:  # noqa: BLE001 - a log line is never worth the request that wrote it
            self.handleError(record)

    def _line(self, record: logging.LogRecord) -> dict[str, Any]:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {"time": time, "level": safe_code(record.levelname), **self._process}
        line["logger"] = safe_code(record.name)
        fields = getattr(record, _FIELDS, None)
        if fields is not None and record.name.startswith("shop."):
            return {**line, **fields}
        line["at"] = f"{record.filename}:{record.lineno}"
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = safe_error(record.exc_info[1])
        return line
