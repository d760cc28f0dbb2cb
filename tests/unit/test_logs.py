"""Whatever is handed to a log, nothing that came from a person is printed."""

import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

import pytest

from servicekit.core.errors import Poison
from servicekit.core.logs import code, configure_logs, get_log

SECRET = "Jane Canary"
ID = UUID("00000000-0000-4000-8000-000000000001")


class Colour(StrEnum):
    RED = "red"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root, hooks = logging.getLogger(), (sys.excepthook, threading.excepthook, sys.unraisablehook)
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    configure_logs("order", "api", "DEBUG", stream)
    yield stream
    logging.captureWarnings(False)
    root.handlers[:], logging.raiseExceptions = handlers, True
    root.setLevel(level)
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    assert SECRET not in stream.getvalue()
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_codes_ids_numbers_and_times_are_printed(stream: io.StringIO) -> None:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    get_log("order").info(
        "order_placed",
        id=ID,
        n=3,
        ms=1.5,
        ok=True,
        none=None,
        c=Colour.RED,
        at=at,
        t=timedelta(seconds=2),
        x=code("a.b"),
    )
    (line,) = lines(stream)
    assert line["event"] == "order_placed"
    assert line["service"] == "order"
    assert line["role"] == "api"
    assert [line[k] for k in ("id", "n", "ms", "ok", "none", "c", "at", "t", "x")] == [
        str(ID), 3, 1.5, True, None, "red", "2026-01-02T00:00:00+00:00", 2.0, "a.b",
    ]  # fmt: skip


@pytest.mark.fault(28, "a value in a log call")
@pytest.mark.parametrize("value", [SECRET, SECRET.encode(), [SECRET], {"a": SECRET}, object(), (1, SECRET)])
def test_other_values_print_as_their_type(stream: io.StringIO, value: object) -> None:
    get_log("order").info("event", value=value)
    assert lines(stream)[0]["value"] == f"<{type(value).__name__}>"


def test_text_is_no_code_and_no_event(stream: io.StringIO) -> None:
    get_log("order").info(f"placed by {SECRET}", topic=code(SECRET))
    assert lines(stream)[0]["event"] == "<not a code>" == lines(stream)[0]["topic"]


@pytest.mark.fault(28, "a driver's error with a value")
def test_exception_shows_type_causes_and_own_frames_only(stream: io.StringIO) -> None:
    try:
        try:
            {}[SECRET]  # type: ignore[index]
        except KeyError as error:
            raise ValueError(SECRET) from error
    except ValueError as error:
        get_log("order").error("failed", error=error)
    (line,) = lines(stream)
    assert line["error"]["type"] == "builtins.ValueError"
    assert line["error"]["causes"] == ["builtins.KeyError"]
    assert line["error"]["at"][-1].startswith("unit/test_logs.py:test_exception_shows")


def test_our_errors_show_their_codes(stream: io.StringIO) -> None:
    get_log("order").error("failed", error=Poison("wrong_producer"))
    assert lines(stream)[0]["error"]["reason"] == "wrong_producer"


@pytest.mark.fault(28, "a library's log line with a value")
def test_libraries_messages_and_exceptions_are_cut_down(stream: io.StringIO) -> None:
    try:
        raise RuntimeError(SECRET)
    except RuntimeError:
        logging.getLogger("aiokafka.consumer").exception("record %s", SECRET)
    logging.getLogger("shop.order").error("bypass %s", SECRET)
    library, bypass = lines(stream)
    assert library["error"]["type"] == "builtins.RuntimeError"
    assert library["at"].startswith("test_logs.py:")
    assert "event" not in bypass


@pytest.mark.fault(28, "a warning and an uncaught exception with a value")
def test_warnings_and_uncaught_exceptions_go_the_same_way(stream: io.StringIO) -> None:
    def fail() -> None:
        raise RuntimeError(SECRET)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn(SECRET, stacklevel=1)
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    sys.excepthook(ValueError, ValueError(SECRET), None)
    assert [line.get("event") for line in lines(stream)][-2:] == ["uncaught_exception", "uncaught_exception"]
